package record

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// file is an image that is just a file.
type file struct {
	f    *os.File
	size int64
}

// OpenFile gives the image in a file. It stays open for good.
func OpenFile(path string) (Disk, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && info.Size()%Sector != 0 {
		err = fmt.Errorf("image %s: %d bytes are not whole sectors", path, info.Size())
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return &file{f, info.Size()}, nil
}

func (d *file) Size() int64                              { return d.size }
func (d *file) ReadAt(p []byte, off int64) (int, error)  { return d.f.ReadAt(p, off) }
func (d *file) WriteAt(p []byte, off int64) (int, error) { return d.f.WriteAt(p, off) }

// Sync does nothing: the image is to survive the process, not the machine.
func (d *file) Sync() error { return nil }

func (d *file) Discard(off, n int64) error {
	if err := unix.Fallocate(int(d.f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n); err != nil {
		return &os.PathError{Op: "punch", Path: d.f.Name(), Err: err}
	}
	return nil
}
