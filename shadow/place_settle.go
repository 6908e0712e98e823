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
	if err := p.step("settle-forget"); err != nil {
		return err
	}
	return p.checkSettled(truth)
}

// shutOut makes sure that nobody can write to the volume that is not the truth, before
// the truth becomes writable. After a fence, and at boot, there is nothing to do.
func (p *Place) shutOut(other migrate.Side) error {
	l, err := p.list()
	if err != nil {
		return err
	}
	defer l.close()
	open := false
	for _, m := range l.of(other) {
		if !m.readOnly() {
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

// comeUp makes the truth the topmost mount at Dir and takes the other away.
func (p *Place) comeUp(truth migrate.Side) error {
	l, err := p.list()
	if err != nil {
		return err
	}
	defer l.close()
	stack, err := p.stack(l)
	if err != nil {
		return err
	}
	lowest, highest := -1, -1 // of the truth
	others := 0
	for i, m := range stack {
		if m.side == truth {
			if lowest < 0 {
				lowest = i
			}
			highest = i
		} else {
			others++
		}
	}
	switch aside := p.asideOf(l, truth); {
	case aside != nil:
		return p.bringBack(aside, len(stack))
	case highest < 0 && others == 0:
		return p.mountFresh(truth)
	case highest < 0:
		if err := p.putBeneath(truth); err != nil {
			return err
		}
		return p.comeUp(truth)
	case others == 0:
		return p.dropLeftover()
	case highest < len(stack)-1:
		return p.dropTop(len(stack) - 1 - highest)
	}
	return p.dropBeneath(stack[highest], l, others)
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

// dropTop detaches the n topmost mounts, and gives their submounts to the one below
// them where it lacks them (a crash between the swap and its submounts).
func (p *Place) dropTop(n int) error {
	for range n {
		subs, err := p.submounts()
		if err != nil {
			return err
		}
		err = func() error {
			defer subs.close()
			if err := p.step("settle-detach"); err != nil {
				return err
			}
			if err := blockdev.DetachTop(p.o.Dir); err != nil {
				return fmt.Errorf("detach the top of %s: %w", p.o.Dir, err)
			}
			if err := p.step("settle-submounts"); err != nil {
				return err
			}
			return p.giveSubmounts(subs)
		}()
		if err != nil {
			return err
		}
	}
	return p.o.Audit("unmounted", map[string]any{"dir": p.o.Dir, "mounts": n})
}

func (p *Place) giveSubmounts(subs submountSet) error {
	if len(subs) == 0 {
		return nil
	}
	root, err := openTop(p.o.Dir)
	if err != nil {
		return err
	}
	defer unix.Close(root)
	return subs.attach(root)
}

// dropBeneath takes away what lies beneath the truth. The kernel has no call for
// that: the truth is put aside, with everything mounted in it and everybody in it, moved
// back beneath what it was on, and that is detached. Dir is never empty, and what
// shows for an instant is read-only.
//
// Nothing can be moved away from a shared mount. When the lower one is shared and
// whoever held it is dead, a clone of the truth takes its place instead: those who were in
// the old mount go on working in the same volume, and are named by the next fence.
func (p *Place) dropBeneath(truth *mountPoint, l *listing, n int) error {
	top, err := openRoot(p.o.Dir, truth.ID)
	if err != nil {
		return err
	}
	defer unix.Close(top)
	if p.lower > 0 {
		if err := makePrivate(p.lower); err != nil {
			return fmt.Errorf("make the lower mount at %s private: %w", p.o.Dir, err)
		}
	} else if l.shared(truth.Parent) {
		return p.cloneOver(top, n)
	}
	return p.withScratch(func() error {
		if err := p.step("settle-aside"); err != nil {
			return err
		}
		if err := unix.MoveMount(top, "", unix.AT_FDCWD, p.scratch(), unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
			return fmt.Errorf("put the mount at %s aside: %w", p.o.Dir, err)
		}
		if err := p.step("settle-back"); err != nil {
			return err
		}
		return p.replaceBy(top, n)
	})
}

// shared reports whether mount id of our namespace propagates what is mounted on it.
func (l *listing) shared(id int) bool {
	for _, m := range l.mounts {
		if m.ns.own && m.ID == id {
			return group(m.Optional, "shared:") != ""
		}
	}
	return true
}

// cloneOver replaces the topmost mount and the n below it by a clone of the topmost.
func (p *Place) cloneOver(top, n int) error {
	clone, err := unix.OpenTree(top, "", unix.OPEN_TREE_CLONE|unix.AT_RECURSIVE|unix.AT_EMPTY_PATH|unix.O_CLOEXEC)
	if err != nil {
		return fmt.Errorf("clone the mount at %s: %w", p.o.Dir, err)
	}
	defer unix.Close(clone)
	// Who stays in the old mount may write where everybody may.
	if err := setReadOnly(top, p.readOnly); err != nil {
		return err
	}
	if err := p.step("settle-detach"); err != nil {
		return err
	}
	if err := blockdev.DetachTop(p.o.Dir); err != nil {
		return fmt.Errorf("detach the top of %s: %w", p.o.Dir, err)
	}
	if err := p.step("settle-back"); err != nil {
		return err
	}
	return p.replaceBy(clone, n)
}

// replaceBy puts a mount in the place of the n that are at Dir: beneath them, so
// that Dir is never empty, where the kernel can.
func (p *Place) replaceBy(fd, n int) error {
	err := p.attachBeneath(fd)
	if err == nil {
		return p.dropTop(n)
	}
	if !errors.Is(err, errNoBeneath) {
		return err
	}
	if err := p.dropTop(n); err != nil {
		return err
	}
	return p.attachTop(fd)
}

// asideOf is the truth's mount that a crash left at the scratch place.
func (p *Place) asideOf(l *listing, truth migrate.Side) *mountPoint {
	for _, m := range l.of(truth) {
		if m.ns.own && m.Mountpoint == p.scratch() {
			return m
		}
	}
	return nil
}

// bringBack finishes a dropBeneath that a crash interrupted.
func (p *Place) bringBack(aside *mountPoint, n int) error {
	fd, err := openRoot(p.scratch(), aside.ID)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if n == 0 {
		err = p.attachTop(fd)
	} else {
		err = p.replaceBy(fd, n)
	}
	return errors.Join(err, p.dropScratch())
}

// dropLeftover removes a scratch place that a crash left behind.
func (p *Place) dropLeftover() error {
	infos, err := readMountinfo("/proc/thread-self/mountinfo")
	if err != nil {
		return err
	}
	for _, i := range infos {
		if i.Mountpoint == p.scratch() {
			return p.dropScratch()
		}
	}
	return nil
}

// checkSettled looks again, and does not trust what the calls before it answered.
func (p *Place) checkSettled(truth migrate.Side) error {
	l, err := p.list()
	if err != nil {
		return err
	}
	defer l.close()
	stack, err := p.stack(l)
	if err != nil {
		return err
	}
	if len(stack) == 0 {
		return fmt.Errorf("settle on the %s: %s is empty afterwards", truth, p.o.Dir)
	}
	top := stack[len(stack)-1]
	if top.side != truth {
		return fmt.Errorf("settle on the %s: %s shows the %s afterwards", truth, p.o.Dir, top.side)
	}
	if !p.readOnly && (top.readOnly() || hasOption(top.VFSOptions, "ro")) {
		return fmt.Errorf("settle on the %s: %s is read-only afterwards", truth, p.o.Dir)
	}
	for _, m := range l.of(truth.Other()) {
		if !m.readOnly() {
			return &migrate.Busy{What: fmt.Sprintf("the %s", truth.Other()), Holders: []migrate.Holder{p.mountHolder(m)}}
		}
	}
	p.forgetLower()
	return p.dropLedger(truth)
}
