package shadow

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/fsmigrate/fsmigrate/blockdev"
	"github.com/fsmigrate/fsmigrate/migrate"
)

// errCovered says that a mount cannot be reached by its path, because another
// one lies over it.
var errCovered = errors.New("covered by another mount")

// unique is the id of the mount that is never used twice.
func (m *mountPoint) unique() (id uint64, err error) {
	err = m.ns.enter(func() error {
		fd, err := openRoot(m.Mountpoint, m.ID)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		id, err = uniqueID(fd)
		return err
	})
	return id, err
}

// setReadOnly changes MOUNT_ATTR_RDONLY of this one mount, in its namespace.
func (m *mountPoint) setReadOnly(ro bool) error {
	err := m.ns.enter(func() error {
		fd, err := openRoot(m.Mountpoint, m.ID)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return setReadOnly(fd, ro)
	})
	if err != nil {
		return fmt.Errorf("seal %s in %s: %w", m.Mountpoint, m.ns, err)
	}
	return nil
}

func setReadOnly(fd int, ro bool) error {
	attr := unix.MountAttr{Attr_clr: unix.MOUNT_ATTR_RDONLY}
	if ro {
		attr = unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
	}
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &attr); err != nil {
		return fmt.Errorf("set mount attributes: %w", err)
	}
	return nil
}

// ledger remembers which mounts of a side were sealed and were writable before, so
// that undoing a fence gives nobody more than he had (a service with a read-only view keeps
// it), and so that a later reverse knows which detached mounts are harmless. It means
// nothing after a reboot, so it is renamed into place but not synced.
type ledger struct {
	BootID string        `json:"boot_id"`
	Mounts []sealedMount `json:"mounts"`
}

