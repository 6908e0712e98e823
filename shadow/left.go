package shadow

import (
	"encoding/json"
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/fsmigrate/fsmigrate/copier"
	"github.com/fsmigrate/fsmigrate/formats"
)

// leftBehind are the objects that are not on `to` as they are on `from`, with the plan's
// consent: the target cannot hold them, or they cannot be read. The proof behind the fence
// counts each as waived (I5).
type leftBehind struct {
	mu      sync.Mutex
	m       map[Node]leftObject
	again   map[Node]leftObject // without consent, hence with a blocker: only how to try again
	crowded map[Node]struct{}
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

// retry remembers how to try again what has a blocker.
func (l *leftBehind) retry(n Node, o leftObject) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.again == nil {
		l.again = map[Node]leftObject{}
	}
	if len(l.again) < maxFailures { // those beyond it have no blocker of their own either
		l.again[n] = o
	}
}

func (l *leftBehind) remove(n Node) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.m, n)
	delete(l.again, n)
}

// place is how to try n again, whether it was left behind with consent or without.
func (l *leftBehind) place(n Node) (leftObject, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	o, ok := l.m[n]
	if !ok {
		o, ok = l.again[n]
	}
	return o, ok
}

// crowd remembers a file that has names without a counterpart: more than its limit.
func (l *leftBehind) crowd(n Node) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.crowded == nil {
		l.crowded = map[Node]struct{}{}
	}
	l.crowded[n] = struct{}{}
}

// thin reports whether n was such a file, once it fits again.
func (l *leftBehind) thin(n Node) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, was := l.crowded[n]
	delete(l.crowded, n)
	return was
}

