package statedir

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// memFS is a file system that forgets what was not synced, and fails or dies at
// the k-th call.
type memFS struct {
	root  *node
	calls int
	at    int
	mode  string // fail, fail-after, die
	fired string // the call at which it happened
}

type node struct {
	data, synced    []byte
	entries, stable map[string]*node // of a directory; nil: a file
}

type died struct{}

var errDisk = errors.New("injected I/O error")

func newMemFS() *memFS {
	return &memFS{root: &node{entries: map[string]*node{}, stable: map[string]*node{}}, at: -1}
}

// call counts one call. The func ends it.
func (m *memFS) call(name string) (done func(error) error, err error) {
	k := m.calls
	m.calls++
	done = func(err error) error { return err }
	if k != m.at || m.fired != "" {
		return done, nil
	}
	m.fired = name
	switch m.mode {
	case "fail":
		return nil, fmt.Errorf("%s: %w", name, errDisk)
	case "fail-after":
		return func(error) error { return fmt.Errorf("%s: %w", name, errDisk) }, nil
	default:
		panic(died{})
	}
}

// powerCut is what is there after it: of what was not synced, rng decides.
func (m *memFS) powerCut(rng *rand.Rand) *memFS {
	n := newMemFS()
	n.root = m.root.survive(rng, map[*node]*node{})
	return n
}

func (n *node) survive(rng *rand.Rand, seen map[*node]*node) *node {
	if n == nil {
		return nil
	}
	if c, ok := seen[n]; ok {
		return c
	}
	c := &node{}
	seen[n] = c
	if n.entries == nil {
		c.data = n.synced
		if len(n.data) > len(n.synced) {
			c.data = n.data[:len(n.synced)+rng.IntN(len(n.data)-len(n.synced)+1)]
		}
		c.data = slices.Clone(c.data)
		c.synced = c.data
		return c
	}
	c.entries, c.stable = map[string]*node{}, map[string]*node{}
	names := map[string]bool{}
	for name := range n.entries {
		names[name] = true
	}
	for name := range n.stable {
		names[name] = true
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		from := n.stable
		if rng.IntN(2) == 0 {
			from = n.entries
		}
		if child := from[name].survive(rng, seen); child != nil {
			c.entries[name], c.stable[name] = child, child
		}
	}
	return c
}

func (m *memFS) find(path string) *node {
	n := m.root
	for _, part := range strings.Split(strings.Trim(path, "/"), "/") {
		if part == "" {
			continue
		}
		if n == nil || n.entries == nil {
			return nil
		}
		n = n.entries[part]
	}
	return n
}

func (m *memFS) parent(path string) (map[string]*node, string, error) {
	dir := m.find(filepath.Dir(path))
	if dir == nil || dir.entries == nil {
		return nil, "", notExist(path)
	}
	return dir.entries, filepath.Base(path), nil
}

func notExist(path string) error { return &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist} }
func existing(path string) error { return &fs.PathError{Op: "link", Path: path, Err: fs.ErrExist} }

type memFile struct {
	fs *memFS
	n  *node
}

func (f memFile) Write(p []byte) (int, error) {
	done, err := f.fs.call("write")
	if err != nil {
		f.n.data = append(f.n.data, p[:len(p)/2]...) // a short write
		return len(p) / 2, err
	}
	f.n.data = append(f.n.data, p...)
	return len(p), done(nil)
}

func (f memFile) Sync() error {
	done, err := f.fs.call("sync")
	if err != nil {
		return err
	}
	f.n.synced = slices.Clone(f.n.data)
	return done(nil)
}

func (f memFile) Close() error { return nil }

func (m *memFS) create(path string) (file, error) {
	done, err := m.call("create " + path)
	if err != nil {
		return nil, err
	}
	dir, name, err := m.parent(path)
	if err != nil {
		return nil, err
	}
	if dir[name] != nil {
		return nil, existing(path)
	}
	dir[name] = &node{}
	return memFile{m, dir[name]}, done(nil)
}

func (m *memFS) appendTo(path string) (file, error) {
	done, err := m.call("append " + path)
	if err != nil {
		return nil, err
	}
	dir, name, err := m.parent(path)
	if err != nil {
		return nil, err
	}
	if dir[name] == nil {
		dir[name] = &node{}
	}
	return memFile{m, dir[name]}, done(nil)
}

func (m *memFS) read(path string) ([]byte, error) {
	n := m.find(path)
	if n == nil {
		return nil, notExist(path)
	}
	return slices.Clone(n.data), nil
}

func (m *memFS) list(path string) ([]string, error) {
	n := m.find(path)
	if n == nil {
		return nil, notExist(path)
	}
	return slices.Sorted(maps.Keys(n.entries)), nil
}

func (m *memFS) mkdir(path string) error {
	done, err := m.call("mkdir")
	if err != nil {
		return err
	}
	dir, name, err := m.parent(path)
	if err != nil {
		return err
	}
	dir[name] = &node{entries: map[string]*node{}, stable: map[string]*node{}}
	return done(nil)
}

func (m *memFS) rename(from, to string) error {
	done, err := m.call("rename " + to)
	if err != nil {
		return err
	}
	a, an, err := m.parent(from)
	if err != nil {
		return err
	}
	b, bn, err := m.parent(to)
	if err != nil {
		return err
	}
	if old := b[bn]; old != nil && len(old.entries) > 0 {
		return &fs.PathError{Op: "rename", Path: to, Err: syscall.ENOTEMPTY}
	}
	b[bn] = a[an]
	delete(a, an)
	return done(nil)
}

func (m *memFS) link(from, to string) error {
	done, err := m.call("link " + to)
	if err != nil {
		return err
	}
	a, an, err := m.parent(from)
	if err != nil {
		return err
	}
	b, bn, err := m.parent(to)
	if err != nil {
		return err
	}
	if b[bn] != nil {
		return existing(to)
	}
	b[bn] = a[an]
	return done(nil)
}

func (m *memFS) remove(path string) error {
	done, err := m.call("remove")
	if err != nil {
		return err
	}
	dir, name, err := m.parent(path)
	if err != nil {
		return err
	}
	delete(dir, name)
	return done(nil)
}

func (m *memFS) syncDir(path string) error {
	done, err := m.call("sync directory " + path)
	if err != nil {
		return err
	}
	n := m.find(path)
	if n == nil {
		return notExist(path)
	}
	n.stable = maps.Clone(n.entries)
	return done(nil)
}
