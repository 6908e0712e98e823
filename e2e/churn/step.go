package churn

import (
	"math/rand/v2"
)

// worker is one worker in one turn.
type worker struct {
	*Runner
	rng *rand.Rand
	id  int
}

// choice is an operation and how often it is drawn.
type choice struct {
	weight int
	needs  string // a name in Options.Without that leaves it out
	do     func(*worker) error
}

// namespace changes names, content bytes, meta attributes.
var choices = []choice{
	{12, "create", (*worker).create},
	{4, "mkdir", (*worker).mkdir},
	{3, "symlink", (*worker).symlink},
	{3, "mknod", (*worker).mknod},
	{2, "tmpfile", (*worker).tmpfile},
	{4, "link", (*worker).link},
	{8, "unlink", (*worker).unlink},
	{1, "rmdir", (*worker).rmdir},
	{8, "rename", (*worker).rename},
	{3, "rename", (*worker).renameDir},
	{2, "exchange", (*worker).exchange},
	{2, "rename", (*worker).pingPong},
	{3, "create", (*worker).reuse},
	{16, "write", (*worker).write},
	{3, "direct", (*worker).direct},
	{4, "truncate", (*worker).truncate},
	{7, "fallocate", (*worker).fallocate},
	{10, "mmap", (*worker).store},
	{3, "hold", (*worker).keep},
	{3, "copy", (*worker).copyIn},
	{2, "clone", (*worker).clone},
	{3, "fsync", (*worker).fsync},
	{3, "chmod", (*worker).chmod},
	{3, "chown", (*worker).chown},
	{4, "utimes", (*worker).utimes},
	{6, "xattr", (*worker).setXattr},
	{3, "xattr", (*worker).delXattr},
	{3, "acl", (*worker).setACL},
	{2, "caps", (*worker).setCaps},
	{4, "chattr", (*worker).chattr},
	{1, "project", (*worker).project},
}

// step does one turn: it grows the volume to its size first and hovers there.
func (r *Runner) step(rng *rand.Rand, id int) error {
	w := &worker{r, rng, id}
	switch n := r.Model.Objects(); {
	case n < r.o.Objects*8/10:
		return w.grow()
	case n > r.o.Objects*12/10:
		return w.unlink()
	}
	total := 0
	for _, c := range choices {
		total += c.weight
	}
	at := rng.IntN(total)
	for _, c := range choices {
		if at -= c.weight; at < 0 {
			if r.o.without(c.needs) {
				return nil
			}
			return c.do(w)
		}
	}
	return nil
}

// grow makes objects, and dresses some of them on the way.
func (w *worker) grow() error {
	switch k := w.rng.IntN(20); {
	case k < 12:
		return w.create()
	case k < 14:
		return w.mkdir()
	case k < 15:
		return w.symlink()
	case k < 16:
		return w.mknod()
	case k < 17 && !w.o.without("link"):
		return w.link()
	}
	return w.write()
}

// pick draws an object of a list: 0 directories, 1 files, 2 others, -1 any but
// the root. The tree's lock is held.
func (w *worker) pick(list int) *Node {
	m := w.Model
	if list < 0 {
		n := len(m.lists[0]) - 1 + len(m.lists[1]) + len(m.lists[2])
		if n <= 0 {
			return nil
		}
		at := w.rng.IntN(n)
		for list, skip := range []int{1, 0, 0} {
			if size := len(m.lists[list]) - skip; at >= size {
				at -= size
				continue
			}
			return m.lists[list][at+skip]
		}
		return nil
	}
	if len(m.lists[list]) == 0 {
		return nil
	}
	return m.lists[list][w.rng.IntN(len(m.lists[list]))]
}

// pickDir draws a directory to put something into, now and then a deep one.
func (w *worker) pickDir() *Node {
	best := w.pick(0)
	if w.rng.IntN(4) == 0 {
		for range 3 {
			if d := w.pick(0); len(path(d)) > len(path(best)) {
				best = d
			}
		}
	}
	if pathBytes(best)+255 > w.o.MaxPath {
		return w.Model.root
	}
	return best
}
