package copier

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
)

// Difference is one attribute in which two objects differ, as a person reads it.
type Difference struct {
	Field string // "owner", "mode", "xattr user.x", "data", …
	A, B  string
}

func (d Difference) String() string { return d.Field + ": " + d.A + " / " + d.B }

// Ignore says what does not count. The zero value ignores what no copy can keep
// (inode number, ctime, birth time, st_blocks, a directory's size and link
// count) and nothing else.
type Ignore struct {
	Atime   bool
	Times   bool // both stamps
	Size    bool // of files, while data is still to be copied
	Nlink   bool
	Project bool
	XFlags  bool   // extent size hints and what else only xfs keeps
	Flags   uint32 // inode flags that do not count
	// Xattr reports whether the attribute does not count; nil: all do.
	Xattr func(name string, size int) bool
	// Clock is what the coarser side makes of a stamp; nil: stamps are equal to the nanosecond.
	Clock func(Time) Time
}

// EqualAttr lists in what a and b differ; nil when in nothing. Identity (inode
// number, ctime, birth time, blocks) and what a directory's format decides (its
// size and link count) are never compared.
func EqualAttr(a, b Attr, ignore Ignore) []Difference {
	var ds []Difference
	add := func(field, x, y string) { ds = append(ds, Difference{field, x, y}) }
	if a.Type() != b.Type() {
		add("type", TypeName(a.Mode), TypeName(b.Mode))
		return ds
	}
	if a.UID != b.UID || a.GID != b.GID {
		add("owner", fmt.Sprintf("%d:%d", a.UID, a.GID), fmt.Sprintf("%d:%d", b.UID, b.GID))
	}
	if (a.Mode^b.Mode)&0o7777 != 0 && !a.IsSymlink() {
		add("mode", fmt.Sprintf("%04o", a.Mode&0o7777), fmt.Sprintf("%04o", b.Mode&0o7777))
	}
	if !a.IsDir() {
		if a.Nlink != b.Nlink && !ignore.Nlink {
			add("links", utoa(a.Nlink), utoa(b.Nlink))
		}
		if a.Size != b.Size && !ignore.Size {
			add("size", strconv.FormatInt(a.Size, 10), strconv.FormatInt(b.Size, 10))
		}
		if a.Rdev != b.Rdev {
			add("device", fmt.Sprintf("%#x", a.Rdev), fmt.Sprintf("%#x", b.Rdev))
		}
	}
	if !ignore.Times {
		if x, y := ignore.clock(a.Mtime), ignore.clock(b.Mtime); x != y {
			add("mtime", x.String(), y.String())
		}
		if x, y := ignore.clock(a.Atime), ignore.clock(b.Atime); x != y && !ignore.Atime {
			add("atime", x.String(), y.String())
		}
	}
	if (a.Flags^b.Flags)&^ignore.Flags != 0 {
		add("flags", FlagString(a.Flags&^ignore.Flags), FlagString(b.Flags&^ignore.Flags))
	}
	if !ignore.Project {
		if a.ProjID != b.ProjID {
			add("project", utoa(a.ProjID), utoa(b.ProjID))
		}
		if a.ProjInherit != b.ProjInherit {
			add("project inheritance", strconv.FormatBool(a.ProjInherit), strconv.FormatBool(b.ProjInherit))
		}
	}
	if !ignore.XFlags && (a.XFlags != b.XFlags || a.ExtSize != b.ExtSize || a.CowExtSize != b.CowExtSize) {
		add("extended flags", fmt.Sprintf("%#x %d %d", a.XFlags, a.ExtSize, a.CowExtSize),
			fmt.Sprintf("%#x %d %d", b.XFlags, b.ExtSize, b.CowExtSize))
	}
	return diffXattrs(ds, a.Xattrs, b.Xattrs, ignore)
}

func (i *Ignore) clock(t Time) Time {
	if i.Clock == nil {
		return t
	}
	return i.Clock(t)
}

// diffXattrs merges two lists that are sorted by name.
func diffXattrs(ds []Difference, a, b []Xattr, ignore Ignore) []Difference {
	const absent = "absent"
	counts := func(x Xattr) bool { return ignore.Xattr == nil || !ignore.Xattr(x.Name, len(x.Value)) }
	for len(a) > 0 || len(b) > 0 {
		order := 0
		switch {
		case len(a) == 0:
			order = 1
		case len(b) == 0:
			order = -1
		default:
			order = strings.Compare(a[0].Name, b[0].Name)
		}
		switch {
		case order < 0:
			if counts(a[0]) {
				ds = append(ds, Difference{xattrField(a[0].Name), showValue(a[0].Value), absent})
			}
			a = a[1:]
		case order > 0:
			if counts(b[0]) {
				ds = append(ds, Difference{xattrField(b[0].Name), absent, showValue(b[0].Value)})
			}
			b = b[1:]
		default:
			if !bytes.Equal(a[0].Value, b[0].Value) && counts(a[0]) {
				ds = append(ds, Difference{xattrField(a[0].Name), showValue(a[0].Value), showValue(b[0].Value)})
			}
			a, b = a[1:], b[1:]
		}
	}
	return ds
}

func xattrField(name string) string {
	switch name {
	case XattrACLAccess:
		return "acl"
	case XattrACLDefault:
		return "default acl"
	case XattrCapability:
		return "capability"
	}
	return "xattr " + Escape(name)
}

// showValue prints the head of a value: an attribute may hold 64 KiB of anything.
func showValue(v []byte) string {
	const head = 32
	if len(v) <= head {
		return fmt.Sprintf("%x", v)
	}
	return fmt.Sprintf("%x… (%d bytes)", v[:head], len(v))
}

func utoa(v uint32) string { return strconv.FormatUint(uint64(v), 10) }

// Escape makes a name or path printable on one line: as it is when that is
// unambiguous, quoted like a Go string when it holds control characters, invalid
// UTF-8, quotes or backslashes.
func Escape(s string) string {
	if q := strconv.Quote(s); len(q) != len(s)+2 || q[1:len(q)-1] != s {
		return q
	}
	return s
}

// TypeName names the type in a mode.
func TypeName(mode uint32) string {
	switch mode & 0o170000 {
	case 0o100000:
		return "file"
	case 0o040000:
		return "directory"
	case 0o120000:
		return "symlink"
	case 0o010000:
		return "fifo"
	case 0o140000:
		return "socket"
	case 0o020000:
		return "character device"
	case 0o060000:
		return "block device"
	}
	return fmt.Sprintf("type %o", mode>>12)
}

var flagLetters = [...]struct {
	flag   uint32
	letter byte
}{
	{FlagSecRm, 's'}, {FlagUnRm, 'u'}, {FlagSync, 'S'}, {FlagDirSync, 'D'}, {FlagImmutable, 'i'}, {FlagAppend, 'a'},
	{FlagNoDump, 'd'}, {FlagNoAtime, 'A'}, {FlagCompress, 'c'}, {FlagEncrypt, 'E'}, {FlagJournalData, 'j'},
	{FlagNoTail, 't'}, {FlagTopDir, 'T'}, {FlagNoCow, 'C'}, {FlagDAX, 'x'}, {FlagCasefold, 'F'},
	{FlagProjInherit, 'P'}, {FlagVerity, 'V'}, {FlagNoCompress, 'm'},
}

// FlagString prints inode flags with the letters of lsattr, in its order.
func FlagString(flags uint32) string {
	var out []byte
	for _, f := range flagLetters {
		if flags&f.flag != 0 {
			out = append(out, f.letter)
		}
	}
	if len(out) == 0 {
		return "-"
	}
	return string(out)
}
