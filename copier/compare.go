package copier

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// CompareOptions say what counts.
type CompareOptions struct {
	Workers int // 2 when zero
	// Ignore is applied to every pair; its zero value compares everything that a
	// copy can keep, atime included.
	Ignore Ignore
	// IgnoreFor, when set, replaces Ignore for the object at an unescaped path:
	// what the fit of that object waives.
	IgnoreFor func(path string, a Attr) Ignore
	// Skip reports whether the object at an unescaped path, and all below it, is
	// left out on both sides. See SkipLostFound.
	Skip func(path string) bool
	// NoData compares attributes only.
	NoData bool
	// Sparse skips what is a hole on both sides: for trees that were synced and
	// that nobody writes.
	Sparse bool
	// LinksOutside allows files more links than the tree has names for them: for
	// parts of a volume.
	LinksOutside bool
	Throttle     *Throttle
}

// CompareStats is what a comparison did.
type CompareStats struct {
	Objects   int64 // compared, of both sides together where one is missing
	Different int64
	Files     int64
	Bytes     int64 // of data read from each side
	LinkNames int64 // names of objects with more than one
	Mounts    int64 // mount points on both sides, not entered
}

// SkipLostFound leaves out the root's lost+found, which ext makes and others lack.
func SkipLostFound(path string) bool { return path == "lost+found" }

// CompareTrees compares two directories and all below them, object by object:
// names, types, attributes, data, the targets of links, hard-link groups. It
// follows no link and crosses no mount, and neither depth nor the bytes of a
// name limit it. report is called for every object that differs, one call at a
// time, with its path as Escape makes it. An object that cannot be read is a
// difference, "unreadable", and the comparison goes on.
func CompareTrees(ctx context.Context, a, b string, o CompareOptions, report func(path string, d []Difference)) (CompareStats, error) {
	fa, err := OpenTree(a)
	if err != nil {
		return CompareStats{}, err
	}
	defer unix.Close(fa)
	fb, err := OpenTree(b)
	if err != nil {
		return CompareStats{}, err
	}
	defer unix.Close(fb)
	return CompareFds(ctx, fa, fb, o, report)
}

// CompareFds is CompareTrees between two directories that are open for reading.
func CompareFds(ctx context.Context, a, b int, o CompareOptions, report func(path string, d []Difference)) (CompareStats, error) {
	if o.Workers == 0 {
		o.Workers = 2
	}
	if o.Skip == nil {
		o.Skip = func(string) bool { return false }
	}
	c := &comparer{roots: [2]int{a, b}, o: o, out: report, links: newLinkGroups()}
	err := walk(ctx, o.Workers, c.visit)
	c.stats.LinkNames = c.links.names
	return c.stats, err
}

type comparer struct {
	roots [2]int
	o     CompareOptions
	links *linkGroups
	mu    sync.Mutex // below it
	out   func(string, []Difference)
	stats CompareStats
}

func (c *comparer) report(path string, ds ...Difference) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stats.Different++
	if c.out != nil {
		c.out(Escape(path), ds)
	}
}

func (c *comparer) count(f func(*CompareStats)) {
	c.mu.Lock()
	f(&c.stats)
	c.mu.Unlock()
}

// listed is an entry of a directory, kept.
type listed struct {
	name string
	ino  uint64
	typ  uint8
}

func listSorted(fd int, b *Buffers) ([]listed, error) {
	var out []listed
	err := ListDir(fd, b, func(d Dirent) error {
		out = append(out, listed{strings.Clone(d.Name), d.Ino, d.Type})
		return nil
	})
	slices.SortFunc(out, func(x, y listed) int { return strings.Compare(x.name, y.name) })
	return slices.CompactFunc(out, func(x, y listed) bool { return x.name == y.name }), err
}

// pair is one name that both directories have.
type pair struct {
	name string
	ino  uint64 // on the first side
	typ  [2]uint8
}

