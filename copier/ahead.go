package copier

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// AheadFiles is how many files' reads Ahead starts at once.
	AheadFiles = 128
	// aheadBytes is how much of each: most small files whole. The kernel reads
	// no further than a file's end, and at least that far ahead.
	aheadBytes = 32 << 10
)

// Ahead starts reading the beginnings of many files before anybody waits for one of
// them. Small files that were written one after the other lie one after the other, but
// read one by one each is a request of its own to the device, with the processor time of
// one and a wait. Submitted together, under one plug, the kernel merges those that are
// neighbours.
//
// It uses io_submit(2) with RWF_NOWAIT: such a read of what is not in memory starts
// the readahead and answers EAGAIN; nothing is in flight for us when it returns. What it
// reads is not used, and no failure of it means anything: who reads the file later meets
// the error, if there is one. Not for concurrent use.
type Ahead struct {
	ctx    uintptr
	iocbs  [AheadFiles]iocb
	ptrs   [AheadFiles]*iocb
	events [AheadFiles]ioEvent
	buf    []byte
}

// iocb is struct iocb of include/uapi/linux/aio_abi.h, little-endian.
type iocb struct {
	_       uint64 // data
	_       uint32 // key
	rwFlags uint32
	_       uint16 // opcode
	_       int16  // priority
	fd      uint32
	buf     uint64
	nbytes  uint64
	_       int64     // offset
	_       [2]uint64 // reserved, flags, eventfd
}

// ioEvent is struct io_event.
type ioEvent struct {
	_ [2]uint64 // data, obj
	_ [2]int64  // the result, which nobody wants
}

// NewAhead takes one context of the machine's aio-max-nr; Close gives it back.
func NewAhead() (*Ahead, error) {
	a := &Ahead{buf: make([]byte, aheadBytes)}
	_, _, e := unix.Syscall(unix.SYS_IO_SETUP, AheadFiles, uintptr(unsafe.Pointer(&a.ctx)), 0)
	if e != 0 {
		return nil, fmt.Errorf("io_setup: %w", e)
	}
	for i := range a.ptrs {
		a.ptrs[i] = &a.iocbs[i]
	}
	return a, nil
}

// Start starts reading the files behind fds, at most AheadFiles of them. Negative ones are left out.
func (a *Ahead) Start(fds []int) {
	n := 0
	for _, fd := range fds {
		if fd < 0 {
			continue
		}
		a.iocbs[n] = iocb{
			rwFlags: unix.RWF_NOWAIT, fd: uint32(fd), // opcode 0 is IOCB_CMD_PREAD
			buf: uint64(uintptr(unsafe.Pointer(&a.buf[0]))), nbytes: uint64(len(a.buf)),
		}
		n++
	}
	for at := 0; at < n; {
		m, _, e := unix.Syscall(unix.SYS_IO_SUBMIT, a.ctx, uintptr(n-at), uintptr(unsafe.Pointer(&a.ptrs[at])))
		if e != 0 {
			at++ // refused at the first of them: it is read when its turn comes
			continue
		}
		a.reap(int(m))
		at += int(m)
	}
}

// reap takes the answers, which a read of a page cache has given by the time io_submit returns.
func (a *Ahead) reap(n int) {
	for n > 0 {
		m, _, e := unix.Syscall6(unix.SYS_IO_GETEVENTS, a.ctx, uintptr(n), uintptr(n), uintptr(unsafe.Pointer(&a.events)), 0, 0)
		if e == unix.EINTR {
			continue
		}
		if e != 0 {
			return
		}
		n -= int(m)
	}
}

// Close gives the context back.
func (a *Ahead) Close() {
	_, _, _ = unix.Syscall(unix.SYS_IO_DESTROY, a.ctx, 0, 0)
}
