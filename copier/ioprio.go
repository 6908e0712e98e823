package copier

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// The classes of I/O priority that a copy may run in (linux/ioprio.h).
const (
	IOPriorityLow  = 2<<13 | 7 // best effort, last level
	IOPriorityIdle = 3 << 13   // only when nobody else wants the disk: may starve
)

// SetThreadIOPriority sets the I/O priority of the calling thread, which the
// caller has locked to its goroutine. Schedulers that know priorities (bfq,
// mq-deadline) heed it; with "none" it does nothing. Writeback does not inherit it.
func SetThreadIOPriority(prio int) error {
	const whoProcess = 1
	if _, _, e := unix.Syscall(unix.SYS_IOPRIO_SET, whoProcess, 0, uintptr(prio)); e != 0 {
		return fmt.Errorf("set I/O priority: %w", e)
	}
	return nil
}
