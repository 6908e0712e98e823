package shadow

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/fsmigrate/fsmigrate/blockdev"
	"github.com/fsmigrate/fsmigrate/migrate"
)

// Settle is the recovery: it looks at what is mounted and makes `truth` the one
// volume that is visible and writable at Dir, with the carried options, and the
// other neither visible there nor writable by anybody else. It finishes a cutover,
// undoes one, and mounts the truth at boot; a crash at any instant, in itself
// too, is recovered by calling it again. What already is as it should be is not touched.
//
// When the volume that is not the truth is being written by somebody (mounted by
// hand, past the record), it is a *migrate.Busy error and nothing was changed.
func (p *Place) Settle(ctx context.Context, truth migrate.Side) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	return p.settle(truth)
}

func (p *Place) settle(truth migrate.Side) error {
	if err := p.shutOut(truth.Other()); err != nil {
		return fmt.Errorf("settle on the %s: %w", truth, err)
	}
	if err := p.comeUp(truth); err != nil {
		return fmt.Errorf("settle on the %s: %w", truth, err)
	}
	if err := p.step("settle-writable"); err != nil {
		return err
	}
	if err := p.reopen(truth); err != nil {
		return fmt.Errorf("settle on the %s: %w", truth, err)
	}
	// The pause is over.
	p.fenced = ""
	if t := p.trees[truth]; t != nil && t.write {
		// What the copier wrote to before it became the truth is for reading from now on.
		if err := t.tree.SetReadOnly(true); err != nil {
			p.o.Warn(fmt.Sprintf("the private mount of the %s stays writable", truth), err.Error(), "")
		} else {
			t.write = false
		}
	}
	if err := p.step("settle-followers"); err != nil {
		return err
	}
	return p.finishSettle(truth)
}

// shutOut makes sure that nobody can write to the volume that is not the truth, before
// the truth becomes writable. After a fence of this process, and at boot, there
// is nothing to do.
func (p *Place) shutOut(other migrate.Side) error {
	if p.fenced == other {
		return nil
	}
	l, err := p.list()
	if err != nil {
		return err
	}
	open := false
	for _, m := range l.of(other) {
		if !m.ReadOnly() {
			open = true
		}
	}
	if !open {
		return nil
	}
	if err := p.step("settle-fence"); err != nil {
		return err
	}
	if t := p.trees[other]; t == nil || !t.write {
		if err := p.superReadOnly(other); err != nil {
			return err
		}
	}
	return p.sealAll(other, true)
}

// comeUp makes the truth the only mount of the two at Dir. Each round looks
// anew and does one step, so that where an earlier process died makes no difference.
func (p *Place) comeUp(truth migrate.Side) error {
	const rounds = 32 // each takes a layer away or puts the truth in place; a few are enough
	for range rounds {
		done, err := p.comeUpStep(truth)
		if done || err != nil {
			return err
		}
	}
	return fmt.Errorf("the mounts at %s keep changing", p.o.Dir)
}

func (p *Place) comeUpStep(truth migrate.Side) (done bool, err error) {
	l, err := p.listOwn()
	if err != nil {
		return false, err
	}
	stack, err := p.stack(l)
	if err != nil {
		return false, err
	}
	aside := p.asideOf(l, truth)
	var top *mountPoint
	own, others := 0, 0
	for _, m := range stack {
		top = m
		if m.side == truth {
			own++
		} else {
			others++
		}
	}
	switch {
	case top != nil && top.side == truth && others == 0:
		return true, p.dropLeftover()
	case top != nil && top.side == truth:
		if err := p.dropLeftover(); err != nil {
			return false, err
		}
		return false, p.putAside(top, l)
	case aside != nil:
		return false, p.bringBack(aside, top != nil)
	case top == nil:
		return false, p.mountFresh(truth)
	case own > 0:
		return false, p.detachTop()
	}
	return false, p.putBeneath(truth)
}

// mountFresh mounts the truth at Dir where nothing is: the boot.
func (p *Place) mountFresh(truth migrate.Side) error {
	attrs := p.attributes(truth)
	if p.readOnly {
		attrs |= unix.MOUNT_ATTR_RDONLY
	}
	t, _, err := p.mountDevice(truth, attrs)
	if err != nil {
		return err
	}
	defer t.Close()
	if err := p.step("settle-attach"); err != nil {
		return err
	}
	if err := p.attachTop(t.Fd()); err != nil {
		return err
	}
	return p.o.Audit("mounted", map[string]any{"side": truth, "dir": p.o.Dir, "how": "fresh"})
}

func (p *Place) detachTop() error {
	if err := p.step("settle-detach"); err != nil {
		return err
	}
	if err := blockdev.DetachTop(p.o.Dir); err != nil {
		return fmt.Errorf("detach the top of %s: %w", p.o.Dir, err)
	}
	return p.o.Audit("unmounted", map[string]any{"dir": p.o.Dir})
}

