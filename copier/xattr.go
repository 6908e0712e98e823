package copier

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The names that the kernel gives a meaning of its own.
const (
	XattrACLAccess  = "system.posix_acl_access"
	XattrACLDefault = "system.posix_acl_default"
	XattrCapability = "security.capability"
	xattrBtrfsComp  = "btrfs.compression"
)

// xfsACL are the names under which xfs shows root its ACLs a second time, in
// its own layout. Elsewhere they mean nothing, and written to xfs they would
// replace the ACL.
const xfsACL = "trusted.SGI_ACL_"

var errXattrChanging = errors.New("attributes keep changing")

// xattrRetries bounds how often a list that outgrew the call is read again.
const xattrRetries = 16

// readXattrs lists and reads all attributes of fd; by its path in /proc when it
// is an O_PATH descriptor, which the f*xattr calls refuse.
func readXattrs(fd int, path bool, b *Buffers) ([]Xattr, error) {
	list := b.nameList()
	for range xattrRetries {
		n, err := xattrList(fd, path, list)
		if unsupported(err) && !errors.Is(err, unix.EINVAL) {
			return nil, nil // the file system has none
		}
		if err != nil {
			return nil, fmt.Errorf("list xattrs: %w", err)
		}
		if n == 0 {
			return nil, nil
		}
		xs, err := readListed(fd, path, list[:n], b)
		if errors.Is(err, unix.ERANGE) {
			continue
		}
		return xs, err
	}
	return nil, fmt.Errorf("list xattrs: %w", errXattrChanging)
}

func readListed(fd int, path bool, list []byte, b *Buffers) ([]Xattr, error) {
	out := make([]Xattr, 0, bytes.Count(list, []byte{0}))
	for len(list) > 0 {
		end := bytes.IndexByte(list, 0)
		if end < 0 {
			return nil, errors.New("list xattrs: malformed list")
		}
		raw := list[:end+1] // with its NUL: as the calls want it
		list = list[end+1:]
		n, err := xattrGet(fd, path, raw, b.value())
		if errors.Is(err, unix.ENODATA) {
			continue // removed since it was listed
		}
		name := b.name(raw[:end])
		if err != nil {
			return nil, fmt.Errorf("read xattr %q: %w", name, err)
		}
		if strings.HasPrefix(name, xfsACL) && isXFS(fd) {
			continue
		}
		out = append(out, Xattr{Name: name, Value: bytes.Clone(b.value()[:n])})
	}
	slices.SortFunc(out, func(x, y Xattr) int { return strings.Compare(x.Name, y.Name) })
	return out, nil
}

func isXFS(fd int) bool {
	var fs unix.Statfs_t
	return unix.Fstatfs(fd, &fs) == nil && fs.Type == unix.XFS_SUPER_MAGIC
}

func xattrList(fd int, path bool, buf []byte) (int, error) {
	var n uintptr
	var e unix.Errno
	if path {
		var p [40]byte
		fdPath(&p, fd)
		n, _, e = unix.Syscall(unix.SYS_LISTXATTR, uintptr(unsafe.Pointer(&p)), ptr(buf), uintptr(len(buf)))
	} else {
		n, _, e = unix.Syscall(unix.SYS_FLISTXATTR, uintptr(fd), ptr(buf), uintptr(len(buf)))
	}
	return int(n), errnoErr(e)
}

// xattrGet reads the attribute whose NUL-terminated name is given.
func xattrGet(fd int, path bool, name, buf []byte) (int, error) {
	var n uintptr
	var e unix.Errno
	if path {
		var p [40]byte
		fdPath(&p, fd)
		n, _, e = unix.Syscall6(unix.SYS_GETXATTR, uintptr(unsafe.Pointer(&p)), ptr(name), ptr(buf), uintptr(len(buf)), 0, 0)
	} else {
		n, _, e = unix.Syscall6(unix.SYS_FGETXATTR, uintptr(fd), ptr(name), ptr(buf), uintptr(len(buf)), 0, 0)
	}
	return int(n), errnoErr(e)
}

func xattrSet(fd int, path bool, name string, value []byte) error {
	if path {
		var p [40]byte
		fdPath(&p, fd)
		return unix.Setxattr(unix.ByteSliceToString(p[:]), name, value, 0)
	}
	return unix.Fsetxattr(fd, name, value, 0)
}

func xattrRemove(fd int, path bool, name string) error {
	var err error
	if path {
		var p [40]byte
		fdPath(&p, fd)
		err = unix.Removexattr(unix.ByteSliceToString(p[:]), name)
	} else {
		err = unix.Fremovexattr(fd, name)
	}
	if errors.Is(err, unix.ENODATA) {
		return nil
	}
	return err
}
