package copier

import (
	"errors"
	"fmt"
	"strconv"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The wrappers here exist because those of x/sys allocate a copy of every path,
// also of an empty one, and these calls are made several times per object.

var emptyPath [1]byte

func ptr(b []byte) uintptr { return uintptr(unsafe.Pointer(unsafe.SliceData(b))) }

func statx(fd int, mask int, st *unix.Statx_t) error {
	_, _, e := unix.Syscall6(unix.SYS_STATX, uintptr(fd), uintptr(unsafe.Pointer(&emptyPath)),
		unix.AT_EMPTY_PATH|unix.AT_NO_AUTOMOUNT, uintptr(mask), uintptr(unsafe.Pointer(st)), 0)
	return errnoErr(e)
}

func errnoErr(e unix.Errno) error {
	if e == 0 {
		return nil
	}
	return e
}

// procFds is a descriptor of this process's /proc/self/fd, opened once: every
// object that is held by O_PATH is reached through it.
var procFds = sync.OnceValues(func() (int, error) {
	fd, err := unix.Open("/proc/self/fd", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open /proc/self/fd: %w", err)
	}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err != nil {
		return -1, fmt.Errorf("statfs /proc/self/fd: %w", err)
	}
	if fs.Type != unix.PROC_SUPER_MAGIC {
		return -1, errors.New("open /proc/self/fd: not a procfs")
	}
	return fd, nil
})

// fdName writes fd as a NUL-terminated decimal: its name in procFds.
func fdName(buf *[24]byte, fd int) {
	b := strconv.AppendInt(buf[:0], int64(fd), 10)
	buf[len(b)] = 0
}

// fdPath writes "/proc/self/fd/N", NUL-terminated, for calls without a
// directory argument.
func fdPath(buf *[40]byte, fd int) {
	b := append(buf[:0], "/proc/self/fd/"...)
	b = strconv.AppendInt(b, int64(fd), 10)
	buf[len(b)] = 0
}

// Reopen opens the object behind fd anew with other flags: an O_PATH descriptor
// becomes a readable one. It must not be used on FIFOs and devices, whose open
// has effects; O_NONBLOCK is added so that a mistake cannot hang.
func Reopen(fd int, flags int) (int, error) {
	dir, err := procFds()
	if err != nil {
		return -1, err
	}
	var name [24]byte
	fdName(&name, fd)
	flags |= unix.O_CLOEXEC | unix.O_NONBLOCK
	for {
		r, _, e := unix.Syscall6(unix.SYS_OPENAT, uintptr(dir), uintptr(unsafe.Pointer(&name)), uintptr(flags), 0, 0, 0)
		switch {
		case e == 0:
			return int(r), nil
		case e == unix.EINTR:
		case e == unix.EPERM && flags&unix.O_NOATIME != 0:
			flags &^= unix.O_NOATIME // somebody else's file, and we are not privileged
		default:
			return -1, e
		}
	}
}

// ReopenRead is Reopen for reading that leaves no trace in atime.
func ReopenRead(fd int) (int, error) { return Reopen(fd, unix.O_RDONLY|unix.O_NOATIME) }

// isPathFd reports whether fd was opened with O_PATH.
func isPathFd(fd int) (bool, error) {
	r, _, e := unix.RawSyscall(unix.SYS_FCNTL, uintptr(fd), unix.F_GETFL, 0)
	if e != 0 {
		return false, e
	}
	return int(r)&unix.O_PATH != 0, nil
}

func pread(fd int, p []byte, off int64) (int, error) {
	for {
		n, _, e := unix.Syscall6(unix.SYS_PREAD64, uintptr(fd), ptr(p), uintptr(len(p)), uintptr(off), 0, 0)
		if e == unix.EINTR {
			continue
		}
		if e != 0 {
			return 0, e
		}
		return int(n), nil
	}
}

// preadFull reads until p is full or the file ends.
func preadFull(fd int, p []byte, off int64) (int, error) {
	n := 0
	for n < len(p) {
		m, err := pread(fd, p[n:], off+int64(n))
		if err != nil {
			return n, err
		}
		if m == 0 {
			break
		}
		n += m
	}
	return n, nil
}

func pwriteFull(fd int, p []byte, off int64) error {
	for len(p) > 0 {
		n, _, e := unix.Syscall6(unix.SYS_PWRITE64, uintptr(fd), ptr(p), uintptr(len(p)), uintptr(off), 0, 0)
		if e == unix.EINTR {
			continue
		}
		if e != 0 {
			return e
		}
		if n == 0 {
			return unix.EIO // a regular file never writes nothing; do not spin
		}
		p, off = p[n:], off+int64(n)
	}
	return nil
}

func ioctl(fd int, req uintptr, arg unsafe.Pointer) error {
	_, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), req, uintptr(arg))
	return errnoErr(e)
}
