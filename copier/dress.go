package copier

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// DressOptions say what the target can hold. What it cannot is the fit's
// matter: left out here, it is neither an error nor forgotten.
type DressOptions struct {
	Flags   uint32 // inode flags the target stores, FlagsOf its format; others are not carried
	Project bool   // the target keeps project ids
	XFlags  bool   // both are xfs: extent size hints and the like are carried
	// Xattr reports whether the attribute is carried; nil: all are.
	Xattr func(name string, size int) bool
	// KeepTimes leaves the times alone, for a directory whose entries are still to come.
	KeepTimes bool
	Buffers   *Buffers // the worker's; nil: taken for the call
}

// ErrType says that two objects that should be dressed alike are of different types.
var ErrType = errors.New("object is of another type")

// ErrReserved says that an xattr's name would be taken for something else on the target.
var ErrReserved = errors.New("name is reserved on this file system")

// DressFor is what a volume of the named format can hold as far as the format
// alone decides. Whether it keeps project ids depends on how it was made.
func DressFor(format string) DressOptions {
	return DressOptions{Flags: FlagsOf(format), Project: format == "xfs"}
}

// Dress gives the target object fd the attributes want, in the one order in
// which none undoes another: owner (it clears set-id bits and capabilities),
// mode, ACLs and xattrs (extra ones go), capabilities, times, and in one call at
// the end project and flags. It reads what is there first and changes only what
// differs. fd may be O_PATH. Every error is a *TargetError.
func Dress(fd int, want Attr, l DressOptions) error {
	b := l.Buffers
	if b == nil {
		b = &Buffers{}
	}
	d := dresser{fd: fd, want: &want, l: &l}
	if want.IsRegular() || want.IsDir() {
		rfd, done, err := realFd(fd)
		if err != nil {
			return targetError("reopen", -1, err)
		}
		defer done.close()
		d.fd = rfd
	} else {
		path, err := isPathFd(fd)
		if err != nil {
			return targetError("stat", -1, err)
		}
		d.path = path
	}
	var err error
	if d.have, err = ReadAttr(d.fd, b); err != nil {
		return targetError("read attributes", -1, err)
	}
	if d.have.Type() != want.Type() {
		return targetError("dress", -1, ErrType)
	}
	op, err := d.steps()
	if err != nil {
		return targetError(op, -1, err)
	}
	return nil
}

// steps are called one by one, and not from a table, so that d stays on the stack.
func (d *dresser) steps() (op string, err error) {
	if err = d.free(); err != nil {
		return "clear inode flags of", err
	}
	if err = d.owner(); err != nil {
		return "change owner of", err
	}
	if err = d.restFlags(); err != nil {
		return "set inode flags of", err
	}
	if err = d.removeExtra(); err != nil {
		return "remove xattr of", err
	}
	if err = d.mode(); err != nil {
		return "change mode of", err
	}
	if err = d.xattrs(); err != nil {
		return "set xattr of", err
	}
	if err = d.times(); err != nil {
		return "set times of", err
	}
	if err = d.projectAndFlags(); err != nil {
		return "set project and flags of", err
	}
	return "", nil
}

type dresser struct {
	fd    int  // real for files and directories
	path  bool // fd is O_PATH
	have  Attr
	want  *Attr
	l     *DressOptions
	owned bool // owner was changed: set-id bits and capabilities are gone
	moded bool // mode was changed: so was the ACL's mask
	reset bool // SETFLAGS ran: btrfs forgot its compression property
}

func (d *dresser) opens() bool { return d.want.IsRegular() || d.want.IsDir() }

// free makes the object changeable; an object that is dressed already stays locked.
func (d *dresser) free() error {
	if d.have.Flags&(FlagImmutable|FlagAppend) == 0 || !d.opens() {
		return nil
	}
	if d.have.Flags&d.l.Flags == d.want.Flags&d.l.Flags && d.alike() {
		return nil
	}
	var x fsxattr
	err := getFSX(d.fd, &x)
	if err == nil {
		x.xflags &^= xflagImmutable | xflagAppend
		err = setFSX(d.fd, &x)
	}
	if err != nil && unsupported(err) {
		var v uint32
		if v, err = getFlags(d.fd); err == nil {
			err = setFlags(d.fd, v&^(FlagImmutable|FlagAppend))
		}
	}
	d.have.Flags &^= FlagImmutable | FlagAppend
	return err
}

