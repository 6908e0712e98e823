package shadow

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fsmigrate/fsmigrate/blockdev"
	"github.com/fsmigrate/fsmigrate/migrate"
)

// ledger remembers which mounts of a side were sealed and were writable before, so
// that undoing a fence gives nobody more than he had (a service with a read-only view keeps
// it), and so that a later reverse knows which detached mounts are harmless. It means
// nothing after a reboot, so it is renamed into place but not synced: it costs the pause
// nothing, and a power cut may leave it empty or in part.
type ledger struct {
	BootID string        `json:"boot_id"`
	Mounts []sealedMount `json:"mounts"`
}

type sealedMount struct {
	NS    uint64 `json:"ns"`
	ID    int    `json:"id"`
	Point string `json:"point"`
	Wrote bool   `json:"wrote"` // was writable before it was sealed
}

func (p *Place) ledgerPath(s migrate.Side) string {
	return filepath.Join(p.o.StateDir, "sealed-"+string(s)+".json")
}

// loadLedger reads what was sealed since this boot; none is an empty ledger.
func (p *Place) loadLedger(s migrate.Side) (ledger, error) {
	boot, err := blockdev.BootID()
	if err != nil {
		return ledger{}, fmt.Errorf("read boot id: %w", err)
	}
	var l ledger
	b, err := os.ReadFile(p.ledgerPath(s))
	if errors.Is(err, os.ErrNotExist) {
		return ledger{BootID: boot}, nil
	}
	if err != nil {
		return l, fmt.Errorf("read sealed mounts: %w", err)
	}
	// Within one boot it is whole, as it is renamed into place. One that is not is of before
	// a power cut, and the boot may not end at it.
	if err := json.Unmarshal(b, &l); err != nil || l.BootID != boot {
		return ledger{BootID: boot}, nil
	}
	return l, nil
}

func (p *Place) saveLedger(s migrate.Side, l ledger) error {
	b, err := json.MarshalIndent(l, "", "  ")
	if err != nil {
		return err
	}
	tmp := p.ledgerPath(s) + ".new"
	if err := os.WriteFile(tmp, b, 0o600); err != nil {
		return fmt.Errorf("write sealed mounts: %w", err)
	}
	if err := os.Rename(tmp, p.ledgerPath(s)); err != nil {
		return fmt.Errorf("write sealed mounts: %w", err)
	}
	return nil
}

func (p *Place) dropLedger(s migrate.Side) error {
	if err := os.Remove(p.ledgerPath(s)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("forget sealed mounts: %w", err)
	}
	return nil
}

func (l *ledger) has(m *mountPoint) bool {
	return slices.ContainsFunc(l.Mounts, func(s sealedMount) bool { return s.NS == m.NS && s.ID == m.ID && s.Point == m.Point })
}

// wrote reports whether somebody in that namespace could write at that place before the seal.
func (l *ledger) wrote(ns uint64, point string) bool {
	for _, s := range l.Mounts {
		if s.NS == ns && s.Point == point && s.Wrote {
			return true
		}
	}
	return false
}

// sealAll makes every attached mount of a side read-only, in every namespace, and
// looks again until a look finds none that is writable: a namespace that is copied
// meanwhile copies either the seal or a mount that the next look finds. Under a fence
// (remember) one look is enough: the superblock keeps writes out, and whoever
// makes that writable again looks again.
func (p *Place) sealAll(s migrate.Side, remember bool) error {
	const looks = 10
	led, err := p.loadLedger(s)
	if err != nil {
		return err
	}
	for range looks {
		n, err := p.sealOnce(s, &led, remember)
		if err != nil || n == 0 || remember {
			return err
		}
	}
	return &migrate.Busy{What: fmt.Sprintf("the %s: new writable mounts of it keep appearing; it", s)}
}

func (p *Place) sealOnce(s migrate.Side, led *ledger, remember bool) (sealed int, err error) {
	l, err := p.list()
	if err != nil {
		return 0, err
	}
	var open []*mountPoint
	for _, m := range l.of(s) {
		if m.ReadOnly() && !remember {
			continue
		}
		if !led.has(m) {
			led.Mounts = append(led.Mounts, sealedMount{NS: m.NS, ID: m.ID, Point: m.Point, Wrote: !m.ReadOnly()})
		}
		if !m.ReadOnly() {
			open = append(open, m)
		}
	}
	if err := p.saveLedger(s, *led); err != nil { // before the first seal, or its undo would forget one
		return 0, err
	}
	for _, m := range open {
		if err := p.step("seal"); err != nil {
			return 0, err
		}
		if err := blockdev.Seal(m.Mount, true); err != nil {
			if errors.Is(err, os.ErrNotExist) {
				continue
			}
			if errors.Is(err, unix.EBUSY) || errors.Is(err, blockdev.ErrCovered) {
				return 0, &migrate.Busy{What: fmt.Sprintf("the %s", s), Holders: []migrate.Holder{p.mountHolder(m)}}
			}
			return 0, err
		}
		sealed++
	}
	return sealed, nil
}

