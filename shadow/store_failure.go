package shadow

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
)

// ErrStore says that the store failed for good: a write or a sync of its log or
// its manifest failed, and what a failed sync left on disk is not known (I6). Nothing more
// is done with it. A new process that opens it finds what was durable.
var ErrStore = errors.New("the journal's store failed")

// storeFailure turns Pebble's way of failing (Logger.Fatalf, panics) into errors:
// a full state directory stops the migration, resumably, not the process.
type storeFailure struct {
	fatal      atomic.Pointer[error]
	ended      chan struct{}         // closed when fatal is set
	background atomic.Pointer[error] // of the last flush or compaction, until one succeeds
}

// fatalPanic is what Fatalf throws and guard catches.
type fatalPanic struct{ err error }

func (p fatalPanic) Error() string { return p.err.Error() }

// Infof, Errorf and Fatalf are Pebble's logger. Engine packages do not log.
func (*storeFailure) Infof(string, ...any)  {}
func (*storeFailure) Errorf(string, ...any) {}

// Fatalf does not return, or Pebble would go on. A call of ours gets the error; a
// goroutine of Pebble's own ends, and its deferred calls release its locks.
func (f *storeFailure) Fatalf(format string, args ...any) {
	err := fmt.Errorf("%w: "+format, append([]any{ErrStore}, args...)...)
	f.failed(err)
	if guarded() {
		panic(fatalPanic{err})
	}
	runtime.Goexit()
}

// guarded reports whether guard is among the callers.
func guarded() bool {
	var pcs [128]uintptr
	frames := runtime.CallersFrames(pcs[:runtime.Callers(2, pcs[:])])
	for {
		f, more := frames.Next()
		if strings.HasSuffix(f.Function, "(*storeFailure).guard") {
			return true
		}
		if !more {
			return false
		}
	}
}

// failed keeps the first fatal error.
func (f *storeFailure) failed(err error) {
	if f.fatal.CompareAndSwap(nil, &err) {
		close(f.ended)
	}
}

func (f *storeFailure) listener() *pebble.EventListener {
	return &pebble.EventListener{
		BackgroundError: func(err error) { f.background.Store(&err) },
		FlushEnd: func(i pebble.FlushInfo) {
			if i.Err == nil {
				f.background.Store(nil)
			}
		},
	}
}

func (f *storeFailure) err() error {
	if p := f.fatal.Load(); p != nil {
		return *p
	}
	return nil
}

// trouble is why nothing should be written now: Pebble would hold the writer until
// its flush succeeds, which on a full disk is never.
func (f *storeFailure) trouble() error {
	if err := f.err(); err != nil {
		return err
	}
	if p := f.background.Load(); p != nil {
		return fmt.Errorf("write tables of the store: %w", *p)
	}
	return nil
}

// guard runs fn, which calls nothing but Pebble, unless the store failed, and
// turns a panic into an error.
func (f *storeFailure) guard(fn func() error) (err error) {
	if err := f.err(); err != nil {
		return err
	}
	defer func() {
		switch p := recover().(type) {
		case nil:
		case fatalPanic:
			err = p.err
		default:
			err = fmt.Errorf("%w: %v", ErrStore, p)
			f.failed(err)
		}
	}()
	return fn()
}

// await is guard for what may wait for Pebble's own goroutines: when one of them
// fails, it would wait for ever. What fn uses must then be left to it.
func (f *storeFailure) await(fn func() error) error {
	done := make(chan error, 1)
	go func() { done <- f.guard(fn) }()
	select {
	case err := <-done:
		return err
	case <-f.ended:
		return f.err()
	}
}
