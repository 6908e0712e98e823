package formats

import (
	"fmt"
	"strings"
	"time"
)

// Loss is one class of what a target cannot represent.
type Loss struct {
	Class  string // stable, kebab-case: what a waiver names
	Why    string
	Always bool // holds for every migration of the pair and needs no waiver
}

// The classes of loss.
const (
	LossIdentity    = "identity"
	LossReflink     = "reflink"
	LossName        = "name-length"
	LossUID         = "uid-range"
	LossGID         = "gid-range"
	LossTime        = "time-range"
	LossPrecision   = "time-precision"
	LossSize        = "file-size"
	LossLinks       = "link-count"
	LossSubdirs     = "subdir-count"
	LossSymlink     = "symlink-length"
	LossSymlinks    = "symlink-unsupported"
	LossSpecials    = "special-unsupported"
	LossXattrSize   = "xattr-size"
	LossXattr       = "xattr-unsupported"
	LossACL         = "acl-unsupported"
	LossCaps        = "caps-unsupported"
	LossFlag        = "inode-flag"
	LossEncrypted   = "encrypted"
	LossVerity      = "verity"
	LossCasefold    = "casefold"
	LossProject     = "project-id"
	LossDirectory   = "directory-size"
	LossDevice      = "device-number"
	LossPermissions = "mode-unsupported"
)

// XattrSize is an extended attribute's full name and the length of its value.
type XattrSize struct {
	Name  string
	Value int
}

// Facts4Fit are the facts of one object that may not fit. Times and Nsec are
// atime, mtime and btime; the birth time cannot be set anywhere and is part of
// the identity, so it is not judged.
type Facts4Fit struct {
	Path, Name   string
	Mode         uint32
	UID, GID     uint32
	Nlink        uint64
	Size         int64
	Target       int
	Times        [3]int64
	Nsec         [3]uint32
	Xattrs       []XattrSize
	Flags        uint32
	ProjID       uint32
	Major, Minor uint32 // of devices
}

// Misfit lists what of f a format with these limits cannot represent; nil where
// everything fits. A class comes once.
func Misfit(l Limits, f Facts4Fit) []Loss {
	var out []Loss
	lose := func(class, format string, a ...any) {
		out = append(out, Loss{Class: class, Why: fmt.Sprintf(format, a...)})
	}
	if len(f.Name) > l.NameBytes {
		lose(LossName, "the name has %d bytes, the limit is %d", len(f.Name), l.NameBytes)
	}
	if over(f.UID, l.UIDBits) {
		lose(LossUID, "uid %d does not fit %d bits", f.UID, l.UIDBits)
	}
	if over(f.GID, l.GIDBits) {
		lose(LossGID, "gid %d does not fit %d bits", f.GID, l.GIDBits)
	}
	misfitType(l, f, lose)
	misfitTimes(l, f, lose)
	misfitXattrs(l, f.Xattrs, lose)
	misfitFlags(l, f.Flags, lose)
	if f.ProjID != 0 && !l.Records.Has(Project) {
		lose(LossProject, "project id %d cannot be stored", f.ProjID)
	}
	return out
}

func misfitDevice(l Limits, f Facts4Fit, lose loser) {
	if l.DeviceMajorBits > 0 && (over(f.Major, l.DeviceMajorBits) || over(f.Minor, l.DeviceMinorBits)) {
		lose(LossDevice, "the device number %d:%d is over %d:%d", f.Major, f.Minor, 1<<l.DeviceMajorBits-1, 1<<l.DeviceMinorBits-1)
	}
}

type loser func(class, format string, a ...any)

func over(id uint32, bits int) bool { return bits < 32 && uint64(id)>>bits != 0 }

func misfitType(l Limits, f Facts4Fit, lose loser) {
	if !l.Records.Has(Mode) && f.Mode&0o7777 != 0 {
		lose(LossPermissions, "owner and permissions cannot be stored")
	}
	switch f.Mode & modeType {
	case modeReg:
		if f.Size > l.MaxFile {
			lose(LossSize, "the file has %d bytes, the limit is %d", f.Size, l.MaxFile)
		}
	case modeDir:
		if l.MaxSubdirs > 0 && f.Nlink > l.MaxSubdirs+2 {
			lose(LossSubdirs, "the directory has %d directories in it, the limit is %d", f.Nlink-2, l.MaxSubdirs)
		}
		return
	case modeLink:
		if !l.Records.Has(Symlinks) {
			lose(LossSymlinks, "symbolic links cannot be stored")
		} else if f.Target > l.SymlinkBytes {
			lose(LossSymlink, "the target has %d bytes, the limit is %d", f.Target, l.SymlinkBytes)
		}
	default:
		if f.Mode&modeType != 0 && !l.Records.Has(Specials) {
			lose(LossSpecials, "FIFOs, sockets and devices cannot be stored")
		}
		misfitDevice(l, f, lose)
	}
	if f.Nlink > l.MaxLinks {
		lose(LossLinks, "the object has %d links, the limit is %d", f.Nlink, l.MaxLinks)
	}
}

