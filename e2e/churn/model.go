package churn

import (
	"fmt"
	"maps"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// RootID is the id of the volume's root.
const RootID = 1

// Place is one name of an object.
type Place struct {
	Dir  *Node
	Name string
}

// Node is an object as the volume acknowledged it.
type Node struct {
	ID      int64
	Type    uint32 // S_IFMT; never changes
	Attrs   Attrs
	Content Content
	Target  string
	Entries map[string]*Node // a directory's
	Places  []Place          // its names; the root has none, an unlinked object neither
	Pending []Pending        // operations on it that may have happened or not

	mu   sync.Mutex
	held *handle // the live churn's open descriptor or mapping
	at   int     // index in its list of the model
}

func (n *Node) isDir() bool     { return n.Type == unix.S_IFDIR }
func (n *Node) isFile() bool    { return n.Type == unix.S_IFREG }
func (n *Node) isSymlink() bool { return n.Type == unix.S_IFLNK }

// Pending is an operation that may have happened, with what it would have copied.
type Pending struct {
	Op  *Op
	Src Content
}

// Model is what the volume must hold.
type Model struct {
	tree  sync.RWMutex
	nodes map[int64]*Node
	lists [3][]*Node // directories, files, others: for random picks
	root  *Node
	next  int64
}

// NewModel is an empty volume.
func NewModel() *Model {
	root := &Node{ID: RootID, Type: unix.S_IFDIR, Entries: map[string]*Node{}, Attrs: Attrs{Mode: unix.S_IFDIR}}
	m := &Model{nodes: map[int64]*Node{}, root: root, next: RootID + 1}
	m.add(root)
	return m
}

func (n *Node) list() int {
	switch {
	case n.isDir():
		return 0
	case n.isFile():
		return 1
	}
	return 2
}

func (m *Model) add(n *Node) {
	m.nodes[n.ID] = n
	l := n.list()
	n.at = len(m.lists[l])
	m.lists[l] = append(m.lists[l], n)
	m.next = max(m.next, n.ID+1)
}

func (m *Model) remove(n *Node) {
	delete(m.nodes, n.ID)
	l := n.list()
	last := len(m.lists[l]) - 1
	m.lists[l][n.at] = m.lists[l][last]
	m.lists[l][n.at].at = n.at
	m.lists[l] = m.lists[l][:last]
}

// Objects counts the objects below the root.
func (m *Model) Objects() int {
	m.tree.RLock()
	defer m.tree.RUnlock()
	return len(m.nodes) - 1
}

func (m *Model) attach(dir *Node, name string, n *Node) {
	dir.Entries[name] = n
	n.Places = append(n.Places, Place{dir, name})
}

func (m *Model) detach(dir *Node, name string) {
	n := dir.Entries[name]
	if n == nil {
		return
	}
	delete(dir.Entries, name)
	n.Places = slices.DeleteFunc(n.Places, func(p Place) bool { return p.Dir == dir && p.Name == name })
	if len(n.Places) == 0 {
		m.remove(n)
	}
}

// Apply applies an acknowledged operation. The caller holds the locks that the
// operation needs; a replay is alone and holds none.
func (m *Model) Apply(op *Op, r *Result) error {
	if r.Err != "" && !r.Unsure {
		return nil
	}
	switch {
	case op.Kind == Quiesce:
		return nil
	case op.Kind.content(), op.Kind.attribute():
		// Gone meanwhile: unlinked while the write was in flight.
		if n := m.nodes[op.Node]; n != nil {
			applyTo(n, m.nodes[op.From], op, r)
		}
		return nil
	}
	if err := m.applyName(op); err != nil {
		return fmt.Errorf("apply operation %d, %s: %w", op.N, op.Kind, err)
	}
	for id, a := range r.Attrs {
		if n := m.nodes[id]; n != nil {
			n.Attrs = a
		}
	}
	return nil
}

// applyTo applies an operation on one object.
func applyTo(n, from *Node, op *Op, r *Result) {
	if r.Unsure {
		p := Pending{Op: op}
		if from != nil {
			p.Src = from.Content.Clone()
		}
		n.Pending = append(n.Pending, p)
		return
	}
	if op.Kind.content() {
		var src *Content
		if from != nil {
			src = &from.Content
		}
		applyContent(&n.Content, src, op, r.Done)
	}
	if a, ok := r.Attrs[n.ID]; ok {
		n.Attrs = a
	}
}

// applyContent applies op to c as far as done bytes of it.
func applyContent(c, src *Content, op *Op, done int64) {
	switch op.Kind {
	case Write, Direct, Store:
		c.Write(op.Off, done, op.Seed)
	case Truncate:
		c.Truncate(op.Len)
	case Punch:
		c.Zero(op.Off, op.Off+op.Len)
	case ZeroOut:
		c.Zero(op.Off, op.Off+op.Len)
		c.Size = max(c.Size, op.Off+op.Len)
	case Allocate:
		c.Size = max(c.Size, op.Off+op.Len)
	case CopyIn:
		if src != nil {
			c.CopyFrom(src, op.At, op.Off, done)
		}
	case Clone:
		if src != nil {
			*c = src.Clone()
		}
	}
}

func (m *Model) applyName(op *Op) error {
	if op.Kind == Open {
		return nil
	}
	dir, to := m.nodes[op.Dir], m.nodes[op.ToDir]
	if dir == nil || (op.ToDir != 0 && to == nil) {
		return fmt.Errorf("no directory %d or %d", op.Dir, op.ToDir)
	}
	name, toName := string(op.Name), string(op.ToName)
	switch op.Kind {
	case Create, Mkdir, Symlink, Mknod, Tmpfile:
		n := &Node{ID: op.Node, Type: op.Mode & unix.S_IFMT, Attrs: Attrs{Mode: op.Mode}, Target: string(op.Value)}
		if op.Kind == Symlink {
			n.Content.Size = int64(len(op.Value))
		} else if op.Kind == Mkdir {
			n.Entries = map[string]*Node{}
		} else if op.Len > 0 {
			n.Content.Write(0, op.Len, op.Seed)
		}
		m.add(n)
		m.attach(dir, name, n)
	case Link:
		n := m.nodes[op.Node]
		if n == nil {
			return fmt.Errorf("no object %d", op.Node)
		}
		m.attach(dir, name, n)
	case Unlink, Rmdir:
		if dir.Entries[name] == nil {
			return fmt.Errorf("no entry %q in %d", name, op.Dir)
		}
		m.detach(dir, name)
	case Rename, Exchange:
		return m.applyRename(op.Kind, dir, to, name, toName)
	default:
		return fmt.Errorf("unknown kind %q", op.Kind)
	}
	return nil
}

func (m *Model) applyRename(kind Kind, dir, to *Node, name, toName string) error {
	n, victim := dir.Entries[name], to.Entries[toName]
	if n == nil || (kind == Exchange && victim == nil) {
		return fmt.Errorf("no entry %q or %q", name, toName)
	}
	if n == victim {
		return nil // two links of one file: rename(2) does nothing
	}
	if kind == Exchange {
		dir.Entries[name], to.Entries[toName] = victim, n
		move(victim, Place{to, toName}, Place{dir, name})
		move(n, Place{dir, name}, Place{to, toName})
		return nil
	}
	if victim != nil {
		m.detach(to, toName)
	}
	delete(dir.Entries, name)
	to.Entries[toName] = n
	move(n, Place{dir, name}, Place{to, toName})
	return nil
}

func move(n *Node, from, to Place) {
	for i := range n.Places {
		if n.Places[i] == from {
			n.Places[i] = to
			return
		}
	}
}

// Attrs are an object's attributes as they were read back.
type Attrs struct {
	Mode    uint32            `json:"m"`
	UID     uint32            `json:"u,omitempty"`
	GID     uint32            `json:"g,omitempty"`
	Rdev    uint64            `json:"r,omitempty"`
	Sec     int64             `json:"s,omitempty"`
	Nsec    uint32            `json:"ns,omitempty"`
	Flags   uint32            `json:"f,omitempty"`
	Project uint32            `json:"p,omitempty"`
	Xattrs  map[string][]byte `json:"x,omitempty"`
}

// Equal compares all of them.
func (a Attrs) Equal(b Attrs) bool {
	eq := maps.EqualFunc(a.Xattrs, b.Xattrs, func(x, y []byte) bool { return string(x) == string(y) })
	a.Xattrs, b.Xattrs = nil, nil
	return eq && fmt.Sprint(a) == fmt.Sprint(b)
}
