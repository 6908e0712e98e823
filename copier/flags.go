package copier

import (
	"errors"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Inode flags as FS_IOC_GETFLAGS shows them (linux/fs.h, FS_*_FL).
const (
	FlagSecRm       = 0x00000001 // s
	FlagUnRm        = 0x00000002 // u
	FlagCompress    = 0x00000004 // c
	FlagSync        = 0x00000008 // S
	FlagImmutable   = 0x00000010 // i
	FlagAppend      = 0x00000020 // a
	FlagNoDump      = 0x00000040 // d
	FlagNoAtime     = 0x00000080 // A
	FlagNoCompress  = 0x00000400 // m
	FlagEncrypt     = 0x00000800 // E: seen, never set by us: the fit names it
	FlagJournalData = 0x00004000 // j
	FlagNoTail      = 0x00008000 // t
	FlagDirSync     = 0x00010000 // D
	FlagTopDir      = 0x00020000 // T
	FlagVerity      = 0x00100000 // V: seen, never set by us: the fit names it
	FlagNoCow       = 0x00800000 // C
	FlagDAX         = 0x02000000 // x
	FlagProjInherit = 0x20000000 // P: kept apart, in Attr.ProjInherit
	FlagCasefold    = 0x40000000 // F
)

// visibleFlags are those of Attr.Flags: what a user set and the disk keeps. The
// rest (extents, indexed, inline data, huge file) is how a format lays an inode down.
const visibleFlags = FlagSecRm | FlagUnRm | FlagCompress | FlagSync | FlagImmutable | FlagAppend | FlagNoDump |
	FlagNoAtime | FlagNoCompress | FlagEncrypt | FlagJournalData | FlagNoTail | FlagDirSync | FlagTopDir |
	FlagVerity | FlagNoCow | FlagDAX | FlagCasefold

// sharedFlags can be set through FS_IOC_FSSETXATTR, everywhere. The others go
// through FS_IOC_SETFLAGS, which on btrfs resets the compression property, so it
// is called before that property is set and only when one of them differs.
const sharedFlags = FlagSync | FlagImmutable | FlagAppend | FlagNoDump | FlagNoAtime | FlagDAX

// emptyFlags take effect only on a file without data or a directory without entries.
const emptyFlags = FlagNoCow | FlagCasefold

// storedFlags is what each format keeps of visibleFlags; TestStoredFlags proves
// it by trying every flag. Casefold on ext4 needs a feature of the volume, and
// DAX an inode flag that only DAX-capable devices let through.
var storedFlags = map[string]uint32{
	"ext2":  extFlags,
	"ext3":  extFlags,
	"ext4":  extFlags,
	"xfs":   FlagSync | FlagImmutable | FlagAppend | FlagNoDump | FlagNoAtime | FlagDAX,
	"btrfs": FlagSync | FlagImmutable | FlagAppend | FlagNoDump | FlagNoAtime | FlagDirSync | FlagCompress | FlagNoCompress | FlagNoCow,
}

const extFlags = FlagSecRm | FlagUnRm | FlagCompress | FlagSync | FlagImmutable | FlagAppend | FlagNoDump |
	FlagNoAtime | FlagJournalData | FlagNoTail | FlagDirSync | FlagTopDir

// FlagsOf is the set of inode flags that volumes of the named format store.
func FlagsOf(format string) uint32 { return storedFlags[format] }

// flagsFor drops from flags what the kernel refuses on an object of this type.
func flagsFor(mode uint32, flags uint32) uint32 {
	if mode&unix.S_IFMT != unix.S_IFDIR {
		return flags &^ (FlagDirSync | FlagTopDir | FlagCasefold)
	}
	return flags
}

// Extended flags of struct fsxattr (FS_XFLAG_*).
const (
	xflagImmutable   = 0x00000008
	xflagAppend      = 0x00000010
	xflagSync        = 0x00000020
	xflagNoAtime     = 0x00000040
	xflagNoDump      = 0x00000080
	xflagProjInherit = 0x00000200
	XFlagNoSymlinks  = 0x00000400 // xfs: no symlink may be made here
	XFlagExtSize     = 0x00000800 // xfs: ExtSize is set
	XFlagExtInherit  = 0x00001000 // xfs: directory hands ExtSize down
	XFlagNoDefrag    = 0x00002000 // xfs
	XFlagFileStream  = 0x00004000 // xfs
	xflagDAX         = 0x00008000
	XFlagCowExtSize  = 0x00010000 // xfs
)

// visibleXFlags are those of Attr.XFlags: extended flags with no FS_*_FL of their own.
const visibleXFlags = XFlagNoSymlinks | XFlagExtSize | XFlagExtInherit | XFlagNoDefrag | XFlagFileStream | XFlagCowExtSize

var xflagOf = [...]struct{ flag, xflag uint32 }{
	{FlagSync, xflagSync}, {FlagImmutable, xflagImmutable}, {FlagAppend, xflagAppend},
	{FlagNoDump, xflagNoDump}, {FlagNoAtime, xflagNoAtime}, {FlagDAX, xflagDAX},
}

func toXFlags(flags uint32) (x uint32) {
	for _, p := range xflagOf {
		if flags&p.flag != 0 {
			x |= p.xflag
		}
	}
	return x
}

func fromXFlags(x uint32) (flags uint32) {
	for _, p := range xflagOf {
		if x&p.xflag != 0 {
			flags |= p.flag
		}
	}
	return flags
}

// fsxattr is struct fsxattr of linux/fs.h.
type fsxattr struct {
	xflags     uint32
	extsize    uint32
	nextents   uint32
	projid     uint32
	cowextsize uint32
	_          [8]byte
}

const (
	fsIocFSGetXattr = 0x801c581f
	fsIocFSSetXattr = 0x401c5820
)

// fileAttr is struct file_attr of linux/fs.h (6.17).
type fileAttr struct {
	xflags     uint64
	extsize    uint32
	nextents   uint32
	projid     uint32
	cowextsize uint32
}

// unsupported reports whether a file system answers that it has no such thing.
func unsupported(err error) bool {
	return errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOTTY) || errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EINVAL)
}

func getFlags(fd int) (uint32, error) {
	var v uint32 // an int for the kernel, whatever the request's size says
	err := ioctl(fd, unix.FS_IOC_GETFLAGS, unsafe.Pointer(&v))
	return v, err
}

func setFlags(fd int, v uint32) error { return ioctl(fd, unix.FS_IOC_SETFLAGS, unsafe.Pointer(&v)) }

func getFSX(fd int, x *fsxattr) error { return ioctl(fd, fsIocFSGetXattr, unsafe.Pointer(x)) }
func setFSX(fd int, x *fsxattr) error { return ioctl(fd, fsIocFSSetXattr, unsafe.Pointer(x)) }

// fileAttrAt reads or writes the extended flags of an object that cannot be
// opened: symbolic links and special files. Older kernels: ENOSYS.
func fileAttrAt(nr uintptr, fd int, a *fileAttr) error {
	dir, err := procFds()
	if err != nil {
		return err
	}
	var name [24]byte
	fdName(&name, fd)
	_, _, e := unix.Syscall6(nr, uintptr(dir), uintptr(unsafe.Pointer(&name)), uintptr(unsafe.Pointer(a)), unsafe.Sizeof(*a), 0, 0)
	return errnoErr(e)
}