func (c *comparer) visit(ctx context.Context, b *Buffers, n *node, push func(*node)) error {
	var dirs [2]int
	var lists [2][]listed
	for i, root := range c.roots {
		fd, err := openNode(root, n)
		if err == nil {
			defer unix.Close(fd)
			dirs[i] = fd
			lists[i], err = listSorted(fd, b)
		}
		if err != nil {
			c.report(n.path(), unreadable(i, err))
			return nil
		}
	}
	prefix := n.path() + "/"
	if n.parent == nil {
		prefix = ""
		if _, err := c.objects(ctx, b, dirs[0], dirs[1], "."); err != nil {
			return err
		}
	}
	both := c.match(lists[0], lists[1], prefix)
	// In the order of the first side's inodes: close to that of its disk.
	slices.SortFunc(both, func(x, y pair) int {
		if x.ino != y.ino {
			if x.ino < y.ino {
				return -1
			}
			return 1
		}
		return strings.Compare(x.name, y.name)
	})
	for _, p := range both {
		enter, err := c.entry(ctx, b, dirs, prefix, p)
		if err != nil {
			return err
		}
		if enter {
			push(n.child(p.name))
		}
	}
	return nil
}

// match reports the names that only one side has and returns the others.
func (c *comparer) match(a, b []listed, prefix string) []pair {
	var both []pair
	missing := func(e listed, onA bool) {
		path := prefix + e.name
		if c.o.Skip(path) {
			return
		}
		d := Difference{Field: "name", A: "absent", B: "present"}
		if onA {
			d.A, d.B = d.B, d.A
		}
		c.count(func(s *CompareStats) { s.Objects++ })
		c.report(path, d)
	}
	for len(a) > 0 || len(b) > 0 {
		switch {
		case len(b) == 0 || len(a) > 0 && a[0].name < b[0].name:
			missing(a[0], true)
			a = a[1:]
		case len(a) == 0 || b[0].name < a[0].name:
			missing(b[0], false)
			b = b[1:]
		default:
			if !c.o.Skip(prefix + a[0].name) {
				both = append(both, pair{a[0].name, a[0].ino, [2]uint8{a[0].typ, b[0].typ}})
			}
			a, b = a[1:], b[1:]
		}
	}
	return both
}

func (c *comparer) entry(ctx context.Context, b *Buffers, dirs [2]int, prefix string, p pair) (enter bool, err error) {
	if err := c.o.Throttle.Wait(ctx, 0); err != nil {
		return false, err
	}
	var fds [2]int
	var mounts int
	var ds []Difference
	for i, dir := range dirs {
		fd, err := openEntry(dir, p.name, p.typ[i])
		switch {
		case err == nil:
			defer unix.Close(fd)
			fds[i] = fd
		case errors.Is(err, unix.EXDEV):
			mounts++
			ds = append(ds, sided(i, "mount point", "another mount", "no mount"))
		default:
			ds = append(ds, unreadable(i, err))
		}
	}
	if mounts == 2 {
		c.count(func(s *CompareStats) { s.Mounts++ })
		return false, nil
	}
	if len(ds) > 0 {
		c.count(func(s *CompareStats) { s.Objects++ })
		c.report(prefix+p.name, ds...)
		return false, nil
	}
	return c.objects(ctx, b, fds[0], fds[1], prefix+p.name)
}

// objects compares one pair and says whether both are directories to enter.
func (c *comparer) objects(ctx context.Context, b *Buffers, fa, fb int, path string) (enter bool, err error) {
	x, errA := ReadAttr(fa, b)
	y, errB := ReadAttr(fb, b)
	c.count(func(s *CompareStats) { s.Objects++ })
	if errA != nil || errB != nil {
		var ds []Difference
		if errA != nil {
			ds = append(ds, unreadable(0, errA))
		}
		if errB != nil {
			ds = append(ds, unreadable(1, errB))
		}
		c.report(path, ds...)
		return false, ctx.Err()
	}
	ignore := c.o.Ignore
	if c.o.IgnoreFor != nil {
		ignore = c.o.IgnoreFor(path, x)
	}
	ignore.Nlink = ignore.Nlink || c.o.LinksOutside
	ds := EqualAttr(x, y, ignore)
	if x.Type() == y.Type() && !x.IsDir() {
		seen, linkDiff := c.links.pair(&x, &y)
		ds = append(ds, linkDiff...)
		if !seen {
			more, err := c.content(ctx, b, fa, fb, &x, &y)
			if err != nil {
				return false, err
			}
			ds = append(ds, more...)
		}
	}
	if len(ds) > 0 {
		c.report(path, ds...)
	}
	return x.IsDir() && y.IsDir(), nil
}

func sided(side int, field, here, there string) Difference {
	if side == 0 {
		return Difference{field, here, there}
	}
	return Difference{field, there, here}
}

func unreadable(side int, err error) Difference { return sided(side, "unreadable", err.Error(), "-") }
