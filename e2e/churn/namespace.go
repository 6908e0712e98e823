package churn

import (
	"errors"
	"strings"

	"golang.org/x/sys/unix"
)

// within opens dirs, does the operation and reads back every directory involved,
// those that move (also) included. made is the id of an object that the operation makes in dirs[0]. The tree's
// lock is held exclusively.
func (w *worker) within(op *Op, made string, also []*Node, dirs []*Node, do func(fds []int) error) error {
	op.Worker = w.id
	fds := make([]int, 0, len(dirs))
	defer func() {
		for _, fd := range fds {
			unix.Close(fd)
		}
	}()
	for _, d := range dirs {
		fd, err := w.vol.dir(d)
		if err != nil {
			return w.verdict(err)
		}
		fds = append(fds, fd)
	}
	for _, n := range also {
		fd, err := w.vol.node(n, 0)
		if err != nil {
			return w.verdict(err)
		}
		fds = append(fds, fd)
	}
	involved := append(dirs[:len(dirs):len(dirs)], also...)
	return w.perform(action{op: op,
		do: func() (int64, error) { return 0, do(fds) },
		after: func() (map[int64]Attrs, error) {
			out := map[int64]Attrs{}
			read := func(id int64, fd int) error {
				f, err := readFacts(fd)
				out[id] = f.Attrs
				return err
			}
			for i, fd := range fds {
				if err := read(involved[i].ID, fd); err != nil {
					return nil, err
				}
			}
			if made == "" {
				return out, nil
			}
			fd, err := unix.Openat(fds[0], made, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
			if err != nil {
				return nil, err
			}
			defer unix.Close(fd)
			return out, read(op.Node, fd)
		}})
}

func (w *worker) lockTree() func() {
	w.Model.tree.Lock()
	return w.Model.tree.Unlock
}

// makeIn makes a new object in a drawn directory.
func (w *worker) makeIn(kind Kind, op *Op, do func(dir int, name string) error) error {
	defer w.lockTree()()
	return w.makeAt(kind, op, w.pickDir(), "", do)
}

func (w *worker) makeAt(kind Kind, op *Op, dir *Node, name string, do func(dir int, name string) error) error {
	if name == "" {
		name = newName(w.rng, dir)
	}
	w.Model.next++
	op.Kind, op.Node, op.Dir, op.Name = kind, w.Model.next-1, dir.ID, []byte(name)
	return w.within(op, name, nil, []*Node{dir}, func(fds []int) error { return do(fds[0], name) })
}

var modes = []uint32{0o644, 0o600, 0o755, 0o640, 0o4755, 0o2775, 0o000, 0o1777, 0o444}

func (w *worker) mode() uint32 { return modes[w.rng.IntN(len(modes))] }

func (w *worker) create() error {
	op := &Op{Mode: unix.S_IFREG | w.mode(), Seed: w.rng.Uint64()}
	if w.rng.IntN(8) > 0 {
		op.Len = w.length(w.o.MaxFile)
	}
	return w.makeIn(Create, op, makeFile(op))
}

// makeFile creates a file with its first content.
func makeFile(op *Op) func(int, string) error {
	return func(dir int, name string) error {
		fd, err := unix.Openat(dir, name, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_CLOEXEC, op.Mode&0o7777)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return fillFile(op, fd, func() { _ = unix.Unlinkat(dir, name, 0) })
	}
}

// fillFile writes op's content. What cannot be written whole is undone.
func fillFile(op *Op, fd int, undo func()) error {
	if op.Len == 0 {
		return nil
	}
	buf := make([]byte, op.Len)
	Fill(op.Seed, 0, buf)
	n, err := unix.Pwrite(fd, buf, 0)
	if err == nil && int64(n) < op.Len {
		err = unix.ENOSPC
	}
	if err != nil {
		undo()
	}
	return err
}

func (w *worker) mkdir() error {
	op := &Op{Mode: unix.S_IFDIR | 0o700 | w.mode()}
	return w.makeIn(Mkdir, op, func(dir int, name string) error { return unix.Mkdirat(dir, name, op.Mode&0o7777) })
}

func (w *worker) symlink() error {
	target := strings.Repeat("../t", 60)[:1+w.rng.IntN(200)] + inventName(w.rng)
	op := &Op{Mode: unix.S_IFLNK | 0o777, Value: []byte(target)}
	return w.makeIn(Symlink, op, func(dir int, name string) error { return unix.Symlinkat(target, dir, name) })
}

func (w *worker) mknod() error {
	op := &Op{Mode: []uint32{unix.S_IFIFO, unix.S_IFSOCK, unix.S_IFCHR, unix.S_IFBLK}[w.rng.IntN(4)] | w.mode()&0o777}
	if t := op.Mode & unix.S_IFMT; t == unix.S_IFCHR || t == unix.S_IFBLK {
		// xfs takes majors of 9 and minors of 18 bits only.
		op.Rdev = unix.Mkdev(1+w.rng.Uint32N(511), w.rng.Uint32N(1<<18))
	}
	return w.makeIn(Mknod, op, func(dir int, name string) error { return unix.Mknodat(dir, name, op.Mode, int(op.Rdev)) })
}

func (w *worker) tmpfile() error {
	op := &Op{Mode: unix.S_IFREG | w.mode()&0o777, Len: w.length(64 << 10), Seed: w.rng.Uint64()}
	return w.makeIn(Tmpfile, op, func(dir int, name string) error {
		fd, err := unix.Open(procPath(dir), unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, op.Mode&0o7777)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		if err := fillFile(op, fd, func() {}); err != nil {
			return err
		}
		return unix.Linkat(unix.AT_FDCWD, procPath(fd), dir, name, unix.AT_SYMLINK_FOLLOW)
	})
}

// link gives a file another name, also in another directory.
func (w *worker) link() error {
	defer w.lockTree()()
	n, dir := w.pick(1+w.rng.IntN(8)/7), w.pickDir()
	if n == nil || len(n.Places) > 40 {
		return nil
	}
	name := newName(w.rng, dir)
	from := n.Places[w.rng.IntN(len(n.Places))]
	op := &Op{Kind: Link, Node: n.ID, Dir: dir.ID, Name: []byte(name)}
	return w.within(op, "", nil, []*Node{dir, from.Dir}, func(fds []int) error {
		return unix.Linkat(fds[1], from.Name, fds[0], name, 0)
	})
}

// unlink takes a name away, also of a file that is open or mapped.
func (w *worker) unlink() error {
	defer w.lockTree()()
	n := w.pick(1 + w.rng.IntN(4)/3)
	if n == nil {
		return nil
	}
	return w.unlinkAt(n.Places[w.rng.IntN(len(n.Places))])
}

func (w *worker) unlinkAt(p Place) error {
	op := &Op{Kind: Unlink, Dir: p.Dir.ID, Name: []byte(p.Name)}
	return w.within(op, "", nil, []*Node{p.Dir}, func(fds []int) error { return unix.Unlinkat(fds[0], p.Name, 0) })
}

func (w *worker) rmdir() error {
	defer w.lockTree()()
	n := w.pick(0)
	for range 8 { // mostly an empty one
		if len(n.Entries) > 0 {
			n = w.pick(0)
		}
	}
	if n.ID == RootID {
		return nil
	}
	p := n.Places[0]
	op := &Op{Kind: Rmdir, Dir: p.Dir.ID, Name: []byte(p.Name)}
	return w.within(op, "", nil, []*Node{p.Dir}, func(fds []int) error {
		err := unix.Unlinkat(fds[0], p.Name, unix.AT_REMOVEDIR)
		if err == nil && len(n.Entries) > 0 {
			return errors.Join(errVolume, errors.New("a full directory was removed"))
		}
		return err
	})
}

// reuse frees an inode and makes a file of the same size in the same second:
// what the new one has in common with the old is everything but its generation.
func (w *worker) reuse() error {
	defer w.lockTree()()
	n := w.pick(1)
	if n == nil || len(n.Places) != 1 || !n.mu.TryLock() {
		return nil
	}
	size := n.Content.Size
	w.release(n)
	n.mu.Unlock()
	p := n.Places[0]
	for range 1 + w.rng.IntN(3) {
		if err := w.unlinkAt(p); err != nil || p.Dir.Entries[p.Name] != nil {
			return err
		}
		op := &Op{Mode: unix.S_IFREG | 0o644, Seed: w.rng.Uint64(), Len: min(size, 256<<10)}
		if err := w.makeAt(Create, op, p.Dir, p.Name, makeFile(op)); err != nil || p.Dir.Entries[p.Name] == nil {
			return err
		}
	}
	return nil
}