// alike reports whether nothing but flags could differ.
func (d *dresser) alike() bool {
	h, w := &d.have, d.want
	if h.UID != w.UID || h.GID != w.GID || h.Mode != w.Mode || !d.l.KeepTimes && (h.Atime != w.Atime || h.Mtime != w.Mtime) ||
		d.l.Project && (h.ProjID != w.ProjID || h.ProjInherit != w.ProjInherit) || len(h.Xattrs) != len(w.Xattrs) {
		return false
	}
	for i := range h.Xattrs {
		if h.Xattrs[i].Name != w.Xattrs[i].Name || !bytes.Equal(h.Xattrs[i].Value, w.Xattrs[i].Value) {
			return false
		}
	}
	return true
}

func (d *dresser) owner() error {
	if d.have.UID == d.want.UID && d.have.GID == d.want.GID {
		return nil
	}
	d.owned = true
	_, _, e := unix.Syscall6(unix.SYS_FCHOWNAT, uintptr(d.fd), uintptr(unsafe.Pointer(&emptyPath)),
		uintptr(d.want.UID), uintptr(d.want.GID), unix.AT_EMPTY_PATH, 0)
	return errnoErr(e)
}

// restFlags sets what only FS_IOC_SETFLAGS knows. None of it hinders the steps after it.
func (d *dresser) restFlags() error {
	if !d.opens() {
		return nil
	}
	mask := flagsFor(d.want.Mode, d.l.Flags&^sharedFlags)
	if d.have.Flags&mask == d.want.Flags&mask {
		return nil
	}
	now, err := getFlags(d.fd)
	if err != nil {
		return err
	}
	d.reset = true
	return setFlags(d.fd, now&^mask|d.want.Flags&mask)
}

func (d *dresser) carries(x Xattr) bool { return d.l.Xattr == nil || d.l.Xattr(x.Name, len(x.Value)) }

// removeExtra comes before the mode: without the ACL the group bits are the group's again.
func (d *dresser) removeExtra() error {
	for _, h := range d.have.Xattrs {
		if _, ok := d.want.Xattr(h.Name); ok {
			continue
		}
		if err := xattrRemove(d.fd, d.path, h.Name); err != nil {
			return fmt.Errorf("%q: %w", h.Name, err)
		}
	}
	return nil
}

func (d *dresser) mode() error {
	const perm = 0o7777
	if d.want.IsSymlink() || d.have.Mode&perm == d.want.Mode&perm && !(d.owned && d.want.Mode&0o6000 != 0) {
		return nil
	}
	d.moded = true
	return d.chmod()
}

func (d *dresser) chmod() error {
	mode := uintptr(d.want.Mode & 0o7777)
	if !d.path {
		_, _, e := unix.Syscall(unix.SYS_FCHMOD, uintptr(d.fd), mode, 0)
		return errnoErr(e)
	}
	dir, err := procFds()
	if err != nil {
		return err
	}
	var name [24]byte
	fdName(&name, d.fd)
	_, _, e := unix.Syscall(unix.SYS_FCHMODAT, uintptr(dir), uintptr(unsafe.Pointer(&name)), mode)
	return errnoErr(e)
}

func (d *dresser) xattrs() error {
	acl := false
	for _, x := range d.want.Xattrs {
		if x.Name == XattrCapability || !d.carries(x) {
			continue
		}
		if old, ok := d.have.Xattr(x.Name); ok && bytes.Equal(old, x.Value) && !d.stale(x.Name) {
			continue
		}
		if strings.HasPrefix(x.Name, xfsACL) && isXFS(d.fd) {
			return fmt.Errorf("%q: %w", x.Name, ErrReserved)
		}
		if err := xattrSet(d.fd, d.path, x.Name, x.Value); err != nil {
			return fmt.Errorf("%q: %w", x.Name, err)
		}
		acl = acl || x.Name == XattrACLAccess
	}
	if acl { // its mask and the mode's group bits are one: an ACL that disagrees would win
		if err := d.remode(); err != nil {
			return err
		}
	}
	caps, ok := d.want.Xattr(XattrCapability)
	if !ok || !d.carries(Xattr{XattrCapability, caps}) {
		return nil
	}
	if old, ok := d.have.Xattr(XattrCapability); ok && !d.owned && bytes.Equal(old, caps) {
		return nil
	}
	if err := xattrSet(d.fd, d.path, XattrCapability, caps); err != nil {
		return fmt.Errorf("%q: %w", XattrCapability, err)
	}
	return nil
}

