package pledge

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"slices"
)

// Type is what is at a path.
type Type string

// The types.
const (
	File      Type = "file"
	Directory Type = "directory"
	Symbolic  Type = "symlink"
)

// Node is what is at a path. It is never changed, but replaced.
type Node struct {
	Type   Type
	Data   []byte // of a file; the text of a symlink
	Mode   uint32
	Xattr  string
	Object string // the same for all names of one file
}

// Model is what a worker's part of the volume holds after so many operations.
type Model struct {
	Worker, Done int
	Nodes        map[string]Node
}

// NewModel is a worker's model before its first operation.
func NewModel(worker int) *Model { return &Model{Worker: worker, Nodes: map[string]Node{}} }

// Clone is a copy that can be changed on its own.
func (m *Model) Clone() *Model {
	return &Model{Worker: m.Worker, Done: m.Done, Nodes: maps.Clone(m.Nodes)}
}

// Apply does an operation to the model.
func (m *Model) Apply(o Op) error {
	if o.Worker != m.Worker || o.N != m.Done+1 {
		return fmt.Errorf("operation %v follows number %d of worker %d", o, m.Done, m.Worker)
	}
	m.Done++
	old, there := m.Nodes[o.Path]
	switch o.Kind {
	case Mkdir:
		m.Nodes[o.Path] = Node{Type: Directory, Mode: 0o755}
		return nil
	case Symlink:
		m.Nodes[o.Path] = Node{Type: Symbolic, Data: []byte(o.To)}
		return nil
	case Create:
		m.Nodes[o.Path] = Node{Type: File, Mode: 0o644, Object: o.Path, Data: append(make([]byte, o.Off), o.data()...)}
		return nil
	}
	if !there {
		return fmt.Errorf("operation %v: there is no such path", o)
	}
	switch o.Kind {
	case Unlink:
		delete(m.Nodes, o.Path)
	case Rename:
		delete(m.Nodes, o.Path)
		m.Nodes[o.To] = old
	case Link:
		m.Nodes[o.To] = old
	case Replace: // the other names keep the old one; a name of its own tells the objects apart
		m.Nodes[o.Path] = Node{Type: File, Mode: 0o644, Object: fmt.Sprintf("%s#%d", o.Path, o.N), Data: o.data()}
	default:
		m.change(old, o)
	}
	return nil
}

// change replaces what an operation on content or attributes changed, under all names.
func (m *Model) change(old Node, o Op) {
	n := old
	switch o.Kind {
	case Append, Overwrite, Store:
		n.Data = slices.Clone(old.Data)
		if grow := o.Off + o.Len - int64(len(n.Data)); grow > 0 {
			n.Data = append(n.Data, make([]byte, grow)...)
		}
		copy(n.Data[o.Off:], o.data())
	case Truncate:
		n.Data = slices.Clone(old.Data[:min(o.Len, int64(len(old.Data)))])
		n.Data = append(n.Data, make([]byte, o.Len-int64(len(n.Data)))...)
	case Attr:
		n.Mode, n.Xattr = o.mode(), o.xattr()
	}
	for p, other := range m.Nodes {
		if other.Type == File && other.Object == old.Object {
			m.Nodes[p] = n
		}
	}
}

// names are all names of the object at a path.
func (m *Model) names(p string) (all []string) {
	n, ok := m.Nodes[p]
	if !ok || n.Type != File {
		return []string{p}
	}
	for other, o := range m.Nodes {
		if o.Type == File && o.Object == n.Object {
			all = append(all, other)
		}
	}
	return all
}

// ReadLog reads the operations of each worker from the log. A last line that was cut
// off is of an operation that did not begin.
func ReadLog(name string) (byWorker [][]Op, err error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	r := bufio.NewReader(f)
	for {
		line, err := r.ReadBytes('\n')
		if err == io.EOF {
			return byWorker, nil
		}
		if err != nil {
			return nil, err
		}
		var o Op
		if err := json.Unmarshal(line, &o); err != nil {
			return nil, fmt.Errorf("%s: %w: %s", path.Base(name), err, line)
		}
		for len(byWorker) <= o.Worker {
			byWorker = append(byWorker, nil)
		}
		byWorker[o.Worker] = append(byWorker[o.Worker], o)
	}
}
