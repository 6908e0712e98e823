package shadow

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fsmigrate/fsmigrate/copier"
	"github.com/fsmigrate/fsmigrate/migrate"
)

// Fence is Subject.Fence.
func (t *Tree) Fence(ctx context.Context, to migrate.Side) error {
	t.mu.Lock()
	p, err := t.pairNow(ctx)
	t.mu.Unlock()
	if err != nil {
		return err
	}
	if p == nil {
		return fmt.Errorf("fence: the way to the %s is given up: %s", to, t.WayBack(ctx).Why)
	}
	if p.back != (to == migrate.Source) {
		return fmt.Errorf("fence: the way to the %s is not prepared", to)
	}
	err = t.place.Fence(ctx, to.Other())
	if errors.Is(err, errSourceSync) {
		return t.told(p.lostSync(err))
	}
	return err
}

// Ready is migrate.Readier's.
func (t *Tree) Ready(_ context.Context, to migrate.Side) error { return t.place.Ready(to.Other()) }

// FencedAt is migrate.Fencer's.
func (t *Tree) FencedAt() time.Time { return t.place.FencedAt() }

// Drain is Subject.Drain.
func (t *Tree) Drain(ctx context.Context, to migrate.Side) (migrate.Proof, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.active()
	if p == nil {
		return migrate.Proof{}, errNotPrepared
	}
	if w := t.watches[to.Other()]; w != nil {
		if err := w.Barrier(ctx); err != nil {
			return migrate.Proof{}, fmt.Errorf("drain the watch: %w", err)
		}
	}
	proof, err := p.drain(ctx)
	if err != nil {
		return proof, t.told(err)
	}
	return proof, t.told(p.checkpoint(ctx))
}

// SwapIn is Subject.SwapIn.
func (t *Tree) SwapIn(ctx context.Context, to migrate.Side) error { return t.place.SwapIn(ctx, to) }

// Settle is Subject.Settle.
func (t *Tree) Settle(ctx context.Context, truth migrate.Side) error {
	if err := t.settlePlace(ctx, truth); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case truth == migrate.Source && t.there != nil:
		// A cutover was undone: go on as before, and forget the follower of the other side.
		err := t.unwatch(migrate.Shadow)
		if t.back != nil {
			t.back.shut()
			t.setPairs(t.there, nil)
		}
		return errors.Join(err, t.unfence(t.there))
	case truth == migrate.Shadow && t.there != nil:
		err := t.unwatch(migrate.Source)
		t.there.shut()
		t.setPairs(nil, t.back)
		return err
	case truth == migrate.Shadow && t.back != nil && t.back.ready.Load():
		return t.unfence(t.back) // a rollback was undone
	}
	return nil
}

func (t *Tree) settlePlace(ctx context.Context, truth migrate.Side) error {
	if t.o.Lock != nil {
		unlock, err := t.o.Lock(ctx)
		if err != nil {
			return err
		}
		defer unlock()
	}
	return t.place.Settle(ctx, truth)
}

// unfence goes on after a fence that was undone. What was read behind it within a
// stamp's granularity is read again later.
func (t *Tree) unfence(p *pair) error {
	if !p.fenced {
		return nil
	}
	p.fenced = false
	return nil
}

// builtKey says that the node map of the way back was made.
const builtKey = "back-built"

