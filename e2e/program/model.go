package program

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
)

// The types of objects.
const (
	file      = "file"
	directory = "directory"
	symlink   = "symlink"
)

// object is what the program knows of an object without looking.
type object struct {
	kind    string
	size    int64
	stamped bool // its mtime was set, and nothing changed it since
}

// model is what a worker's part of the volume holds after so many operations, as far as
// the next ones depend on it.
type model struct {
	worker, done int
	at           map[string]*object // by path; the names of one file share one
}

func newModel(worker int) *model { return &model{worker: worker, at: map[string]*object{}} }

// sorted are the paths of a type; of all for "".
func (m *model) sorted(kind string) []string {
	paths := slices.Sorted(maps.Keys(m.at))
	if kind == "" {
		return paths
	}
	return slices.DeleteFunc(paths, func(p string) bool { return m.at[p].kind != kind })
}

func (m *model) empty(dir string) bool {
	for p := range m.at {
		if strings.HasPrefix(p, dir+"/") {
			return false
		}
	}
	return true
}

// fails says that a sound volume refuses an operation, and how.
func (m *model) fails(o Op) string {
	switch {
	case o.Kind == Create && m.at[o.Path] != nil:
		return "EEXIST"
	case o.Kind == Rmdir && !m.empty(o.Path):
		return "ENOTEMPTY"
	case o.Kind == Rename && strings.HasPrefix(o.To, o.Path+"/"):
		return "EINVAL"
	case o.Kind == Missing:
		return "ENOENT"
	}
	return ""
}

// apply does an operation to the model.
func (m *model) apply(o Op) {
	m.done++
	if m.fails(o) != "" {
		return
	}
	obj := m.at[o.Path]
	switch o.Kind {
	case Create, Mkdir, Symlink:
		kind := map[Kind]string{Create: file, Mkdir: directory, Symlink: symlink}[o.Kind]
		m.at[o.Path] = &object{kind: kind, size: o.Len}
		m.touch(path.Dir(o.Path))
	case Link:
		m.at[o.To] = obj
		m.touch(path.Dir(o.To))
	case Unlink, Rmdir:
		delete(m.at, o.Path)
		m.touch(path.Dir(o.Path))
	case Rename:
		m.rename(o.Path, o.To)
	case Exchange:
		m.at[o.Path], m.at[o.To] = m.at[o.To], obj
		m.touch(path.Dir(o.Path))
		m.touch(path.Dir(o.To))
	case Write, Append:
		obj.size, obj.stamped = max(obj.size, o.Off+o.Len), false
	case Store, Punch:
		obj.stamped = false
	case Truncate:
		obj.size, obj.stamped = o.Len, false
	case Copy: // the whole of the other, to the same place
		obj.size, obj.stamped = max(obj.size, m.at[o.To].size), false
	case Utimes:
		obj.stamped = true
	}
}

func (m *model) touch(dir string) {
	if d := m.at[dir]; d != nil {
		d.stamped = false
	}
}

// rename moves an object, and what is below it.
func (m *model) rename(from, to string) {
	m.at[to] = m.at[from]
	delete(m.at, from)
	for _, p := range m.sorted("") {
		if rest, below := strings.CutPrefix(p, from+"/"); below {
			m.at[to+"/"+rest] = m.at[p]
			delete(m.at, p)
		}
	}
	m.touch(path.Dir(from))
	m.touch(path.Dir(to))
	if m.at[to].kind == directory && path.Dir(from) != path.Dir(to) {
		m.at[to].stamped = false // its ".." changed: a format may count that
	}
}

// replay brings a model to the state after so many operations.
func replay(seed uint64, worker, done int) (*model, error) {
	m := newModel(worker)
	for m.done < done {
		o := next(seed, m)
		if o.Kind == "" {
			return nil, fmt.Errorf("operation %d of worker %d is none", o.N, worker)
		}
		m.apply(o)
	}
	return m, nil
}