// refused are the objects that have a blocker and no counterpart.
func (l *leftBehind) refused() []Node {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make([]Node, 0, len(l.again))
	for n := range l.again {
		out = append(out, n)
	}
	return out
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

const (
	// unreadable is an object that can be left behind: its name is known, and it alone is missing.
	unreadable = "source-unreadable"
	// unreachable is one that cannot: a directory that is not listed hides how many objects
	// are below it, and one that was there before may be what it was or not.
	unreachable = "source-unreachable"
)

func isUnread(class string) bool { return class == unreadable || class == unreachable }

// unfit leaves an object behind that fitted refused, when all its losses are waived; else it
// has a blocker, and on the way back that way is closed.
func (p *pair) unfit(d *dirTask, n Node, name string) error {
	if p.onLoss == nil && !p.fails.has(n) {
		p.left.add(n, leftObject{parent: d.node, name: name})
	} else {
		p.left.retry(n, leftObject{parent: d.node, name: name})
	}
	return nil
}

// crowded is for a directory that finds no place in d: ext without dir_nlink counts the
// directories in one as its links. It is tried again, since others may go.
func (p *pair) crowded(d *dirTask, n Node, name string) error {
	p.loseCrowded(d, n, name)
	return p.unfit(d, n, name)
}

// crowdedOut is crowded for one that has a counterpart, which stays where it is.
func (p *pair) crowdedOut(d *dirTask, n Node, name string) error {
	p.loseCrowded(d, n, name)
	p.left.retry(n, leftObject{parent: d.node, name: name})
	return nil
}

func (p *pair) loseCrowded(d *dirTask, n Node, name string) {
	d.crowded = append(d.crowded, crowdedName{n, name})
	p.lose(n, fdName{d.from, name}, formats.Loss{Class: formats.LossSubdirs,
		Why: "its directory has as many directories in it as the target allows"})
	p.againLater(n)
}

// tooManyLinks is for a further name of a file that `to` gives no more names. While
// `from` has no more than fit, the names that are too many here go when their directories are
// compared, and the name is placed then.
func (d *dirTask) tooManyLinks(n Node, name string) error {
	p := d.p
	src, err := p.from.open(n, unix.O_PATH|unix.O_NOFOLLOW)
	if vanished(err) {
		return nil
	}
	if err != nil {
		return p.sourceFailed(n, "open", err)
	}
	defer unix.Close(src)
	var st unix.Stat_t
	if err := unix.Fstat(src, &st); err != nil {
		return p.sourceFailed(n, "stat", err)
	}
	if uint64(st.Nlink) <= p.to.limits.MaxLinks {
		p.redo(d, name)
		return nil
	}
	p.lose(n, fdName{d.from, name}, formats.Loss{Class: formats.LossLinks,
		Why: fmt.Sprintf("the object has %d links, the limit is %d", st.Nlink, p.to.limits.MaxLinks)})
	p.left.crowd(n)
	return nil
}

// unread leaves a new object behind that could not be read, when that is waived.
func (p *pair) unread(d *dirTask, n Node, name string) {
	if p.waived != nil && p.waived(unreadable) {
		p.left.add(n, leftObject{parent: d.node, name: name})
	} else {
		p.left.retry(n, leftObject{parent: d.node, name: name})
	}
}

// outdated says that the counterpart of n is not what n is now. Nothing may go on claiming so:
// with consent n is left behind by name, as if it had never been copied. The old volume keeps
// its earlier state, which may be the last there is.
func (p *pair) outdated(n Node, rec *Record, waived bool) error {
	if waived && !p.back {
		return p.remake(n)
	}
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

// excused reports whether an entry of `from` may be missing on `to`: its object is left
// behind with consent, or has a blocker that names it.
func (p *pair) excused(dir int, name string) bool {
	n, err := p.from.codec.NodeAt(dir, name, 0)
	if err != nil {
		return false
	}
	_, left := p.left.place(n)
	return left || p.fails.has(n)
}

// The way back must not take away from the old volume what the new one never had: a name
// that is missing on the new truth was removed there, unless its object was left behind.
// So they are remembered before the switch record, durably.

// without are those that have no counterpart at all.
func (l *leftBehind) without() (out []Node) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for n, o := range l.m {
		if !o.record {
			out = append(out, n)
		}
	}
	return out
}

const keptKey = "left-behind"

// rememberLeft writes what was left behind on the way there. It is durable with the next
// durable write.
func (t *Tree) rememberLeft() error {
	var nodes []Node
	if t.there != nil {
		nodes = t.there.left.without()
	}
	b, err := json.Marshal(nodes)
	if err != nil {
		return fmt.Errorf("remember what was left behind: %w", err)
	}
	return t.store.SetMeta(keptKey, b, false)
}

func (t *Tree) loadKept() (map[Node]struct{}, error) {
	b, ok, err := t.store.Meta(keptKey)
	if err != nil || !ok {
		return nil, err
	}
	var nodes []Node
	if err := json.Unmarshal(b, &nodes); err != nil {
		return nil, fmt.Errorf("read what was left behind: %w", err)
	}
	kept := make(map[Node]struct{}, len(nodes))
	for _, n := range nodes {
		kept[n] = struct{}{}
	}
	return kept, nil
}

// keeps reports whether `to` has an entry by right that `from` never had.
func (p *pair) keeps(dir int, name string) bool {
	if len(p.kept) == 0 {
		return false
	}
	n, err := p.to.codec.NodeAt(dir, name, 0)
	if err != nil {
		return false
	}
	_, kept := p.kept[n]
	return kept
}

// retry has one object looked at again that was left behind; false when it is not known where.
func (p *pair) retry(n Node) bool {
	o, ok := p.left.place(n)
	switch {
	case !ok:
	case o.record:
		p.journal.Mark(n, Data|Attrs)
	default:
		p.names.add(o.parent, o.name)
		p.journal.Mark(o.parent, Entries)
	}
	return ok
}

// strangers are objects that a scan finds and nothing else knows. A new one is known as soon as
// its directory was compared; one that an earlier process left behind, or could not read, is not,
// since its directory has not changed. So the second scan that finds it has all directories compared,
// once: what then refuses it again remembers where it is.
type strangers struct {
	mu sync.Mutex
	m  map[Node]bool // whether directories were compared for it
}

const maxStrangers = 100_000

func (s *strangers) meet(n Node) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.m == nil {
		s.m = map[Node]bool{}
	}
	if _, met := s.m[n]; !met && len(s.m) < maxStrangers {
		s.m[n] = false
	}
}

// again reports whether n was met before and nothing was done about it yet.
func (s *strangers) again(n Node) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if done, met := s.m[n]; done || !met {
		return false
	}
	s.m[n] = true
	return true
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
	for _, n := range append(p.left.nodes(), p.left.refused()...) {
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
