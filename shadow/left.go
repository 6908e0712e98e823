package shadow

import (
	"errors"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/fsmigrate/fsmigrate/copier"
)

// leftBehind are the objects that are not on `to` as they are on `from`, with the plan's
// consent: the target cannot hold them, or they cannot be read. The proof behind the fence
// counts each as waived (I5).
type leftBehind struct {
	mu sync.Mutex
	m  map[Node]leftObject
}

// leftObject says how to try again: by its name, when it has no counterpart.
type leftObject struct {
	parent Node
	name   string
	record bool // the node map has it; what is on `to` is an earlier state
}

func (l *leftBehind) add(n Node, o leftObject) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.m == nil {
		l.m = map[Node]leftObject{}
	}
	l.m[n] = o
}

func (l *leftBehind) remove(n Node) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.m, n)
}

func (l *leftBehind) get(n Node) (leftObject, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	o, ok := l.m[n]
	return o, ok
}

func (l *leftBehind) nodes() []Node {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make([]Node, 0, len(l.m))
	for n := range l.m {
		out = append(out, n)
	}
	return out
}

// len is how many there are, and how many of them have no record.
func (l *leftBehind) len() (all, without int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, o := range l.m {
		if !o.record {
			without++
		}
	}
	return int64(len(l.m)), without
}

const unreadable = "source-unreadable"

// unfit leaves an object behind that fitted refused, when all its losses are waived; else it
// has a blocker, and on the way back that way is closed.
func (p *pair) unfit(d *dirTask, n Node, name string) error {
	if p.onLoss == nil && !p.fails.has(n) {
		p.left.add(n, leftObject{parent: d.node, name: name})
	}
	return nil
}

// unread leaves a new object behind whose content could not be read, when that is waived.
func (p *pair) unread(d *dirTask, n Node, name string) {
	if p.waived != nil && p.waived(unreadable) {
		p.left.add(n, leftObject{parent: d.node, name: name})
	}
}

// outdated says that the counterpart of n is not what n is now. Nothing may go on claiming so.
func (p *pair) outdated(n Node, rec *Record, waived bool) error {
	p.unverify(rec)
	rec.Print = 0
	p.prints.Set(n.Ino, 0)
	if waived {
		p.left.add(n, leftObject{record: true})
	}
	return p.nodes.Put(n, rec)
}

// discardPart removes what was written of a file that could not be read to its end: a part
// under the file's name would be taken for it.
func (p *pair) discardPart(d *dirTask, name string) error {
	if err := p.touch("unlink"); err != nil {
		return err
	}
	if err := unix.Unlinkat(d.to, name, 0); err != nil && !errors.Is(err, unix.ENOENT) {
		return &copier.TargetError{Op: "remove " + name, Off: -1, Err: err}
	}
	return nil
}

// retry has one object looked at again that was left behind.
func (p *pair) retry(n Node) {
	o, ok := p.left.get(n)
	switch {
	case !ok:
	case o.record:
		p.journal.Mark(n, Data|Attrs)
	default:
		p.names.add(o.parent, o.name)
		p.journal.Mark(o.parent, Entries)
	}
}

// pruneGone forgets what was wrong with objects that exist no more.
func (p *pair) pruneGone() {
	gone := func(n Node) bool {
		fd, err := p.from.open(n, unix.O_PATH|unix.O_NOFOLLOW)
		if err != nil {
			return vanished(err)
		}
		defer unix.Close(fd)
		var st unix.Stat_t
		return unix.Fstat(fd, &st) == nil && st.Nlink == 0
	}
	for _, n := range p.left.nodes() {
		if gone(n) {
			p.left.remove(n)
		}
	}
	for _, n := range p.fails.nodes() {
		if gone(n) {
			p.fails.clearNode(n, func(string) bool { return true })
		}
	}
}
