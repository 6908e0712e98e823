package copier

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Attr is everything of an object but its data, its name and the target of a
// symbolic link.
type Attr struct {
	Mode  uint32 // st_mode: type and permissions
	UID   uint32
	GID   uint32
	Nlink uint32
	Ino   uint64
	Dev   uint64 // st_dev: a btrfs subvolume has its own
	Rdev  uint64 // of devices

	Size   int64
	Blocks int64 // 512-byte units allocated

	Atime Time
	Mtime Time
	Ctime Time
	Btime Time // zero where the format keeps none

	Flags       uint32 // FS_*_FL, only those a user sets and the disk keeps
	ProjID      uint32 // quota project
	ProjInherit bool   // directory: children get ProjID
	XFlags      uint32 // XFlag*: xfs only
	ExtSize     uint32 // bytes, xfs only
	CowExtSize  uint32 // bytes, xfs only

	Xattrs []Xattr // every namespace, ACLs and capabilities among them; sorted by name
}

// Xattr is one extended attribute. Names may hold any bytes but NUL.
type Xattr struct {
	Name  string
	Value []byte
}

// Time is a time stamp of an inode; Nsec is 0..999999999, also before 1970.
type Time struct {
	Sec  int64
	Nsec uint32
}

// Compare orders two stamps: -1, 0 or +1.
func (t Time) Compare(u Time) int {
	switch {
	case t.Sec != u.Sec && t.Sec < u.Sec, t.Sec == u.Sec && t.Nsec < u.Nsec:
		return -1
	case t == u:
		return 0
	}
	return 1
}

// Time is t for printing and arithmetic.
func (t Time) Time() time.Time { return time.Unix(t.Sec, int64(t.Nsec)) }

func (t Time) String() string { return fmt.Sprintf("%d.%09d", t.Sec, t.Nsec) }

// Type is the object's type: unix.S_IFREG and its kind.
func (a *Attr) Type() uint32 { return a.Mode & unix.S_IFMT }

// IsRegular and the like ask for the type.
func (a *Attr) IsRegular() bool { return a.Type() == unix.S_IFREG }

// IsDir reports whether the object is a directory.
func (a *Attr) IsDir() bool { return a.Type() == unix.S_IFDIR }

// IsSymlink reports whether the object is a symbolic link.
func (a *Attr) IsSymlink() bool { return a.Type() == unix.S_IFLNK }

// Sparse reports whether the object has fewer blocks than its size needs: only
// then is it worth asking for its holes.
func (a *Attr) Sparse() bool { return a.IsRegular() && a.Blocks < (a.Size+511)/512 }

// Xattr returns the value of the named attribute.
func (a *Attr) Xattr(name string) ([]byte, bool) {
	i, ok := slices.BinarySearchFunc(a.Xattrs, name, func(x Xattr, n string) int { return strings.Compare(x.Name, n) })
	if !ok {
		return nil, false
	}
	return a.Xattrs[i].Value, true
}

const statMask = unix.STATX_BASIC_STATS | unix.STATX_BTIME

func (a *Attr) fromStatx(st *unix.Statx_t) {
	a.Mode, a.UID, a.GID, a.Nlink = uint32(st.Mode), st.Uid, st.Gid, st.Nlink
	a.Ino, a.Size, a.Blocks = st.Ino, int64(st.Size), int64(st.Blocks)
	a.Dev, a.Rdev = unix.Mkdev(st.Dev_major, st.Dev_minor), unix.Mkdev(st.Rdev_major, st.Rdev_minor)
	a.Atime, a.Mtime, a.Ctime = fromStatxTime(st.Atime), fromStatxTime(st.Mtime), fromStatxTime(st.Ctime)
	a.Btime = Time{}
	if st.Mask&unix.STATX_BTIME != 0 {
		a.Btime = fromStatxTime(st.Btime)
	}
}

func fromStatxTime(t unix.StatxTimestamp) Time { return Time{t.Sec, t.Nsec} }

// ReadStat reads what statx alone tells: no flags, project or xattrs.
func ReadStat(fd int) (Attr, error) {
	var a Attr
	var st unix.Statx_t
	if err := statx(fd, statMask, &st); err != nil {
		return a, fmt.Errorf("stat object: %w", err)
	}
	a.fromStatx(&st)
	return a, nil
}

// ReadAttr reads everything of the object behind fd, a readable or an O_PATH
// descriptor of any type. Nothing of the object changes, its atime included.
func ReadAttr(fd int, b *Buffers) (Attr, error) {
	a, err := ReadStat(fd)
	if err != nil {
		return a, err
	}
	if a.Type() != unix.S_IFREG && a.Type() != unix.S_IFDIR {
		path, err := isPathFd(fd)
		if err != nil {
			return a, fmt.Errorf("stat object: %w", err)
		}
		a.readFlagsAt(fd)
		a.Xattrs, err = readXattrs(fd, path, b)
		return a, err
	}
	err = a.readFlags(fd)
	if errors.Is(err, unix.EBADF) { // O_PATH: cheaper to find out than to ask first
		if fd, err = ReopenRead(fd); err != nil {
			return a, fmt.Errorf("reopen object: %w", err)
		}
		defer unix.Close(fd)
		err = a.readFlags(fd)
	}
	if err != nil {
		return a, fmt.Errorf("read inode flags: %w", err)
	}
	a.Xattrs, err = readXattrs(fd, false, b)
	return a, err
}

// readFlags needs a real descriptor. A file system that has no flags has none set.
func (a *Attr) readFlags(fd int) error {
	flags, err := getFlags(fd)
	if err != nil && !unsupported(err) {
		return err
	}
	a.Flags = flags & visibleFlags
	a.ProjInherit = flags&FlagProjInherit != 0
	var x fsxattr
	if err := getFSX(fd, &x); err != nil {
		if unsupported(err) {
			return nil
		}
		return err
	}
	a.fromFSX(&x)
	return nil
}

func (a *Attr) fromFSX(x *fsxattr) {
	a.ProjID = x.projid
	a.ProjInherit = a.ProjInherit || x.xflags&xflagProjInherit != 0
	a.XFlags = x.xflags & visibleXFlags
	if a.XFlags&(XFlagExtSize|XFlagExtInherit) != 0 {
		a.ExtSize = x.extsize
	}
	if a.XFlags&XFlagCowExtSize != 0 {
		a.CowExtSize = x.cowextsize
	}
}

// readFlagsAt asks for the project of an object that cannot be opened. Where
// the kernel has no call for it, the project stays zero: as little as chattr knows.
func (a *Attr) readFlagsAt(fd int) {
	var f fileAttr
	if fileAttrAt(unix.SYS_FILE_GETATTR, fd, &f) != nil {
		return
	}
	a.ProjID = f.projid
	a.Flags = fromXFlags(uint32(f.xflags))
}
