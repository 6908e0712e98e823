package blockdev

import (
	"sync"

	"golang.org/x/sys/unix"
)

// Op is an operation on a Storage.
type Op string

// The operations.
const (
	OpRead  Op = "read"
	OpWrite Op = "write"
	OpSync  Op = "sync"
)

// Fail is a device that refuses the k-th operation. The loop "fail the k-th
// until a run gets through" sets K to 0, 1, 2 … until Failed stays false. Its fields are
// set before it is used.
type Fail struct {
	Storage
	K      int                // which operation fails, counted from 0; negative: none
	Err    error              // with what; nil: unix.EIO
	Only   Op                 // count and fail only these; "": all
	Sticky bool               // all counted operations after it fail too
	Short  int                // a failing write writes this many bytes first
	Stall  func(op Op, k int) // called before each counted operation, outside of all locks; may block

	mu     sync.Mutex
	seen   int
	failed bool
}

// ReadAt reads, or fails and reads nothing.
func (f *Fail) ReadAt(p []byte, off int64) (int, error) {
	if err := f.next(OpRead); err != nil {
		return 0, err
	}
	return f.Storage.ReadAt(p, off)
}

// WriteAt writes, or fails after Short bytes.
func (f *Fail) WriteAt(p []byte, off int64) (int, error) {
	if err := f.next(OpWrite); err != nil {
		n := min(f.Short, len(p))
		if n > 0 {
			if n, werr := f.Storage.WriteAt(p[:n], off); werr != nil {
				return n, werr
			}
		}
		return n, err
	}
	return f.Storage.WriteAt(p, off)
}

// Sync syncs, or fails and syncs nothing.
func (f *Fail) Sync() error {
	if err := f.next(OpSync); err != nil {
		return err
	}
	return f.Storage.Sync()
}

// Failed reports whether an operation was refused.
func (f *Fail) Failed() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.failed
}

// Seen is the number of operations counted.
func (f *Fail) Seen() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.seen
}

func (f *Fail) next(op Op) error {
	if f.Only != "" && f.Only != op {
		return nil
	}
	f.mu.Lock()
	k := f.seen
	f.seen++
	fails := k == f.K || f.Sticky && f.K >= 0 && k > f.K
	f.failed = f.failed || fails
	f.mu.Unlock()
	if f.Stall != nil {
		f.Stall(op, k)
	}
	switch {
	case !fails:
		return nil
	case f.Err != nil:
		return f.Err
	default:
		return unix.EIO
	}
}
