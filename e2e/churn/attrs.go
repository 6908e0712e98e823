package churn

import (
	"fmt"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Inode flags that a churn sets and a check compares.
const (
	flagSync      = 0x08
	flagImmutable = 0x10
	flagAppend    = 0x20
	flagNoDump    = 0x40
	flagNoAtime   = 0x80
	flagMask      = flagSync | flagImmutable | flagAppend | flagNoDump | flagNoAtime
)

// fsxattr is struct fsxattr of <linux/fs.h>.
type fsxattr struct {
	Xflags, ExtSize, NextExtents, Project, CowExtSize uint32
	_                                                 [8]byte
}

const (
	iocFSGetXattr = 0x801c581f
	iocFSSetXattr = 0x401c5820
)

func ioctlFsx(fd int, request uintptr, x *fsxattr) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(unsafe.Pointer(x))); errno != 0 {
		return errno
	}
	return nil
}

// procPath names an open descriptor, also one of a symlink or a device, so that
// calls which take a path only reach the object itself.
func procPath(fd int) string { return fmt.Sprintf("/proc/self/fd/%d", fd) }

// facts is what a check and a read-back see of an object.
type facts struct {
	Attrs
	Size  int64
	Nlink uint32
	Ino   uint64
	Dev   [2]uint32
}

// readFacts reads everything of the object behind an O_PATH or real descriptor.
func readFacts(fd int) (facts, error) {
	var st unix.Statx_t
	err := unix.Statx(fd, "", unix.AT_EMPTY_PATH|unix.AT_SYMLINK_NOFOLLOW, unix.STATX_BASIC_STATS, &st)
	if err != nil {
		return facts{}, fmt.Errorf("statx: %w", err)
	}
	f := facts{
		Attrs: Attrs{
			Mode: uint32(st.Mode), UID: st.Uid, GID: st.Gid,
			Sec: st.Mtime.Sec, Nsec: st.Mtime.Nsec,
		},
		Size: int64(st.Size), Nlink: st.Nlink, Ino: st.Ino, Dev: [2]uint32{st.Dev_major, st.Dev_minor},
	}
	switch f.Mode & unix.S_IFMT {
	case unix.S_IFBLK, unix.S_IFCHR:
		f.Rdev = unix.Mkdev(st.Rdev_major, st.Rdev_minor)
	case unix.S_IFREG, unix.S_IFDIR:
		if err := readFlags(fd, &f.Attrs); err != nil {
			return f, err
		}
	}
	f.Xattrs, err = readXattrs(procPath(fd))
	return f, err
}

func readFlags(fd int, a *Attrs) error {
	rd, err := unix.Open(procPath(fd), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOATIME|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open for flags: %w", err)
	}
	defer unix.Close(rd)
	flags, err := unix.IoctlGetUint32(rd, unix.FS_IOC_GETFLAGS)
	if err != nil {
		return fmt.Errorf("get flags: %w", err)
	}
	a.Flags = flags & flagMask
	var x fsxattr
	if err := ioctlFsx(rd, iocFSGetXattr, &x); err != nil {
		return fmt.Errorf("get project: %w", err)
	}
	a.Project = x.Project
	return nil
}

func readXattrs(path string) (map[string][]byte, error) {
	names := make([]byte, 16<<10)
	n, err := unix.Listxattr(path, names)
	if err != nil {
		return nil, fmt.Errorf("list xattrs: %w", err)
	}
	if n == 0 {
		return nil, nil
	}
	out := map[string][]byte{}
	value := make([]byte, 64<<10)
	for _, name := range strings.Split(strings.TrimRight(string(names[:n]), "\x00"), "\x00") {
		if strings.HasPrefix(name, "trusted.SGI_ACL_") {
			continue // what xfs shows the system.posix_acl_* as, a second time
		}
		n, err := unix.Getxattr(path, name, value)
		if err != nil {
			return nil, fmt.Errorf("get xattr %s: %w", name, err)
		}
		out[name] = append([]byte{}, value[:n]...)
	}
	if len(out) == 0 {
		return nil, nil
	}
	return out, nil
}

// xattrBytes is what an object's xattrs weigh; bounded, so that an ext4 with
// 128-byte inodes can hold them in its one block on the way back.
func (a Attrs) xattrBytes() (n int) {
	for name, v := range a.Xattrs {
		n += len(name) + len(v) + 20
	}
	return n
}