// Follow is Subject.Follow: the watch of the new truth starts while it is still
// read-only, so that its first change is heard.
func (t *Tree) Follow(ctx context.Context, to migrate.Side) error {
	if to == migrate.Shadow {
		return nil // after a rollback the migration has ended
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.openStore(); err != nil {
		return err
	}
	if err := t.store.Drop('r'); err != nil { // of an attempt that was undone
		return err
	}
	if err := errors.Join(t.rememberLeft(), t.store.SetMeta(builtKey, nil, true)); err != nil { // and the witness with it
		return err
	}
	return t.listen(ctx)
}

// listen starts the watch of the new truth into the journal of the way back.
func (t *Tree) listen(ctx context.Context) error {
	from, err := t.volume(ctx, migrate.Shadow, false)
	if err != nil {
		return err
	}
	p, err := t.newPair(from, nil, 'r')
	if err != nil {
		unix.Close(from.fd)
		return err
	}
	p.back = true
	p.onLoss = t.wayBack.lose
	if err := t.watch(migrate.Shadow, from, p); err != nil {
		p.shut()
		return err
	}
	t.setPairs(t.there, p)
	return nil
}

// prepareBack opens the old volume for reverse writes, and makes the node map of the way
// back when there is none yet.
func (t *Tree) prepareBack(ctx context.Context) error {
	if t.back != nil && t.back.ready.Load() {
		return nil
	}
	if t.back == nil {
		if err := t.listen(ctx); err != nil {
			return err
		}
	}
	p := t.back
	to, err := t.volume(ctx, migrate.Source, true)
	if err != nil {
		return fmt.Errorf("the old volume cannot follow: %w", err)
	}
	p.to = to
	p.kept, err = t.loadKept()
	if err == nil {
		err = t.turnAround(ctx, p)
	}
	if err != nil {
		p.close()
		p.to = nil
		unix.Close(to.fd)
		return err
	}
	p.verifies.Store(true)
	p.ready.Store(true)
	t.setPairs(nil, p)
	return nil
}

// turnAround gives the way back its node map, or what is durable of it.
func (t *Tree) turnAround(ctx context.Context, p *pair) error {
	built, _, err := t.store.Meta(builtKey)
	if err != nil {
		return err
	}
	if len(built) == 0 {
		proven, err := t.store.committedUnder('f')
		if err == nil {
			err = p.buildFrom(ctx, t.store.Map('f'), proven != t.boot)
		}
		if err != nil {
			return err
		}
		if err := t.store.SetMeta(builtKey, []byte("1"), true); err != nil {
			return err
		}
	} else if !p.loaded {
		if err := t.recover(p); err != nil {
			return err
		}
	}
	p.loaded = true
	if err := p.openLimbo(); err != nil {
		return err
	}
	return p.begin()
}

// buildFrom makes the node map of the way back by turning the one of the way there
// around: at the fence both sides were proven equal. What is not as the swap's witness
// saw it is dirty, also if it was changed through a mapping. After a power cut since then the
// witness knows the inodes only, and what the files hold is read again.
func (p *pair) buildFrom(ctx context.Context, there *NodeMap, cut bool) error {
	if err := p.syncFrom(); err != nil {
		return err
	}
	if err := p.baseline(ctx); err != nil {
		return err
	}
	b := p.nodes.Batch()
	defer b.Close()
	epoch := p.epoch.Load()
	p.verified.Store(0) // an attempt that failed may have counted some
	err := there.Iterate(func(n Node, r *Record) error {
		rec := Record{To: n, Type: r.Type, Flags: r.Flags &^ Racy, Epoch: epoch, Print: p.prints.Get(r.To.Ino),
			Size: r.Size, Digest: r.Digest}
		if rec.Flags&Verified != 0 {
			p.verified.Add(1)
		}
		if rec.Flags&NoDigest != 0 {
			p.prints.Set(r.To.Ino, 0) // it is copied back, and has a digest then
			rec.Print = 0
		}
		if err := b.Put(r.To, &rec); err != nil {
			return err
		}
		if b.Len() >= 1024 {
			if err := b.Commit(); err != nil {
				return err
			}
		}
		return ctx.Err()
	})
	if err == nil {
		err = b.Commit()
	}
	if err == nil && cut {
		if _, err = p.nodes.Doubt(epoch); err == nil {
			_, err = p.recount()
		}
	}
	if err != nil {
		return fmt.Errorf("turn the node map around: %w", err)
	}
	return p.checkpoint(ctx)
}

// Guard is migrate.Guard's.
func (t *Tree) Guard(ctx context.Context, old migrate.Side) error {
	late, err := t.place.Guard(ctx, old)
	if len(late) == 0 {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, h := range late {
		t.o.Warn(fmt.Sprintf("a mount of the old volume appeared at %s in %s and was made read-only", h.Path, h.Command),
			"what was written through it is not known: all is compared before a rollback", "unmount it there")
		if err := t.audit("sealed-late", map[string]any{"side": old, "path": h.Path, "namespace": h.Command, "pid": h.PID}); err != nil {
			return err
		}
	}
	if p := t.active(); p != nil && p.back {
		err = errors.Join(err, p.doubt())
	}
	return err
}

// doubt takes the claim to be equal from every object: somebody else may have written `to`.
func (p *pair) doubt() error {
	err := p.nodes.change(func(r *Record) bool {
		was := r.Flags
		r.Flags &^= Verified
		return r.Flags != was
	})
	if err != nil {
		return fmt.Errorf("doubt what is on %s: %w", p.to.device, err)
	}
	_, err = p.recount()
	return err
}

// wayBack is the state of the road to the old volume.
type wayBack struct {
	mu  sync.Mutex
	now migrate.WayBack
}

func (b *wayBack) set(state string, since time.Time, why string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.now.State == "closed" {
		return // for good: the first reason is the one that counts
	}
	b.now = migrate.WayBack{State: state, Since: since, Why: why}
}

// WayBack is Subject.WayBack.
func (t *Tree) WayBack(context.Context) migrate.WayBack {
	t.wayBack.mu.Lock()
	now := t.wayBack.now
	t.wayBack.mu.Unlock()
	if now.State == "" {
		now.State = "full"
	}
	return now
}

// Finalize is Subject.Finalize.
func (t *Tree) Finalize(ctx context.Context, truth migrate.Side) error {
	if p := t.active(); p != nil {
		if err := t.emptyLimbo(ctx, p); err != nil {
			return err
		}
	}
	if err := t.stop(); err != nil {
		return err
	}
	if err := t.place.Release(ctx, truth.Other()); err != nil {
		return err
	}
	if err := t.place.Release(ctx, truth); err != nil {
		return err
	}
	if truth == migrate.Source {
		return t.delist()
	}
	if err := t.place.Name(ctx); err != nil {
		return err
	}
	return t.native()
}

// emptyLimbo leaves nothing of ours on the old volume.
func (t *Tree) emptyLimbo(ctx context.Context, p *pair) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	left, err := p.sweepLimbo(ctx, true)
	if err != nil {
		return t.told(err)
	}
	if left > 0 {
		return nil // objects that are open but unlinked on the truth; the old volume is given up anyway
	}
	var te *copier.TargetError
	if err := p.dropLimbo(); err != nil && !errors.As(err, &te) {
		return err
	}
	return nil
}
