package blockdev

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// OpenExclusive opens a block device for reading and writing so that nobody else can claim
// it: EBUSY while it is mounted anywhere (detached mounts included), swapped on,
// or part of something above it. Success proves that no file system on it is in
// use. It doesn't keep plain openers out. Writes through other descriptors of
// the raw device remain possible.
func OpenExclusive(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_EXCL|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open exclusively: %w", err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFBLK {
		f.Close()
		return nil, fmt.Errorf("open exclusively %s: %w", path, unix.ENOTBLK)
	}
	return f, nil
}