type sealedMount struct {
	NS     uint64 `json:"ns"`
	Own    bool   `json:"own"`
	ID     int    `json:"id"`
	Unique uint64 `json:"unique"`
	Point  string `json:"point"`
	Wrote  bool   `json:"wrote"` // was writable before it was sealed
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
	if err := json.Unmarshal(b, &l); err != nil {
		return l, fmt.Errorf("read sealed mounts %s: %w", p.ledgerPath(s), err)
	}
	if l.BootID != boot {
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

func (l *ledger) find(m *mountPoint, unique uint64) *sealedMount {
	for i := range l.Mounts {
		if s := &l.Mounts[i]; s.NS == m.ns.inode && s.ID == m.ID && s.Unique == unique {
			return s
		}
	}
	return nil
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

// sealAll makes every attached mount of a side read-only, in every namespace,
// and looks again until a look finds none that is writable: a namespace that is
// copied meanwhile copies either the seal or a mount that the next look finds.
func (p *Place) sealAll(s migrate.Side, remember bool) error {
	const looks = 10
	led, err := p.loadLedger(s)
	if err != nil {
		return err
	}
	for range looks {
		n, err := p.sealOnce(s, &led, remember)
		if err != nil || n == 0 {
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
	defer l.close()
	var open []*mountPoint
	for _, m := range l.of(s) {
		if m.readOnly() && !remember {
			continue
		}
		id, err := m.unique()
		switch {
		case err == nil:
		case gone(err):
			continue
		case errors.Is(err, errCovered) && m.readOnly():
			continue
		default:
			return 0, &migrate.Busy{What: fmt.Sprintf("the %s", s), Holders: []migrate.Holder{p.mountHolder(m)}}
		}
		if led.find(m, id) == nil {
			led.Mounts = append(led.Mounts, sealedMount{NS: m.ns.inode, Own: m.ns.own, ID: m.ID, Unique: id, Point: m.Mountpoint, Wrote: !m.readOnly()})
		}
		if !m.readOnly() {
			open = append(open, m)
		}
	}
	if err := p.saveLedger(s, *led); err != nil { // before the first seal, or its undo would forget one
		return 0, err
	}
	for _, m := range open {
		if err := m.setReadOnly(true); err != nil {
			if gone(err) {
				continue
			}
			if errors.Is(err, unix.EBUSY) {
				return 0, &migrate.Busy{What: fmt.Sprintf("the %s", s), Holders: []migrate.Holder{p.mountHolder(m)}}
			}
			return 0, err
		}
		sealed++
	}
	return sealed, nil
}

// reopen makes the truth writable where it was: superblock first, then the
// mount at Dir, then those in following namespaces that were writable before.
func (p *Place) reopen(truth migrate.Side) error {
	l, err := p.list()
	if err != nil {
		return err
	}
	defer l.close()
	top, err := p.topOf(l, truth)
	if err != nil {
		return err
	}
	dir, err := openRoot(p.o.Dir, top.ID)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	if hasOption(top.VFSOptions, "ro") && !p.readOnly {
		if err := blockdev.SuperReadOnly(dir, false); err != nil {
			return fmt.Errorf("make the superblock of the %s writable: %w", truth, err)
		}
	}
	if top.readOnly() != p.readOnly {
		if err := setReadOnly(dir, p.readOnly); err != nil {
			return fmt.Errorf("make %s writable: %w", p.o.Dir, err)
		}
	}
	return p.reopenFollowers(truth, l)
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
			if m.ns.own || !m.readOnly() || m.Mountpoint != p.o.Dir || m.coveredIn(l) || !led.wrote(m.ns.inode, m.Mountpoint) {
				continue
			}
			if err := m.setReadOnly(false); err != nil && !gone(err) {
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

// superReadOnly makes the superblock of a side read-only through any mount of it
// that can be reached; nothing when it is not mounted at all.
func (p *Place) superReadOnly(s migrate.Side) error {
	if t := p.trees[s]; t != nil {
		return p.makeSuperReadOnly(s, t.tree.Fd())
	}
	l, err := p.list()
	if err != nil {
		return err
	}
	defer l.close()
	for _, m := range l.of(s) {
		if hasOption(m.VFSOptions, "ro") {
			return nil
		}
		var busy error
		err := m.ns.enter(func() error {
			fd, err := openRoot(m.Mountpoint, m.ID)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			busy = p.makeSuperReadOnly(s, fd)
			return nil
		})
		if err == nil {
			return busy
		}
	}
	return nil
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

// refuseUnsealed looks for a road to the old volume that the seals do not cover: a
// process on a mount that is attached nowhere and was not sealed before it was
// detached. Such a road also shows when the superblock is writable and statfs
// says "not read-only".
func (p *Place) refuseUnsealed(old migrate.Side) error {
	fd := -1
	if t := p.trees[old]; t != nil {
		fd = t.tree.Fd()
	} else {
		t, err := p.mountPrivate(old, false)
		if err != nil {
			return err
		}
		defer t.tree.Close()
		fd = t.tree.Fd()
	}
	refs, err := p.references(old, fd)
	if err != nil {
		return err
	}
	loose, err := p.loose(old, refs)
	if err != nil {
		return err
	}
	led, err := p.loadLedger(old)
	if err != nil {
		return err
	}
	known := map[uint64]bool{}
	for _, m := range led.Mounts {
		known[m.Unique] = true
	}
	busy := &migrate.Busy{What: fmt.Sprintf("the %s (%s)", old, p.format(old))}
	for _, r := range loose {
		if !known[r.mount] {
			h := r.holder()
			h.Writes = true
			busy.Holders = append(busy.Holders, h)
		}
	}
	if len(busy.Holders) > 0 {
		return busy
	}
	return nil
}

// allSealed proves, with the superblock writable, that no reference of another process can write.
func (p *Place) allSealed(old migrate.Side, fd int) error {
	refs, err := p.references(old, fd)
	if err != nil {
		return err
	}
	busy := &migrate.Busy{What: fmt.Sprintf("the %s (%s)", old, p.format(old))}
	for _, r := range refs {
		if ok, err := r.sealed(); !ok {
			if err != nil {
				return fmt.Errorf("look at pid %d: %w", r.pid, err)
			}
			h := r.holder()
			h.Writes = true
			busy.Holders = append(busy.Holders, h)
		}
	}
	if len(busy.Holders) > 0 {
		return busy
	}
	return nil
}
