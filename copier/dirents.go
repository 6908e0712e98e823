package copier

import (
	"encoding/binary"
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Dirent is one entry of a directory. "." and ".." are never among them.
type Dirent struct {
	Name string // valid only until the callback returns: strings.Clone it to keep it
	Ino  uint64
	Type uint8 // DT_*: DT_UNKNOWN where the file system does not keep it (xfs without ftype)
}

// ErrDirent says that a directory's entries did not parse: never seen from a kernel.
var ErrDirent = errors.New("malformed directory entry")

// ListDir calls fn for every entry of the directory fd (readable), from its
// beginning, in the order of the disk. Memory does not depend on the directory's
// size. An error of fn ends it and is returned as it is. While others rename
// in the directory, entries may be missed or come twice: the tracker says so. A
// directory that is removed meanwhile answers ENOENT: see Gone.
func ListDir(fd int, b *Buffers, fn func(Dirent) error) error {
	if _, err := unix.Seek(fd, 0, unix.SEEK_SET); err != nil {
		return fmt.Errorf("rewind directory: %w", err)
	}
	buf := b.dirents()
	for {
		n, _, e := unix.Syscall(unix.SYS_GETDENTS64, uintptr(fd), ptr(buf), uintptr(len(buf)))
		if e == unix.EINTR {
			continue
		}
		if e != 0 {
			return fmt.Errorf("read directory: %w", e)
		}
		if n == 0 {
			return nil
		}
		if err := parseDirents(buf[:n], fn); err != nil {
			return err
		}
	}
}

// struct linux_dirent64: ino u64, off s64, reclen u16, type u8, name, NUL.
const (
	direntIno    = 0
	direntReclen = 16
	direntType   = 18
	direntName   = 19
)

func parseDirents(buf []byte, fn func(Dirent) error) error {
	for len(buf) > 0 {
		if len(buf) < direntName+2 {
			return ErrDirent
		}
		reclen := int(binary.NativeEndian.Uint16(buf[direntReclen:]))
		if reclen < direntName+2 || reclen > len(buf) {
			return ErrDirent
		}
		name := buf[direntName:reclen]
		end := 0
		for end < len(name) && name[end] != 0 {
			end++
		}
		if end == 0 || end == len(name) {
			return ErrDirent
		}
		d := Dirent{
			Name: unsafe.String(&name[0], end),
			Ino:  binary.NativeEndian.Uint64(buf[direntIno:]),
			Type: buf[direntType],
		}
		buf = buf[reclen:]
		if d.Name == "." || d.Name == ".." {
			continue
		}
		if err := fn(d); err != nil {
			return err
		}
	}
	return nil
}
