package churn

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"sort"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Difference is one way in which a volume is not what was acknowledged.
type Difference struct {
	Path  string // quoted
	Field string
	Want  string
	Got   string
}

func (d Difference) String() string {
	return fmt.Sprintf("%s: %s: acknowledged %s, found %s", d.Path, d.Field, d.Want, d.Got)
}

// CheckOptions loosen a check where the volume cannot hold a fact.
type CheckOptions struct {
	Granularity time.Duration   // of mtime; 0: every nanosecond
	Ignore      map[string]bool // fields by name
	Limit       int             // of differences; 0: 100
}

// check is a check under way.
type check struct {
	m     *Model
	v     *volume
	o     CheckOptions
	found []Difference
	inode map[uint64]*Node // link groups: one inode is one object …
	node  map[*Node]uint64 // … and the other way round
	want  []byte
	got   []byte
	seen  int
}

var errLimit = errors.New("too many differences")

// Check proves that dir holds what the model says and nothing else.
func (m *Model) Check(dir string, o CheckOptions) ([]Difference, error) {
	v, err := openVolume(dir)
	if err != nil {
		return nil, err
	}
	defer v.close()
	m.tree.RLock()
	defer m.tree.RUnlock()
	if o.Limit == 0 {
		o.Limit = 100
	}
	c := &check{m: m, v: v, o: o, inode: map[uint64]*Node{}, node: map[*Node]uint64{}, want: make([]byte, 64<<10), got: make([]byte, 64<<10)}
	fd, err := unix.Openat(v.root, ".", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	if err = c.object(fd, ".", m.root, nil); errors.Is(err, errLimit) {
		err = nil
	}
	return c.found, err
}

// CheckLog replays a log and checks dir against it.
func CheckLog(dir, log string, o CheckOptions) (*Replay, []Difference, error) {
	rp, err := ReadLog(log)
	if err != nil {
		return nil, nil, err
	}
	v, err := openVolume(dir)
	if err != nil {
		return rp, nil, err
	}
	_, err = settle(rp.Model, v, rp.Dangling)
	if err = errors.Join(err, v.close()); err != nil {
		return rp, nil, err
	}
	found, err := rp.Model.Check(dir, o)
	return rp, found, err
}

func (c *check) differ(path, field string, want, got any) error {
	if c.o.Ignore[field] {
		return nil
	}
	c.found = append(c.found, Difference{fmt.Sprintf("%q", path), field, fmt.Sprint(want), fmt.Sprint(got)})
	if len(c.found) >= c.o.Limit {
		return errLimit
	}
	return nil
}

func (c *check) equal(path, field string, want, got any) error {
	if want != got {
		return c.differ(path, field, want, got)
	}
	return nil
}

// object checks one object and, if it is a directory, what is in it.
func (c *check) object(fd int, path string, n *Node, dev *[2]uint32) error {
	f, err := readFacts(fd)
	if err != nil {
		return fmt.Errorf("%q: %w", path, err)
	}
	c.seen++
	if dev != nil && f.Dev != *dev {
		return c.differ(path, "device", *dev, f.Dev)
	}
	if err := c.equal(path, "type", fmt.Sprintf("%o", n.Type), fmt.Sprintf("%o", f.Mode&unix.S_IFMT)); err != nil {
		return err
	}
	if n.Type != f.Mode&unix.S_IFMT {
		return nil
	}
	if err := c.attrs(path, n, f); err != nil {
		return err
	}
	switch {
	case n.isDir():
		return c.directory(fd, path, n, f.Dev)
	case n.isFile():
		err = c.content(fd, path, n, f)
	case n.isSymlink():
		buf := make([]byte, 4096)
		k, rerr := unix.Readlinkat(fd, "", buf)
		if rerr != nil {
			return fmt.Errorf("read link %q: %w", path, rerr)
		}
		err = c.equal(path, "target", n.Target, string(buf[:k]))
	}
	return errors.Join(err, c.links(path, n, f))
}

func (c *check) attrs(path string, n *Node, f facts) error {
	if len(n.Pending) > 0 {
		return nil // any of its attributes may be the old or the new
	}
	w := n.Attrs
	mtime := func(a Attrs) string {
		t := time.Unix(a.Sec, int64(a.Nsec)).UTC()
		if c.o.Granularity > 0 {
			t = t.Truncate(c.o.Granularity)
		}
		return t.Format(time.RFC3339Nano)
	}
	octal := func(m uint32) string { return fmt.Sprintf("%o", m&0o7777) }
	err := errors.Join(
		c.equal(path, "mode", octal(w.Mode), octal(f.Mode)),
		c.equal(path, "owner", fmt.Sprintf("%d:%d", w.UID, w.GID), fmt.Sprintf("%d:%d", f.UID, f.GID)),
		c.equal(path, "rdev", w.Rdev, f.Rdev),
		c.equal(path, "mtime", mtime(w), mtime(f.Attrs)),
		c.equal(path, "flags", fmt.Sprintf("%#x", w.Flags), fmt.Sprintf("%#x", f.Flags)),
		c.equal(path, "project", w.Project, f.Project))
	names := map[string]bool{}
	for name := range w.Xattrs {
		names[name] = true
	}
	for name := range f.Xattrs {
		names[name] = true
	}
	show := func(m map[string][]byte, name string) string {
		if v, ok := m[name]; ok {
			return fmt.Sprintf("%x", v)
		}
		return "none"
	}
	for name := range names {
		err = errors.Join(err, c.equal(path, "xattr "+name, show(w.Xattrs, name), show(f.Xattrs, name)))
	}
	return err
}

// links checks that the names of one object are one inode, and only they.
func (c *check) links(path string, n *Node, f facts) error {
	err := c.equal(path, "nlink", uint32(len(n.Places)), f.Nlink)
	if other := c.inode[f.Ino]; other != nil && other != n {
		err = errors.Join(err, c.differ(path, "link group", "an object of its own", fmt.Sprintf("a link of object %d", other.ID)))
	}
	if ino, ok := c.node[n]; ok && ino != f.Ino {
		err = errors.Join(err, c.differ(path, "link group", "a link", "an inode of its own"))
	}
	c.inode[f.Ino], c.node[n] = n, f.Ino
	return err
}

func (c *check) directory(fd int, path string, n *Node, dev [2]uint32) error {
	dir, err := os.Open(procPath(fd))
	if err != nil {
		return err
	}
	names, err := dir.Readdirnames(-1)
	if err = errors.Join(err, dir.Close()); err != nil {
		return fmt.Errorf("list %q: %w", path, err)
	}
	sort.Strings(names)
	there := map[string]bool{}
	for _, name := range names {
		there[name] = true
		if n.ID == RootID && ignored[name] {
			continue
		}
		e := n.Entries[name]
		if e == nil {
			if err := c.differ(path+"/"+name, "entry", "none", "one"); err != nil {
				return err
			}
			continue
		}
		if err := c.entry(fd, path+"/"+name, name, e, dev); err != nil {
			return err
		}
	}
	for name := range n.Entries {
		if !there[name] {
			if err := c.differ(path+"/"+name, "entry", "one", "none"); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *check) entry(dir int, path, name string, e *Node, dev [2]uint32) error {
	fd, err := unix.Openat(dir, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %q: %w", path, err)
	}
	defer unix.Close(fd)
	return c.object(fd, path, e, &dev)
}

// content compares a file's bytes with the model's.
func (c *check) content(fd int, path string, n *Node, f facts) error {
	if _, again := c.node[n]; again {
		return nil // another name of what was read already
	}
	io, err := reopen(fd, unix.O_RDONLY|unix.O_NOATIME)
	if err != nil {
		return fmt.Errorf("open %q: %w", path, err)
	}
	file := os.NewFile(uintptr(io), path)
	defer file.Close()
	if len(n.Pending) > 0 {
		return c.pending(file, path, n, f)
	}
	if err := c.equal(path, "size", n.Content.Size, f.Size); err != nil || n.Content.Size != f.Size {
		return err
	}
	for off := int64(0); off < f.Size; off += int64(len(c.want)) {
		k := min(int64(len(c.want)), f.Size-off)
		n.Content.Read(off, c.want[:k])
		if err := readAt(file, c.got[:k], off); err != nil {
			return err
		}
		if at := firstDifference(c.want[:k], c.got[:k]); at >= 0 {
			return c.differ(path, "content", fmt.Sprintf("%#02x at %d", c.want[at], off+int64(at)), fmt.Sprintf("%#02x", c.got[at]))
		}
	}
	return nil
}

// pending checks a file with unanswered operations: every byte is the old one or
// the new one of one of them.
func (c *check) pending(file *os.File, path string, n *Node, f facts) error {
	states := []Content{n.Content.Clone()}
	low, high := n.Content.Size, n.Content.Size
	for _, p := range n.Pending {
		if !p.Op.Kind.content() {
			continue
		}
		after := n.Content.Clone()
		applyContent(&after, &p.Src, p.Op, p.Op.Len)
		low, high = min(low, after.Size), max(high, after.Size)
		states = append(states, after)
	}
	if f.Size < low || f.Size > high {
		return c.differ(path, "size", fmt.Sprintf("%d to %d", low, high), f.Size)
	}
	for off := int64(0); off < f.Size; off += int64(len(c.got)) {
		k := min(int64(len(c.got)), f.Size-off)
		if err := readAt(file, c.got[:k], off); err != nil {
			return err
		}
		bad := make([]int, k)
		for i := range states {
			states[i].Read(off, c.want[:k])
			for b := range k {
				if c.want[b] != c.got[b] {
					bad[b]++
				}
			}
		}
		for b, count := range bad {
			if count == len(states) {
				return c.differ(path, "content", fmt.Sprintf("old or new at %d", off+int64(b)), fmt.Sprintf("%#02x", c.got[b]))
			}
		}
	}
	return nil
}

func readAt(f *os.File, buf []byte, off int64) error {
	if n, err := f.ReadAt(buf, off); n < len(buf) {
		if errors.Is(err, io.EOF) {
			return fmt.Errorf("read %q: shrank while it was read", f.Name())
		}
		return fmt.Errorf("read %q at %d: %w", f.Name(), off, err)
	}
	return nil
}

func firstDifference(a, b []byte) int {
	if bytes.Equal(a, b) {
		return -1
	}
	for i := range a {
		if a[i] != b[i] {
			return i
		}
	}
	return -1
}

// Summary joins differences for a message, the first few in full.
func Summary(found []Difference) string {
	var b strings.Builder
	for i, d := range found {
		if i == 20 {
			fmt.Fprintf(&b, "… and %d more\n", len(found)-i)
			break
		}
		fmt.Fprintln(&b, d)
	}
	return b.String()
}