// putAside begins to take away what lies beneath the truth; the kernel has no call
// for that. Where nothing propagates, the truth is put aside, with everything mounted in
// it and everybody in it, goes back beneath what it was on, and that is detached: Dir is
// never empty, and what shows for an instant is read-only.
//
// Nothing can be moved away from a shared mount; there the lower one is pulled out. When
// that fails too (it has submounts, and whoever held it is dead), a clone of the truth takes
// its place: those who were in the old mount go on working in the same volume, and
// are named by the next fence.
func (p *Place) putAside(truth *mountPoint, l *listing) error {
	top, err := openRoot(p.o.Dir, truth.ID)
	if err != nil {
		return err
	}
	defer unix.Close(top)
	if l.shared(truth.Parent) {
		if gone, err := p.pullOut(truth, l); gone || err != nil {
			return err
		}
		return p.cloneAside(top)
	}
	if err := p.makeScratch(); err != nil {
		return err
	}
	if err := p.step("settle-aside"); err != nil {
		return err
	}
	if err := unix.MoveMount(top, "", unix.AT_FDCWD, p.scratch(), unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("put the mount at %s aside: %w", p.o.Dir, err)
	}
	return nil
}

// cloneAside puts a clone of the topmost mount aside, and detaches that.
func (p *Place) cloneAside(top int) error {
	if err := p.makeScratch(); err != nil {
		return err
	}
	// Who stays in the old mount may write where everybody may.
	if err := blockdev.SealFd(top, p.readOnly); err != nil {
		return err
	}
	// Without propagation ties: those of the original would carry its unmount over.
	clone, err := blockdev.CloneFd(top)
	if err != nil {
		return err
	}
	defer clone.Close()
	if err := p.step("settle-clone"); err != nil {
		return err
	}
	if err := unix.MoveMount(clone.Fd(), "", unix.AT_FDCWD, p.scratch(), unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("put a clone of the mount at %s aside: %w", p.o.Dir, err)
	}
	if err := p.attachSubmounts(clone.Fd()); err != nil {
		return err
	}
	return p.detachTop()
}

// shared reports whether mount id of our namespace propagates what is mounted on it.
func (l *listing) shared(id int) bool {
	for _, m := range l.all {
		if m.NS == l.ns && m.ID == id {
			return group(m.Propagation, "shared:") != ""
		}
	}
	return true
}

// asideOf is the truth's mount at the scratch place.
func (p *Place) asideOf(l *listing, truth migrate.Side) *mountPoint {
	for _, m := range l.of(truth) {
		if m.own && m.Point == p.scratch() {
			return m
		}
	}
	return nil
}

// bringBack moves the truth from the scratch place to Dir: beneath what is there,
// so that Dir is never empty, where the kernel can.
func (p *Place) bringBack(aside *mountPoint, occupied bool) error {
	fd, err := openRoot(p.scratch(), aside.ID)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if !occupied {
		if err := p.step("settle-back"); err != nil {
			return err
		}
		return p.attachTop(fd)
	}
	// It was on its way in, perhaps, and had not got all submounts yet.
	if err := p.attachSubmounts(fd); err != nil {
		return err
	}
	if err := p.step("settle-back"); err != nil {
		return err
	}
	if err := p.attachBeneath(fd); !errors.Is(err, blockdev.ErrNoBeneath) {
		return err
	}
	return p.detachTop()
}

// dropLeftover removes a scratch place that a crash left behind.
func (p *Place) dropLeftover() error {
	if m, err := blockdev.MountAt(p.scratch()); err == nil && m.Point == p.scratch() {
		return p.dropScratch()
	}
	return nil
}

// finishSettle gives the namespaces that follow ours what they had, and looks
// again: it does not trust what the calls before it answered.
func (p *Place) finishSettle(truth migrate.Side) error {
	l, err := p.list()
	if err != nil {
		return err
	}
	if err := p.reopenFollowers(truth, l); err != nil {
		return err
	}
	stack, err := p.stack(l)
	if err != nil {
		return err
	}
	if len(stack) == 0 {
		return fmt.Errorf("settle on the %s: %s is empty afterwards", truth, p.o.Dir)
	}
	for _, m := range stack {
		if m.side != truth {
			return fmt.Errorf("settle on the %s: the %s is still mounted at %s", truth, m.side, p.o.Dir)
		}
	}
	top := stack[len(stack)-1]
	if !p.readOnly && (top.ReadOnly() || blockdev.IsSuperReadOnly(top.Mount)) {
		return fmt.Errorf("settle on the %s: %s is read-only afterwards", truth, p.o.Dir)
	}
	for _, m := range l.of(truth.Other()) {
		if !m.ReadOnly() {
			return &migrate.Busy{What: fmt.Sprintf("the %s", truth.Other()), Holders: []migrate.Holder{p.mountHolder(m)}}
		}
	}
	p.forgetLower()
	if t := p.trees[migrate.Shadow]; truth == migrate.Source && t != nil && t.write {
		if err := p.mark(markCopy); err != nil {
			p.o.Warn("the shadow still bears the mark of a cutover", err.Error(), "")
		}
	}
	return p.dropLedger(truth)
}
