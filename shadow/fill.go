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
	if vanished(err) || errors.Is(err, unix.ENOTDIR) {
		return nil
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
	left := new(atomic.Int64)
	left.Store(int64((len(list) + chunk - 1) / chunk))
	if len(list) == 0 {
		p.settleDir(n, state)
		return nil
	}
	for len(list) > 0 {
		part := list[:min(chunk, len(list))]
		list = list[len(part):]
		run := func(ctx context.Context, w *worker) error {
			if err := p.fillChunk(ctx, w, n, to, part); err != nil {
				p.names.allOf(n)
				return err
			}
			if left.Add(-1) == 0 {
				p.settleDir(n, state)
			}
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

func (p *pair) fillChunk(ctx context.Context, w *worker, n, to Node, part []entry) error {
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
	d := &dirTask{p: p, node: n, from: from, to: dst, root: n == p.from.root}
	for i := range part {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := d.placeNew(ctx, w, &part[i]); err != nil {
			return err
		}
	}
	return nil
}

// placeNew is place for a directory whose counterpart is new: its names are free.
func (d *dirTask) placeNew(ctx context.Context, w *worker, e *entry) error {
	if d.root && e.name == lostFound {
		return d.place(ctx, w, e.name, e.typ)
	}
	p := d.p
	n, err := p.from.codec.NodeAt(d.from, e.name, 0)
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
	return p.create(ctx, w, d, n, e.name, e.typ)
}
