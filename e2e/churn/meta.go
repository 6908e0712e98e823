package churn

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"sort"

	"golang.org/x/sys/unix"
)

// dress draws an object and changes its attributes. The tree's lock is shared
// throughout, so that no entry moves a directory's times in between.
func (w *worker) dress(list int, prepare func(n *Node, fd int) *action) error {
	w.Model.tree.RLock()
	defer w.Model.tree.RUnlock()
	if list < 0 && w.rng.IntN(2) == 0 {
		list = 0
	}
	n := w.pick(list)
	if n == nil || !n.mu.TryLock() {
		return nil
	}
	defer n.mu.Unlock()
	if len(n.Pending) > 0 {
		return nil
	}
	fd, err := w.vol.node(n, w.rng.IntN(8))
	if err != nil {
		return w.verdict(err)
	}
	defer unix.Close(fd)
	a := prepare(n, fd)
	if a == nil {
		return nil
	}
	a.node, a.fd, a.op.Node, a.op.Worker = n, fd, n.ID, w.id
	return w.perform(*a)
}

// same makes the comparison of what was asked for with what was read back.
func same(id int64, what string, want any, get func(Attrs) any) func(map[int64]Attrs) error {
	return func(m map[int64]Attrs) error {
		if got := get(m[id]); fmt.Sprint(got) != fmt.Sprint(want) {
			return fmt.Errorf("%s set to %v reads back as %v", what, want, got)
		}
		return nil
	}
}

func (w *worker) chmod() error {
	return w.dress(-1, func(n *Node, fd int) *action {
		if n.isSymlink() {
			return nil
		}
		op := &Op{Kind: Chmod, Mode: w.mode()}
		if n.isDir() {
			op.Mode |= 0o700
		}
		return &action{op: op, do: func() (int64, error) { return 0, unix.Chmod(procPath(fd), op.Mode) },
			happy: same(n.ID, "mode", op.Mode, func(a Attrs) any { return a.Mode & 0o7777 })}
	})
}

func (w *worker) chown() error {
	return w.dress(-1, func(n *Node, fd int) *action {
		op := &Op{Kind: Chown, UID: w.rng.Uint32N(70000), GID: w.rng.Uint32N(1 << 31)}
		return &action{op: op, do: func() (int64, error) {
			return 0, unix.Fchownat(fd, "", int(op.UID), int(op.GID), unix.AT_EMPTY_PATH)
		}, happy: same(n.ID, "owner", [2]uint32{op.UID, op.GID}, func(a Attrs) any { return [2]uint32{a.UID, a.GID} })}
	})
}

// utimes sets times that every volume can hold, before 1970 now and then.
func (w *worker) utimes() error {
	return w.dress(-1, func(n *Node, fd int) *action {
		op := &Op{Kind: Utimes, Sec: w.rng.Int64N(1<<31 - 10), Nsec: w.rng.Int64N(1e9)}
		if w.rng.IntN(10) == 0 {
			op.Sec = -op.Sec
		}
		ts := []unix.Timespec{{Sec: op.Sec, Nsec: op.Nsec}, {Sec: op.Sec, Nsec: op.Nsec}}
		return &action{op: op, do: func() (int64, error) { return 0, unix.UtimesNanoAt(fd, "", ts, unix.AT_EMPTY_PATH) },
			happy: same(n.ID, "mtime", op.Sec, func(a Attrs) any { return a.Sec })}
	})
}

// xattrLimit bounds an object's xattrs: an ext4 of 128-byte inodes has one block
// for all of them.
const xattrLimit = 1500

func (w *worker) setXattr() error {
	return w.dress(-1, func(n *Node, fd int) *action {
		op := &Op{Kind: SetXattr, Xattr: fmt.Sprintf("trusted.churn%d", w.rng.IntN(4)), Value: make([]byte, w.rng.IntN(300))}
		if (n.isFile() || n.isDir()) && w.rng.IntN(3) > 0 {
			op.Xattr = fmt.Sprintf("user.churn%d", w.rng.IntN(4))
		}
		Fill(w.rng.Uint64(), 0, op.Value)
		return w.xattr(n, fd, op)
	})
}

func (w *worker) xattr(n *Node, fd int, op *Op) *action {
	if n.Attrs.xattrBytes()+len(op.Value)+40 > xattrLimit {
		return nil
	}
	a := &action{op: op, do: func() (int64, error) { return 0, unix.Setxattr(procPath(fd), op.Xattr, op.Value, 0) }}
	if op.Xattr != aclAccess && op.Xattr != aclDefault {
		a.happy = same(n.ID, op.Xattr, op.Value, func(a Attrs) any { return a.Xattrs[op.Xattr] })
	}
	return a
}