func (d *dresser) stale(name string) bool {
	return name == XattrACLAccess && d.moded || name == xattrBtrfsComp && d.reset
}

func (d *dresser) remode() error {
	var st unix.Statx_t
	if err := statx(d.fd, unix.STATX_MODE, &st); err != nil {
		return err
	}
	if uint32(st.Mode)&0o7777 == d.want.Mode&0o7777 {
		return nil
	}
	return d.chmod()
}

func (d *dresser) times() error {
	if d.l.KeepTimes || d.have.Atime == d.want.Atime && d.have.Mtime == d.want.Mtime {
		return nil
	}
	ts := [2]unix.Timespec{
		{Sec: d.want.Atime.Sec, Nsec: int64(d.want.Atime.Nsec)},
		{Sec: d.want.Mtime.Sec, Nsec: int64(d.want.Mtime.Nsec)},
	}
	var path, flag uintptr
	if d.path {
		path, flag = uintptr(unsafe.Pointer(&emptyPath)), unix.AT_EMPTY_PATH
	}
	_, _, e := unix.Syscall6(unix.SYS_UTIMENSAT, uintptr(d.fd), path, uintptr(unsafe.Pointer(&ts)), flag, 0, 0)
	return errnoErr(e)
}

// putHints writes what of want goes into struct fsxattr beside project and shared flags.
func (x *fsxattr) putHints(want *Attr) {
	x.xflags = x.xflags&^visibleXFlags | want.XFlags&visibleXFlags
	x.extsize, x.cowextsize = want.ExtSize, want.CowExtSize
}

func (d *dresser) projectAndFlags() error {
	if !d.opens() {
		return d.projectAt()
	}
	mask := flagsFor(d.want.Mode, d.l.Flags&sharedFlags)
	flags := d.have.Flags&mask != d.want.Flags&mask
	inherit := d.want.ProjInherit && d.want.IsDir()
	project := d.l.Project && (d.have.ProjID != d.want.ProjID || d.have.ProjInherit != inherit)
	hints := d.l.XFlags && (d.have.XFlags != d.want.XFlags || d.have.ExtSize != d.want.ExtSize || d.have.CowExtSize != d.want.CowExtSize)
	if !flags && !project && !hints {
		return nil
	}
	var x fsxattr
	if err := getFSX(d.fd, &x); err != nil {
		if !unsupported(err) || project || hints {
			return err
		}
		now, err := getFlags(d.fd)
		if err != nil {
			return err
		}
		return setFlags(d.fd, now&^mask|d.want.Flags&mask)
	}
	x.xflags = x.xflags&^toXFlags(mask) | toXFlags(d.want.Flags&mask)
	if d.l.Project {
		x.projid = d.want.ProjID
		x.xflags &^= xflagProjInherit
		if inherit {
			x.xflags |= xflagProjInherit
		}
	}
	if d.l.XFlags {
		x.putHints(d.want)
	}
	return setFSX(d.fd, &x)
}

// projectAt sets the project of an object that cannot be opened, where the
// kernel and the format have a call for it.
func (d *dresser) projectAt() error {
	if !d.l.Project || d.have.ProjID == d.want.ProjID {
		return nil
	}
	var a fileAttr
	err := fileAttrAt(unix.SYS_FILE_GETATTR, d.fd, &a)
	if err == nil {
		a.projid = d.want.ProjID
		a.nextents = 0
		err = fileAttrAt(unix.SYS_FILE_SETATTR, d.fd, &a)
	}
	if unsupported(err) {
		return nil
	}
	return err
}