// reopen makes the truth writable at Dir: superblock first, then the mount.
func (p *Place) reopen(truth migrate.Side) error {
	l, err := p.listOwn()
	if err != nil {
		return err
	}
	top, err := p.topOf(l, truth)
	if err != nil {
		return err
	}
	dir, err := openRoot(p.o.Dir, top.ID)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	if blockdev.IsSuperReadOnly(top.Mount) && !p.readOnly {
		if err := blockdev.SuperReadOnly(dir, false); err != nil {
			return fmt.Errorf("make the superblock of the %s writable: %w", truth, err)
		}
	}
	if err := p.step("settle-mount"); err != nil {
		return err
	}
	if top.ReadOnly() != p.readOnly {
		if err := blockdev.SealFd(dir, p.readOnly); err != nil {
			return fmt.Errorf("make %s writable: %w", p.o.Dir, err)
		}
	}
	p.writableAt = time.Now()
	return nil
}

// reopenFollowers gives the namespaces that follow ours what they had at Dir
// before the fence, on whichever side. It cannot undo more: one that fails is told.
func (p *Place) reopenFollowers(truth migrate.Side, l *listing) error {
	for _, side := range []migrate.Side{migrate.Source, migrate.Shadow} {
		led, err := p.loadLedger(side)
		if err != nil {
			return err
		}
		for _, m := range l.of(truth) {
			if m.own || !m.ReadOnly() || m.Point != p.o.Dir || m.coveredIn(l) || !led.wrote(m.NS, m.Point) {
				continue
			}
			if err := blockdev.Seal(m.Mount, false); err != nil && !errors.Is(err, os.ErrNotExist) {
				p.o.Warn("a mount stays read-only", err.Error(), fmt.Sprintf("in that namespace: mount -o remount,rw,bind %s", p.o.Dir))
			}
		}
	}
	return nil
}

// SealOld makes sure of I10 after a cutover: every mount of the old volume is read-only, no
// process holds an unsealed one, and unless reverse has its private mount writable the
// superblock is read-only too. A *migrate.Busy error names who could still write.
func (p *Place) SealOld(ctx context.Context, old migrate.Side) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := p.sealAll(old, false); err != nil {
		return err
	}
	if t := p.trees[old]; t == nil || !t.write {
		if err := p.superReadOnly(old); err != nil {
			return err
		}
	}
	return p.refuseUnsealed(old)
}

// Guard is SealOld while the migration goes on beside the application (I10): it seals what
// appeared since, and returns who could write through it until now; what was written is not
// known. A *migrate.Busy error names who can still write. It leaves a volume that nothing
// is mounted of alone.
func (p *Place) Guard(ctx context.Context, old migrate.Side) (late []migrate.Holder, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	l, err := p.list()
	if err != nil {
		return nil, err
	}
	for _, m := range l.of(old) {
		if !m.ReadOnly() && !blockdev.IsSuperReadOnly(m.Mount) {
			late = append(late, p.mountHolder(m))
		}
	}
	if len(late) > 0 {
		if err := p.sealAll(old, false); err != nil {
			return late, err
		}
	}
	if p.trees[old] == nil {
		return late, nil
	}
	return late, p.refuseUnsealed(old)
}

// superReadOnly makes the superblock of a side read-only; nothing when it is not mounted.
func (p *Place) superReadOnly(s migrate.Side) error {
	if t := p.trees[s]; t != nil {
		return p.makeSuperReadOnly(s, t.tree.Fd())
	}
	l, err := p.list()
	if err != nil {
		return err
	}
	ms := l.of(s)
	if len(ms) == 0 || blockdev.IsSuperReadOnly(ms[0].Mount) {
		return nil
	}
	t, _, err := p.mountDevice(s, hardened|unix.MOUNT_ATTR_RDONLY)
	if err != nil {
		return err
	}
	defer t.Close()
	return p.makeSuperReadOnly(s, t.Fd())
}

func (p *Place) makeSuperReadOnly(s migrate.Side, fd int) error {
	err := blockdev.SuperReadOnly(fd, true)
	if errors.Is(err, unix.EBUSY) {
		return p.busyWriters(s, fd)
	}
	if err != nil {
		return fmt.Errorf("make the superblock of the %s read-only: %w", s, err)
	}
	return nil
}