func misfitTimes(l Limits, f Facts4Fit, lose loser) {
	names := [2]string{"access", "modification"}
	ranged, coarse := false, false
	for i, name := range names {
		t := f.Times[i]
		if !ranged && (t < l.TimeMin || t > l.TimeMax) {
			ranged = true
			lose(LossTime, "the %s time %s is outside %s to %s", name, day(t), day(l.TimeMin), day(l.TimeMax))
		}
		switch {
		case coarse:
		case l.TimeGranularity > 1 && !onGrain(t, f.Nsec[i], l.TimeGranularity):
			coarse = true
			lose(LossPrecision, "the %s time is finer than %s", name, l.TimeGranularity)
		case f.Nsec[i] != 0 && (t == l.TimeMin || t == l.TimeMax):
			// The kernel's timestamp_truncate keeps only whole seconds there.
			coarse = true
			lose(LossPrecision, "the %s time has nanoseconds in the last second of the range", name)
		}
	}
}

func onGrain(sec int64, nsec uint32, g time.Duration) bool {
	if g >= time.Second {
		return nsec == 0 && sec%int64(g/time.Second) == 0
	}
	return nsec%uint32(g) == 0
}

func day(sec int64) string {
	// Beyond year 9999 (or before 1) a date helps nobody.
	if sec > 253402300799 || sec < -62135596800 {
		return fmt.Sprintf("second %d", sec)
	}
	return time.Unix(sec, 0).UTC().Format("2006-01-02")
}

func misfitXattrs(l Limits, xattrs []XattrSize, lose loser) {
	room := l.XattrSpaces
	none, acl, caps, size := false, false, false, false
	for _, x := range xattrs {
		switch {
		case isACL(x.Name) && !l.Records.Has(ACL):
			if !acl {
				lose(LossACL, "POSIX ACLs cannot be stored")
			}
			acl = true
			continue
		case x.Name == "security.capability" && !l.Records.Has(Caps):
			if !caps {
				lose(LossCaps, "file capabilities cannot be stored")
			}
			caps = true
			continue
		case !l.Records.Has(Xattr):
			if !none {
				lose(LossXattr, "extended attributes cannot be stored (%s)", x.Name)
			}
			none = true
			continue
		case size:
			continue
		}
		why := ""
		switch {
		case l.XattrValueBytes > 0 && x.Value > l.XattrValueBytes:
			why = fmt.Sprintf("%s has %d bytes, the limit is %d", x.Name, x.Value, l.XattrValueBytes)
		case l.XattrPairBytes > 0 && len(x.Name)+x.Value > l.XattrPairBytes:
			why = fmt.Sprintf("%s and its value have %d bytes, the limit is %d", x.Name, len(x.Name)+x.Value, l.XattrPairBytes)
		case l.XattrTotalBytes > 0 && !l.place(&room, x):
			why = fmt.Sprintf("%s (%d bytes) finds no room beside the others, all together have %d bytes", x.Name, x.Value, l.XattrTotalBytes)
		default:
			continue
		}
		size = true
		lose(LossXattrSize, "%s", why)
	}
}

// place takes room for x from the first space that has it.
func (l Limits) place(room *[2]int, x XattrSize) bool {
	name := x.Name
	if isACL(name) {
		name = "" // a namespace of its own, without a name
	} else if _, rest, ok := strings.Cut(name, "."); ok {
		name = rest
	}
	need := l.XattrEntryBytes + round4(len(name)) + round4(x.Value)
	for i := range room {
		if need <= room[i] {
			room[i] -= need
			return true
		}
	}
	return false
}

func round4(n int) int { return (n + 3) &^ 3 }

func isACL(name string) bool {
	return name == "system.posix_acl_access" || name == "system.posix_acl_default"
}

func misfitFlags(l Limits, flags uint32, lose loser) {
	if flags&FlagEncrypt != 0 {
		lose(LossEncrypted, "the object is encrypted by the file system; its keys do not move with it")
	}
	if flags&FlagVerity != 0 {
		lose(LossVerity, "fs-verity seals the file; the seal is not carried")
	}
	if flags&FlagCasefold != 0 && !l.Records.Has(Casefold) {
		lose(LossCasefold, "the directory ignores case and the target cannot")
	}
	lost := flags &^ (l.Flags | LayoutFlags | FlagEncrypt | FlagVerity | FlagCasefold)
	if lost != 0 {
		names := FlagNames(lost)
		if len(names) == 0 {
			names = []string{fmt.Sprintf("%#x", lost)}
		}
		lose(LossFlag, "the flag %s cannot be stored", strings.Join(names, ", "))
	}
}

// PairFit lists what changes in every migration from src to dst, whatever the
// objects are. None of it needs a waiver.
func PairFit(src, dst Limits) []Loss {
	why := "inode numbers and NFS handles, ctime, birth time, st_blocks and the order of directory entries are the file system's own and change"
	out := []Loss{{Class: LossIdentity, Why: why, Always: true}}
	if src.Records.Has(Reflink) && !dst.Records.Has(Reflink) {
		out = append(out, Loss{Class: LossReflink, Always: true,
			Why: "files that share extents will each have their own copy: more space, same content"})
	}
	return out
}

// TreeMisfit lists what a tree as a whole is too large for. Unlike the losses of
// an object these are found before any object is looked at in detail.
func TreeMisfit(l Limits, s TreeStats) []Loss {
	if l.DirBytesMax == 0 || s.LargestDirBytes <= l.DirBytesMax {
		return nil
	}
	return []Loss{{Class: LossDirectory, Why: fmt.Sprintf("a directory has %d entries that take %d bytes, %d surely fit",
		s.LargestDir, s.LargestDirBytes, l.DirBytesMax)}}
}
