package blockdev

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// MountOptions say how a device is mounted.
type MountOptions struct {
	ReadOnly  bool              // the superblock refuses writes
	Exclusive bool              // fail with EBUSY when the superblock exists already (Linux 6.6) instead of sharing it
	Attrs     uint64            // MOUNT_ATTR_*: nosuid, nodev, noexec, atime … of this mount
	Super     map[string]string // superblock options; an empty value is a flag
}

// OpenDevice mounts device, detached: it is nowhere in the tree until Attach,
// and unmounted by Close or the end of the process. Its propagation is private.
// Super options that the kernel refuses are errors in its own words.
func OpenDevice(device, fstype string, o MountOptions) (*Tree, error) {
	fs, err := unix.Fsopen(fstype, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("open file system type %s: %w", fstype, err)
	}
	defer unix.Close(fs)
	if err := unix.FsconfigSetString(fs, "source", device); err != nil {
		return nil, fsError(fs, "mount "+device, err)
	}
	if o.ReadOnly {
		if err := unix.FsconfigSetFlag(fs, "ro"); err != nil {
			return nil, fsError(fs, "mount "+device, err)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(o.Super)) {
		if value := o.Super[key]; value != "" {
			err = unix.FsconfigSetString(fs, key, value)
		} else {
			err = unix.FsconfigSetFlag(fs, key)
		}
		if err != nil {
			return nil, fsError(fs, "mount "+device+" with "+key, err)
		}
	}
	if o.Exclusive {
		err = fsconfigCommand(fs, fsconfigCreateExcl)
	} else {
		err = unix.FsconfigCreate(fs)
	}
	if err != nil {
		return nil, fsError(fs, "mount "+device, err)
	}
	fd, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, int(o.Attrs))
	if err != nil {
		return nil, fsError(fs, "mount "+device, err)
	}
	return &Tree{fd: fd, name: device}, nil
}

// SuperReadOnly makes the superblock behind fd refuse or accept writes, for all
// of its mounts at once and without touching their own flags. fd must be the
// root of any mount of it, detached ones included; O_PATH is enough.
//
// Turning read-only is the race-free fence: it fails with unix.EBUSY while a
// writable descriptor, a shared writable mapping or an unlinked open file
// exists, and after it late writers get EROFS. It syncs; call Syncfs first.
func SuperReadOnly(fd int, ro bool) error {
	what, flag := "make "+fdName(fd)+" writable", "rw"
	if ro {
		what, flag = "make "+fdName(fd)+" read-only", "ro"
	}
	fs, err := unix.Fspick(fd, "", unix.FSPICK_EMPTY_PATH|unix.FSPICK_CLOEXEC)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	defer unix.Close(fs)
	if err := unix.FsconfigSetFlag(fs, flag); err != nil {
		return fsError(fs, what, err)
	}
	if err := unix.FsconfigReconfigure(fs); err != nil {
		return fsError(fs, what, err)
	}
	return nil
}

// DropNames has the kernel forget every cached name, that is not in use, of the writable file system that fd
// is on. That is what a change of its superblock begins with, so this asks for one that changes nothing; the
// next one is short then. It takes about a second for a million names, during which the file system works.
func DropNames(fd int) error {
	what := "drop cached names of " + fdName(fd)
	fs, err := unix.Fspick(fd, "", unix.FSPICK_EMPTY_PATH|unix.FSPICK_CLOEXEC)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	defer unix.Close(fs)
	if err := unix.FsconfigSetFlag(fs, "rw"); err != nil { // as it is: without it ext4 and xfs take it for a change
		return fsError(fs, what, err)
	}
	if err := unix.FsconfigReconfigure(fs); err != nil {
		return fsError(fs, what, err)
	}
	return nil
}

// Syncfs writes back everything of the file system that fd is on and reports
// the errors of earlier writebacks that this descriptor has not seen. An O_PATH
// descriptor is reopened for it, and then sees only errors from now on.
func Syncfs(fd int) error {
	err := unix.Syncfs(fd)
	if errors.Is(err, unix.EBADF) {
		var f *os.File
		if f, err = os.Open(fmt.Sprintf("/proc/self/fd/%d", fd)); err == nil {
			err = unix.Syncfs(int(f.Fd()))
			f.Close()
		}
	}
	if err != nil {
		return fmt.Errorf("sync file system of %s: %w", fdName(fd), err)
	}
	return nil
}

// fsconfigCreateExcl is FSCONFIG_CMD_CREATE_EXCL of linux/mount.h.
const fsconfigCreateExcl = 8

func fsconfigCommand(fd int, command uint) error {
	_, _, errno := unix.Syscall6(unix.SYS_FSCONFIG, uintptr(fd), uintptr(command), 0, 0, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// fsError adds what the kernel says through the context to err.
func fsError(fs int, what string, err error) error {
	if said := fsMessages(fs); said != "" {
		return fmt.Errorf("%s: %w (%s)", what, err, said)
	}
	return fmt.Errorf("%s: %w", what, err)
}

// fsMessages reads the messages waiting in a file system context, one a read:
// "e ext4: Unknown parameter 'x'". It is ENODATA when there are no more.
func fsMessages(fs int) string {
	var said []string
	buf := make([]byte, 4096)
	for len(said) < 8 {
		n, err := unix.Read(fs, buf)
		if err != nil || n == 0 {
			break
		}
		line := strings.TrimSpace(string(buf[:n]))
		if len(line) > 2 && line[1] == ' ' {
			line = line[2:] // the level: e, w, i
		}
		if line != "" {
			said = append(said, line)
		}
	}
	return strings.Join(said, "; ")
}
