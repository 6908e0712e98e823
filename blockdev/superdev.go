package blockdev

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// superDev tells the device number of the superblock that path is on, for what
// no mount table lists: a detached mount. stat doesn't know it for btrfs, where
// every subvolume has a number of its own; the kernel does print it in the
// description of an inotify watch (sdev). path is followed, not opened.
func superDev(path string) (uint64, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC)
	if err != nil {
		return 0, fmt.Errorf("find the superblock of %s: %w", path, err)
	}
	defer unix.Close(fd)
	if _, err := unix.InotifyAddWatch(fd, path, unix.IN_MOVE_SELF|unix.IN_ONESHOT); err != nil {
		return 0, fmt.Errorf("find the superblock of %s: %w", path, err)
	}
	info, err := os.ReadFile(fmt.Sprintf("/proc/thread-self/fdinfo/%d", fd))
	if err != nil {
		return 0, fmt.Errorf("find the superblock of %s: %w", path, err)
	}
	dev, err := parseWatchDev(string(info))
	if err != nil {
		return 0, fmt.Errorf("find the superblock of %s: %w", path, err)
	}
	return dev, nil
}

// parseWatchDev reads "inotify wd:1 ino:100 sdev:800013 mask:…": the kernel's own
// form of a device number, 12 bits major and 20 bits minor, in hexadecimal.
func parseWatchDev(fdinfo string) (uint64, error) {
	for field := range strings.FieldsSeq(fdinfo) {
		text, ok := strings.CutPrefix(field, "sdev:")
		if !ok {
			continue
		}
		n, err := strconv.ParseUint(text, 16, 32)
		if err != nil {
			return 0, fmt.Errorf("parse %q: %w", field, err)
		}
		return unix.Mkdev(uint32(n>>20), uint32(n&0xfffff)), nil
	}
	return 0, errors.New("the kernel doesn't tell a watch's device")
}
