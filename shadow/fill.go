package shadow

import (
	"context"
	"errors"
	"sort"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/fsmigrate/fsmigrate/copier"
)

// fill copies the entries of directory n into `to`, which is new: nothing needs
// to be compared. The entries are handled in chunks by whoever is free; the last one
// has the directory dressed.
func (p *pair) fill(ctx context.Context, w *worker, n, to Node) error {
	p.names.take(n) // names noted before now are covered by the listing below
	err := p.fillAll(ctx, w, n, to)
	if err != nil {
		p.names.allOf(n)
	}
	if errors.Is(err, errUnread) {
		return nil
	}
	return err
}

func (p *pair) fillAll(ctx context.Context, w *worker, n, to Node) error {
	from, err := p.from.open(n, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOATIME)
	if vanished(err) {
		return nil
	}
	if errors.Is(err, unix.ENOTDIR) {
		return p.remake(n)
	}
	if err != nil {
		return errors.Join(errUnread, p.sourceFailed(n, "open", err))
	}
	defer unix.Close(from)
	state, err := p.statDir(from, n)
	if err != nil {
		return errors.Join(errUnread, p.sourceFailed(n, "stat", err))
	}
	list, err := p.listing(from, w, n == p.from.root)
	if err != nil {
		return errors.Join(errUnread, p.sourceFailed(n, "list", err))
	}
	sort.Slice(list, func(i, j int) bool { return list[i].ino < list[j].ino })
	left := &entriesLeft{all: func() { p.settleDir(n, state) }}
	left.n.Store(int64((len(list) + chunk - 1) / chunk))
	if len(list) == 0 {
		p.settleDir(n, state)
		return nil
	}
	for len(list) > 0 {
		part := list[:min(chunk, len(list))]
		list = list[len(part):]
		run := func(ctx context.Context, w *worker) error {
			if err := p.fillChunk(ctx, w, n, to, part, left); err != nil {
				p.names.allOf(n)
				return err
			}
			left.done()
			return nil
		}
		if len(list) > 0 {
			w.push(run)
			continue
		}
		if err := run(ctx, w); err != nil {
			return err
		}
	}
	return nil
}

func (p *pair) fillChunk(ctx context.Context, w *worker, n, to Node, part []entry, left *entriesLeft) error {
	from, err := p.from.open(n, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOATIME)
	if vanished(err) {
		return nil
	}
	if err != nil {
		return p.sourceFailed(n, "open", err)
	}
	defer unix.Close(from)
	dst, err := p.to.open(to, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return &copier.TargetError{Op: "open directory", Off: -1, Err: err}
	}
	defer unix.Close(dst)
	d := &dirTask{p: p, node: n, from: from, to: dst, root: n == p.from.root, left: left}
	for len(part) > 0 {
		some := part[:min(p.atOnce, len(part))]
		part = part[len(some):]
		if err := d.fillSome(ctx, w, some); err != nil {
			return err
		}
	}
	return nil
}

// fillSome places entries whose files it has opened and started to read all at once.
func (d *dirTask) fillSome(ctx context.Context, w *worker, part []entry) (err error) {
	fds := w.files[:len(part)]
	for i := range part {
		fds[i] = -1
		if part[i].typ == unix.DT_REG {
			// What cannot be opened is found out, and said, when its turn comes.
			if fd, err := d.openFile(part[i].name); err == nil {
				fds[i] = fd
			}
		}
	}
	d.p.readAhead(w, fds)
	for i := range part {
		if err == nil {
			err = ctx.Err()
		}
		if err == nil {
			err = d.placeNew(ctx, w, &part[i], fds[i])
		}
		if fds[i] >= 0 {
			unix.Close(fds[i])
		}
	}
	return err
}

func (d *dirTask) openFile(name string) (int, error) {
	return copier.OpenBeneath(d.from, name, unix.O_RDONLY|unix.O_NOATIME|unix.O_NONBLOCK, 0)
}

// entriesLeft counts what is still to be done with the entries of a directory. Whoever
// does the last of it calls all; after an error nobody does, and the directory's record
// goes on saying that it is not equal.
type entriesLeft struct {
	n   atomic.Int64
	all func()
}

func (l *entriesLeft) done() {
	if l.n.Add(-1) == 0 {
		l.all()
	}
}

// largeFile is the size from which a file is copied by a task of its own: a few of
// them in one directory would else be copied one after the other.
const largeFile = 4 << 20

// later has the large file name of d placed by whoever is free. The directory counts as
// equal only when it is.
func (d *dirTask) later(w *worker, name string) {
	p, n, left := d.p, d.node, d.left
	left.n.Add(1)
	w.push(func(ctx context.Context, w *worker) error {
		if err := p.placeLarge(ctx, w, n, name); err != nil {
			p.names.allOf(n)
			return err
		}
		left.done()
		return nil
	})
}

func (p *pair) placeLarge(ctx context.Context, w *worker, n Node, name string) error {
	rec, known, err := p.nodes.Get(n)
	if err != nil || !known {
		return err
	}
	from, err := p.from.open(n, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOATIME)
	if vanished(err) {
		return nil // its parent's comparison takes the directory's name away
	}
	if err != nil {
		p.names.allOf(n)
		return p.sourceFailed(n, "open", err)
	}
	defer unix.Close(from)
	to, err := p.to.open(rec.To, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return &copier.TargetError{Op: "open directory", Off: -1, Err: err}
	}
	defer unix.Close(to)
	d := &dirTask{p: p, node: n, from: from, to: to, root: n == p.from.root}
	return d.place(ctx, w, name, unix.DT_REG)
}

// placeNew is place for a directory whose counterpart is new: its names are free. src is
// the file that has the name, or -1 when it is none or was not opened yet.
func (d *dirTask) placeNew(ctx context.Context, w *worker, e *entry, src int) error {
	if d.root && e.name == lostFound {
		return d.place(ctx, w, e.name, e.typ)
	}
	p := d.p
	var n Node
	var err error
	if src >= 0 {
		n, err = p.from.codec.NodeAt(src, "", 0)
	} else {
		n, err = p.from.codec.NodeAt(d.from, e.name, 0)
	}
	if vanished(err) {
		return nil
	}
	if err != nil {
		return d.place(ctx, w, e.name, e.typ)
	}
	l := p.lock(n)
	l.Lock()
	defer l.Unlock()
	rec, known, err := p.get(n)
	if err != nil {
		return err
	}
	if known {
		err := d.fetch(n, &rec, e.name)
		if errors.Is(err, unix.EEXIST) {
			p.redo(d, e.name)
			return nil
		}
		if !vanished(err) {
			return err
		}
		if err := p.drop(n); err != nil {
			return err
		}
	}
	if src >= 0 {
		return p.copyFile(ctx, w, d, n, e.name, src)
	}
	return p.create(ctx, w, d, n, e.name, e.typ)
}

// aheadMin is how many files are worth the system calls.
const aheadMin = 4

// readAhead starts reading files, so that the device sees few large requests.
func (p *pair) readAhead(w *worker, fds []int) {
	if len(fds) < aheadMin {
		return
	}
	if w.ahead == nil {
		if w.ahead = p.takeAhead(); w.ahead == nil {
			return
		}
	}
	w.ahead.Start(fds)
}
