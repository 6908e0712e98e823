package formats

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ioctls of linux/fs.h: _IOR(0x94, 49, char[256]) and _IOW(0x94, 50, char[256]).
const (
	fsIocGetFSLabel = 0x81009431
	fsIocSetFSLabel = 0x41009432
	fsLabelMax      = 256
)

// SetLabel writes the label of the mounted file system that fd is on. It is
// durable at the file system's next sync. A label over the format's LabelMax is
// EINVAL.
func SetLabel(fd int, label string) error {
	var buf [fsLabelMax]byte
	if len(label) >= fsLabelMax {
		return fmt.Errorf("set label %q: %w", label, unix.EINVAL)
	}
	copy(buf[:], label)
	if err := ioctl(fd, fsIocSetFSLabel, unsafe.Pointer(&buf)); err != nil {
		return fmt.Errorf("set label %q: %w", label, err)
	}
	return nil
}

// Label reads the label of the mounted file system that fd is on.
func Label(fd int) (string, error) {
	var buf [fsLabelMax]byte
	if err := ioctl(fd, fsIocGetFSLabel, unsafe.Pointer(&buf)); err != nil {
		return "", fmt.Errorf("read label: %w", err)
	}
	return unix.ByteSliceToString(buf[:]), nil
}

func ioctl(fd int, req uintptr, arg unsafe.Pointer) error {
	for {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), req, uintptr(arg))
		switch errno {
		case 0:
			return nil
		case unix.EINTR:
		default:
			return errno
		}
	}
}