func (w *worker) delXattr() error {
	return w.dress(-1, func(n *Node, fd int) *action {
		names := make([]string, 0, len(n.Attrs.Xattrs))
		for name := range n.Attrs.Xattrs {
			names = append(names, name)
		}
		if len(names) == 0 {
			return nil
		}
		sort.Strings(names)
		op := &Op{Kind: DelXattr, Xattr: names[w.rng.IntN(len(names))]}
		return &action{op: op, do: func() (int64, error) { return 0, unix.Removexattr(procPath(fd), op.Xattr) },
			happy: same(n.ID, op.Xattr, true, func(a Attrs) any { _, there := a.Xattrs[op.Xattr]; return !there })}
	})
}

const (
	aclAccess  = "system.posix_acl_access"
	aclDefault = "system.posix_acl_default"
)

// setACL sets an access ACL, or a default one on a directory.
func (w *worker) setACL() error {
	return w.dress(w.rng.IntN(2), func(n *Node, fd int) *action {
		op := &Op{Kind: SetXattr, Xattr: aclAccess, Value: w.acl()}
		if n.isDir() && w.rng.IntN(2) == 0 {
			op.Xattr = aclDefault
		}
		return w.xattr(n, fd, op)
	})
}

// acl makes an ACL in the kernel's wire format: version 2, then tag, permissions
// and id of each entry.
func (w *worker) acl() []byte {
	perm := func() uint16 { return uint16(w.rng.IntN(8)) }
	out := binary.LittleEndian.AppendUint32(nil, 2)
	add := func(tag, perm uint16, id uint32) {
		out = binary.LittleEndian.AppendUint16(out, tag)
		out = binary.LittleEndian.AppendUint16(out, perm)
		out = binary.LittleEndian.AppendUint32(out, id)
	}
	const none = 1<<32 - 1
	add(0x01, perm()|4, none) // owner
	for i := range 1 + w.rng.Uint32N(3) {
		add(0x02, perm(), 1000+i*7+w.rng.Uint32N(7)) // user
	}
	add(0x04, perm(), none)                       // group
	add(0x08, perm(), 2000+w.rng.Uint32N(100000)) // a group by name
	add(0x10, perm(), none)                       // mask
	add(0x20, perm(), none)                       // others
	return out
}

// setCaps sets file capabilities, revision 2 or 3 (with a root id).
func (w *worker) setCaps() error {
	return w.dress(1, func(n *Node, fd int) *action {
		var b bytes.Buffer
		revision := uint32(0x02000000)
		if w.rng.IntN(2) == 0 {
			revision |= 1 // effective
		}
		words := []uint32{revision, w.rng.Uint32(), 0, w.rng.Uint32N(1 << 9), 0}
		for _, v := range words {
			_ = binary.Write(&b, binary.LittleEndian, v)
		}
		return w.xattr(n, fd, &Op{Kind: SetXattr, Xattr: "security.capability", Value: b.Bytes()})
	})
}

// chattr sets a flag, or clears the flags of an object that has some: what is
// immutable must not stay out of the churn for good.
func (w *worker) chattr() error {
	return w.dress(w.rng.IntN(2), func(n *Node, fd int) *action {
		op := &Op{Kind: Chattr}
		if n.Attrs.Flags == 0 {
			op.Flags = []uint32{flagNoDump, flagNoDump, flagNoAtime, flagAppend, flagImmutable, flagNoDump | flagAppend}[w.rng.IntN(6)]
			if n.isDir() && (n.ID == RootID || w.rng.IntN(3) > 0) {
				op.Flags = flagNoDump
			}
		}
		return &action{op: op, do: func() (int64, error) { return 0, setFlags(fd, op.Flags) },
			happy: same(n.ID, "flags", op.Flags, func(a Attrs) any { return a.Flags })}
	})
}

// setFlags replaces the flags that churn knows and keeps the rest.
func setFlags(fd int, flags uint32) error {
	rd, err := reopen(fd, unix.O_RDONLY)
	if err != nil {
		return err
	}
	defer unix.Close(rd)
	now, err := unix.IoctlGetUint32(rd, unix.FS_IOC_GETFLAGS)
	if err != nil {
		return err
	}
	return unix.IoctlSetPointerInt(rd, unix.FS_IOC_SETFLAGS, int(now&^flagMask|flags))
}

// project sets a project id, without inheritance.
func (w *worker) project() error {
	return w.dress(w.rng.IntN(2), func(n *Node, fd int) *action {
		op := &Op{Kind: Project, UID: w.rng.Uint32N(5000)}
		return &action{op: op, do: func() (int64, error) { return 0, setProject(fd, op.UID) },
			happy: same(n.ID, "project", op.UID, func(a Attrs) any { return a.Project })}
	})
}

func setProject(fd int, id uint32) error {
	rd, err := reopen(fd, unix.O_RDONLY)
	if err != nil {
		return err
	}
	defer unix.Close(rd)
	var x fsxattr
	if err := ioctlFsx(rd, iocFSGetXattr, &x); err != nil {
		return err
	}
	x.Project = id
	return ioctlFsx(rd, iocFSSetXattr, &x)
}
