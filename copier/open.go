package copier

import (
	"errors"
	"unsafe"

	"golang.org/x/sys/unix"
)

// beneath is what an application that works on the tree during the walk must
// not be able to get around.
const beneath = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV

// openRetries bounds the EAGAIN that openat2 answers while a rename or mount
// somewhere in the system makes ".." unprovable.
const openRetries = 128

// OpenBeneath opens name below dirfd and nothing else: not outside of it, not
// through a symbolic link (ELOOP), not on another mount (EXDEV). The last
// component may be a symbolic link only with O_PATH|O_NOFOLLOW. O_CLOEXEC is
// always set. mode counts only with O_CREAT or O_TMPFILE.
func OpenBeneath(dirfd int, name string, flags int, mode uint32) (int, error) {
	how := unix.OpenHow{Flags: uint64(flags | unix.O_CLOEXEC), Resolve: beneath}
	if flags&(unix.O_CREAT|unix.O_TMPFILE&^unix.O_DIRECTORY) != 0 {
		how.Mode = uint64(mode & 0o7777)
	}
	if flags&unix.O_PATH == 0 {
		how.Flags |= unix.O_LARGEFILE
	}
	var short [256]byte // no file system here has longer names; paths take the slow way
	buf := short[:]
	if len(name) >= len(short) {
		buf = make([]byte, len(name)+1)
	}
	for i := 0; i < len(name); i++ {
		if name[i] == 0 {
			return -1, unix.EINVAL
		}
	}
	copy(buf, name)
	for try := 0; ; try++ {
		r, _, e := unix.Syscall6(unix.SYS_OPENAT2, uintptr(dirfd), ptr(buf), uintptr(unsafe.Pointer(&how)), unsafe.Sizeof(how), 0, 0)
		switch {
		case e == 0:
			return int(r), nil
		case e == unix.EINTR:
		case e == unix.EAGAIN && try < openRetries:
		case e == unix.EPERM && how.Flags&unix.O_NOATIME != 0:
			how.Flags &^= unix.O_NOATIME
		default:
			return -1, e
		}
	}
}

// Gone reports whether err of an open or stat says that the object is not there
// (any more), or is not of the kind that was listed: what a busy tree does.
func Gone(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) ||
		errors.Is(err, unix.ESTALE) || errors.Is(err, unix.ENXIO)
}

// ReadLink returns the target of the symbolic link behind fd (O_PATH|O_NOFOLLOW).
func ReadLink(fd int, b *Buffers) (string, error) {
	buf := b.value()
	for {
		n, _, e := unix.Syscall6(unix.SYS_READLINKAT, uintptr(fd), uintptr(unsafe.Pointer(&emptyPath)), ptr(buf), uintptr(len(buf)), 0, 0)
		if e == unix.EINTR {
			continue
		}
		if e != 0 {
			return "", e
		}
		return string(buf[:n]), nil
	}
}
