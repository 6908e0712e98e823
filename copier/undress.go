package copier

import "golang.org/x/sys/unix"

// Prime gives an empty object what it takes only while it is empty: no-cow,
// casefolding, extent size hints. Call it before the first data or entry.
func Prime(fd int, want Attr, l DressOptions) error {
	flags := want.Flags & l.Flags & emptyFlags
	if want.IsDir() {
		flags = want.Flags & l.Flags & (FlagCasefold | FlagNoCow)
	} else if want.IsRegular() {
		flags &^= FlagCasefold
	}
	hints := l.XFlags && want.XFlags&(XFlagExtSize|XFlagExtInherit|XFlagCowExtSize) != 0
	if flags == 0 && !hints || !want.IsDir() && !want.IsRegular() {
		return nil
	}
	rfd, done, err := realFd(fd)
	if err != nil {
		return targetError("reopen", -1, err)
	}
	defer done.close()
	if flags != 0 {
		have, err := getFlags(rfd)
		if err == nil && have&flags != flags {
			err = setFlags(rfd, have|flags)
		}
		if err != nil {
			return targetError("set inode flags", -1, err)
		}
	}
	if hints {
		want.Flags, want.ProjInherit = 0, false
		var x fsxattr
		if err := getFSX(rfd, &x); err != nil {
			return targetError("read extent size", -1, err)
		}
		x.putHints(&want)
		if err := setFSX(rfd, &x); err != nil {
			return targetError("set extent size", -1, err)
		}
	}
	return nil
}

// realFd returns a descriptor that ioctl takes for a file or directory.
func realFd(fd int) (int, closer, error) {
	path, err := isPathFd(fd)
	if err != nil || !path {
		return fd, -1, err
	}
	rfd, err := ReopenRead(fd)
	return rfd, closer(rfd), err
}

// closer is a descriptor to close, or -1.
type closer int

func (c closer) close() {
	if c >= 0 {
		unix.Close(int(c))
	}
}

// Undress makes the target object fd, which has the attributes have, workable:
// immutable, append-only and the synchronous flags go, and from a directory what
// its new entries would inherit (project, default ACL, extent size). Dress puts
// everything back. A zero have is read.
func Undress(fd int, have Attr) error {
	if have.Mode == 0 {
		var err error
		if have, err = ReadAttr(fd, &Buffers{}); err != nil {
			return targetError("read attributes", -1, err)
		}
	}
	if !have.IsDir() && !have.IsRegular() {
		return nil
	}
	const slow = FlagSync | FlagDirSync
	_, acl := have.Xattr(XattrACLDefault)
	locked := have.Flags&(FlagImmutable|FlagAppend|slow) != 0 || have.ProjInherit || have.XFlags != 0
	if !locked && !acl {
		return nil
	}
	rfd, done, err := realFd(fd)
	if err != nil {
		return targetError("reopen", -1, err)
	}
	defer done.close()
	if locked {
		if err := clearFlags(rfd, have.Flags); err != nil {
			return targetError("clear inode flags", -1, err)
		}
	}
	if acl {
		if err := xattrRemove(rfd, false, XattrACLDefault); err != nil {
			return targetError("remove default ACL", -1, err)
		}
	}
	return nil
}

// clearFlags frees an object; the extended call first, as it alone knows what xfs adds.
func clearFlags(fd int, flags uint32) error {
	const x = xflagImmutable | xflagAppend | xflagSync | xflagProjInherit | XFlagNoSymlinks | XFlagExtInherit
	var fsx fsxattr
	err := getFSX(fd, &fsx)
	if err == nil {
		fsx.xflags &^= x
		err = setFSX(fd, &fsx)
	}
	if err != nil && !unsupported(err) {
		return err
	}
	if err == nil && flags&FlagDirSync == 0 {
		return nil
	}
	have, err := getFlags(fd)
	if err != nil {
		return err
	}
	return setFlags(fd, have&^(FlagImmutable|FlagAppend|FlagSync|FlagDirSync|FlagProjInherit))
}
