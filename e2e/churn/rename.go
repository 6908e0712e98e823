package churn

import (
	"golang.org/x/sys/unix"
)

// renameTo moves from to (dir, name); the tree's lock is held exclusively.
func (w *worker) renameTo(n *Node, from Place, dir *Node, name string, flags uint) error {
	op := &Op{Kind: Rename, Dir: from.Dir.ID, Name: []byte(from.Name), ToDir: dir.ID, ToName: []byte(name)}
	if flags&unix.RENAME_EXCHANGE != 0 {
		op.Kind = Exchange
	}
	return w.within(op, "", onlyDirs(n), []*Node{from.Dir, dir}, func(fds []int) error {
		return unix.Renameat2(fds[0], from.Name, fds[1], name, flags)
	})
}

// rename moves an object within its directory, across, or over another one.
func (w *worker) rename() error {
	defer w.lockTree()()
	n := w.pick(1 + w.rng.IntN(4)/3)
	if n == nil {
		return nil
	}
	from := n.Places[w.rng.IntN(len(n.Places))]
	switch w.rng.IntN(3) {
	case 0:
		return w.renameTo(n, from, from.Dir, newName(w.rng, from.Dir), unix.RENAME_NOREPLACE)
	case 1:
		dir := w.pickDir()
		return w.renameTo(n, from, dir, newName(w.rng, dir), 0)
	}
	victim := w.pick(1)
	if victim == nil {
		return nil
	}
	to := victim.Places[w.rng.IntN(len(victim.Places))]
	return w.renameTo(n, from, to.Dir, to.Name, 0)
}

// renameDir moves a whole tree into another subtree, or over an empty directory.
func (w *worker) renameDir() error {
	defer w.lockTree()()
	n, dir := w.pick(0), w.pickDir()
	if n.ID == RootID || beneath(dir, n) || w.depthOf(n)+pathBytes(dir) > w.o.MaxPath {
		return nil
	}
	name := newName(w.rng, dir)
	if victim := w.pick(0); w.rng.IntN(4) == 0 && victim.ID != RootID && len(victim.Entries) == 0 && !beneath(victim, n) && victim != n {
		dir, name = victim.Places[0].Dir, victim.Places[0].Name
	}
	if beneath(dir, n) {
		return nil
	}
	return w.renameTo(n, n.Places[0], dir, name, 0)
}

// depthOf is the longest path in bytes below n, its own name included.
func (w *worker) depthOf(n *Node) int {
	deepest := 0
	for name, e := range n.Entries {
		d := len(name) + 1
		if e.isDir() {
			d = w.depthOf(e) + len(name) + 1
		}
		deepest = max(deepest, d)
	}
	return deepest + 256
}

// exchange swaps two names, of any two types, where neither holds the other.
func (w *worker) exchange() error {
	defer w.lockTree()()
	a, b := w.pick(-1), w.pick(-1)
	if a == nil || b == nil || a == b {
		return nil
	}
	pa, pb := a.Places[w.rng.IntN(len(a.Places))], b.Places[w.rng.IntN(len(b.Places))]
	if beneath(pb.Dir, a) || beneath(pa.Dir, b) {
		return nil
	}
	if w.depthOf(a)+pathBytes(pb.Dir) > w.o.MaxPath || w.depthOf(b)+pathBytes(pa.Dir) > w.o.MaxPath {
		return nil
	}
	op := &Op{Kind: Exchange, Dir: pa.Dir.ID, Name: []byte(pa.Name), ToDir: pb.Dir.ID, ToName: []byte(pb.Name)}
	return w.within(op, "", onlyDirs(a, b), []*Node{pa.Dir, pb.Dir}, func(fds []int) error {
		return unix.Renameat2(fds[0], pa.Name, fds[1], pb.Name, unix.RENAME_EXCHANGE)
	})
}

// pingPong renames a→b→a→b, which merged events report as ending in the wrong name.
func (w *worker) pingPong() error {
	defer w.lockTree()()
	n := w.pick(w.rng.IntN(2))
	if n == nil || n.ID == RootID {
		return nil
	}
	a := n.Places[0]
	b := Place{a.Dir, newName(w.rng, a.Dir)}
	if w.depthOf(n)+pathBytes(a.Dir) > w.o.MaxPath {
		return nil
	}
	for range 3 + w.rng.IntN(2) {
		if err := w.renameTo(n, a, b.Dir, b.Name, unix.RENAME_NOREPLACE); err != nil || b.Dir.Entries[b.Name] != n {
			return err
		}
		a, b = b, a
	}
	return nil
}

// onlyDirs leaves out what is no directory: renaming it does not change its
// attributes, and a write to it may be in flight.
func onlyDirs(nodes ...*Node) (out []*Node) {
	for _, n := range nodes {
		if n.isDir() {
			out = append(out, n)
		}
	}
	return out
}
