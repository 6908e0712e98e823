package shadow

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fsmigrate/fsmigrate/blockdev"
	"github.com/fsmigrate/fsmigrate/formats"
	"github.com/fsmigrate/fsmigrate/fstab"
	"github.com/fsmigrate/fsmigrate/migrate"
)

// hardened are the attributes of every private mount: nothing on it is run or
// opened as a device, and reading it leaves no trace in access times.
const hardened = unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC | unix.MOUNT_ATTR_NOATIME

// Open gives a private mount of a side: detached, without submounts, hardened, and
// gone with this process. For the side in place it is a clone of its mount at
// Dir; for the other a mount of its device. The Place owns the tree: callers
// duplicate its descriptor and never close it.
//
// Opening the same side again returns the same tree, made writable or read-only. A
// side that has mounts of other people is made writable only after all of
// them are sealed, and it is read-only again when somebody turns up who is not;
// that is a *migrate.Busy error and makes the way back stale, nothing else.
func (p *Place) Open(ctx context.Context, side migrate.Side, write bool) (*blockdev.Tree, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	t := p.trees[side]
	if t == nil {
		var err error
		if t, err = p.mountPrivate(side, write); err != nil {
			return nil, err
		}
		p.trees[side] = t
	}
	if t.write == write {
		return t.tree, nil
	}
	if !write {
		if err := t.tree.SetReadOnly(true); err != nil {
			return nil, fmt.Errorf("make the private mount of the %s read-only: %w", side, err)
		}
		t.write = false
		return t.tree, nil
	}
	if err := p.openForWriting(side, t); err != nil {
		return nil, err
	}
	t.write = true
	return t.tree, nil
}

// openForWriting makes t the one writable mount of its volume.
func (p *Place) openForWriting(side migrate.Side, t *privateTree) error {
	if p.o.KeepOld && side == migrate.Source {
		return errors.New("open the source for writing: the plan keeps the old volume as it was at the fence")
	}
	if err := p.notInPlace(side); err != nil {
		return err
	}
	if err := p.sealAll(side, false); err != nil {
		return err
	}
	if err := p.refuseUnsealed(side); err != nil {
		return err
	}
	if err := p.step("open-superblock"); err != nil {
		return err
	}
	if err := blockdev.SuperReadOnly(t.tree.Fd(), false); err != nil {
		return fmt.Errorf("make the superblock of the %s writable: %w", side, err)
	}
	if err := p.allSealed(side, t.tree.Fd()); err != nil {
		return errors.Join(err, blockdev.SuperReadOnly(t.tree.Fd(), true))
	}
	if err := t.tree.SetReadOnly(false); err != nil {
		return errors.Join(fmt.Errorf("make the private mount of the %s writable: %w", side, err),
			blockdev.SuperReadOnly(t.tree.Fd(), true))
	}
	return p.o.Audit("private-mount-writable", map[string]any{"side": side})
}

// notInPlace refuses to make a writable private mount of the side that
// applications see: it would be one more writer to fence.
func (p *Place) notInPlace(side migrate.Side) error {
	l, err := p.listOwn()
	if err != nil {
		return err
	}
	stack, err := p.stack(l)
	if err != nil {
		return err
	}
	if len(stack) > 0 && stack[len(stack)-1].side == side && !stack[len(stack)-1].ReadOnly() {
		return fmt.Errorf("open the %s for writing: it is the volume in place at %s", side, p.o.Dir)
	}
	return nil
}

// mountPrivate makes a new private mount of a side.
func (p *Place) mountPrivate(side migrate.Side, write bool) (*privateTree, error) {
	var tree *blockdev.Tree
	if !write {
		if t, err := p.cloneInPlace(side); err != nil {
			return nil, err
		} else if t != nil {
			tree = t
		}
	}
	t := &privateTree{}
	if tree == nil {
		if write {
			if err := p.notInPlace(side); err != nil {
				return nil, err
			}
		}
		fresh, ro, err := p.mountDevice(side, hardened|unix.MOUNT_ATTR_RDONLY)
		if err != nil {
			return nil, err
		}
		t.tree = fresh
		if write {
			// A superblock that lives already is somebody else's mount too.
			if ro || p.mountedElsewhere(side) {
				err = p.openForWritingNew(side, t)
			} else {
				err = fresh.SetReadOnly(false)
			}
			if err != nil {
				return nil, errors.Join(err, fresh.Close())
			}
			t.write = true
		}
	} else {
		t.tree = tree
	}
	return t, p.o.Audit("private-mount", map[string]any{"side": side, "write": write})
}

func (p *Place) openForWritingNew(side migrate.Side, t *privateTree) error {
	p.trees[side] = t // refuseUnsealed looks through it
	err := p.openForWriting(side, t)
	if err != nil {
		delete(p.trees, side)
	}
	return err
}

// mountedElsewhere reports whether a side has an attached mount anywhere. When
// that cannot be told, it has.
func (p *Place) mountedElsewhere(side migrate.Side) bool {
	l, err := p.list()
	if err != nil {
		return true
	}
	return len(l.of(side)) > 0
}

// cloneInPlace clones the mount at Dir when it is the side asked for, and nil when it is not.
func (p *Place) cloneInPlace(side migrate.Side) (*blockdev.Tree, error) {
	if top, err := p.top(side); err != nil || top == nil {
		return nil, nil //nolint:nilerr // not in place: the device is mounted instead
	}
	t, err := blockdev.CloneTree(p.o.Dir)
	if err != nil {
		return nil, fmt.Errorf("clone the mount at %s: %w", p.o.Dir, err)
	}
	if err := t.SetAttrs(hardened|unix.MOUNT_ATTR_RDONLY, unix.MOUNT_ATTR__ATIME); err != nil {
		return nil, errors.Join(err, t.Close())
	}
	return t, nil
}

// mountDevice makes a detached mount of a side's device with these attributes
// and the carried super options. It proves first that the device bears the volume it
// should. ro says that the superblock was alive and read-only.
func (p *Place) mountDevice(side migrate.Side, attrs uint64) (t *blockdev.Tree, ro bool, err error) {
	d, err := p.device(side)
	if err != nil {
		return nil, false, err
	}
	if err := p.recognise(side, d.Path); err != nil {
		return nil, false, err
	}
	o := blockdev.MountOptions{Attrs: attrs, Super: p.superOptions(side), ReadOnly: p.readOnly}
	t, err = blockdev.OpenDevice(d.Path, p.format(side), o)
	if errors.Is(err, unix.EBUSY) && !o.ReadOnly {
		// A superblock that is mounted read-only is only joined read-only.
		o.ReadOnly = true
		t, err = blockdev.OpenDevice(d.Path, p.format(side), o)
		ro = true
	}
	if err != nil {
		return nil, false, fmt.Errorf("mount the %s %s: %w", side, d.Path, err)
	}
	return t, ro, nil
}

// carried is the option string of a side: as the plan says for the source, translated for
// the other format.
func (p *Place) carried(side migrate.Side) string {
	if side == migrate.Source {
		return p.o.MountOptions
	}
	kept, _ := fstab.Translate(p.o.MountOptions, p.o.SourceFormat, p.o.TargetFormat)
	return kept
}

// superOptions are the carried options that the superblock takes.
func (p *Place) superOptions(side migrate.Side) map[string]string {
	m := map[string]string{}
	for _, o := range fstab.Split(p.carried(side)) {
		k, v, _ := strings.Cut(o, "=")
		switch {
		case fstab.IsUser(o) || k == "seclabel" || k == "subvolid":
		case k == "sync" || k == "dirsync" || k == "lazytime" || k == "mand":
			m[k] = ""
		case fstab.IsVFS(o):
		default:
			m[k] = strings.Trim(v, `"`)
		}
	}
	return m
}

// attributes are the carried options that the mount takes.
func (p *Place) attributes(side migrate.Side) uint64 {
	var attrs uint64
	for _, o := range fstab.Split(p.carried(side)) {
		switch o {
		case "nosuid":
			attrs |= unix.MOUNT_ATTR_NOSUID
		case "nodev":
			attrs |= unix.MOUNT_ATTR_NODEV
		case "noexec":
			attrs |= unix.MOUNT_ATTR_NOEXEC
		case "nosymfollow":
			attrs |= unix.MOUNT_ATTR_NOSYMFOLLOW
		case "nodiratime":
			attrs |= unix.MOUNT_ATTR_NODIRATIME
		case "noatime":
			attrs = attrs&^unix.MOUNT_ATTR__ATIME | unix.MOUNT_ATTR_NOATIME
		case "strictatime":
			attrs = attrs&^unix.MOUNT_ATTR__ATIME | unix.MOUNT_ATTR_STRICTATIME
		case "relatime":
			attrs &^= unix.MOUNT_ATTR__ATIME
		case "suid":
			attrs &^= unix.MOUNT_ATTR_NOSUID
		case "dev":
			attrs &^= unix.MOUNT_ATTR_NODEV
		case "exec":
			attrs &^= unix.MOUNT_ATTR_NOEXEC
		}
	}
	return attrs
}

// RemountOther unmounts the private mount of a side, proves it by opening the
// device exclusively, and mounts it again: what is then read comes from the disk and
// through the volume's own reader. The former tree is dead afterwards.
func (p *Place) RemountOther(ctx context.Context, side migrate.Side) (*blockdev.Tree, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	write := false
	if t := p.trees[side]; t != nil {
		write = t.write
	}
	if err := p.dropPrivate(side); err != nil {
		return nil, err
	}
	d, err := p.device(side)
	if err != nil {
		return nil, err
	}
	if err := p.exclusive(ctx, side, d.Path); err != nil {
		return nil, err
	}
	t, err := p.mountPrivate(side, write)
	if err != nil {
		return nil, err
	}
	p.trees[side] = t
	return t.tree, nil
}

func (p *Place) dropPrivate(side migrate.Side) error {
	t := p.trees[side]
	if t == nil {
		return nil
	}
	delete(p.trees, side)
	if t.write {
		if err := blockdev.Syncfs(t.tree.Fd()); err != nil {
			return errors.Join(fmt.Errorf("sync the %s: %w", side, err), t.tree.Close())
		}
	}
	if err := t.tree.Close(); err != nil {
		return fmt.Errorf("unmount the private mount of the %s: %w", side, err)
	}
	return nil
}

// gone reports whether err says that a side's device was taken away. Not so where its volume is
// still at its path: its ids changed (an image that was renamed), and somebody may hold it.
func (p *Place) gone(side migrate.Side, err error) bool {
	if !errors.Is(err, blockdev.ErrNoDevice) {
		return false
	}
	path, uuid := p.o.Source.Path, p.o.SourceUUID
	if side == migrate.Shadow {
		rec, err := p.loadRecord()
		if err != nil {
			return false
		}
		path, uuid = p.o.Spare.Path, rec.UUID
	}
	f, ok := formats.Lookup(p.format(side))
	if !ok {
		return false
	}
	v, err := probe(path, f)
	return err != nil || v.UUID != uuid
}

// Release ends our use of a side: its private mount is unmounted, and unless it
// is the volume in place the device is opened exclusively, which proves that no mount and no
// other holder is left. A loop that we made over a spare file is detached then.
func (p *Place) Release(ctx context.Context, side migrate.Side) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.dropPrivate(side); err != nil {
		return err
	}
	if top, err := p.top(side); err == nil && top != nil {
		return nil
	}
	d, err := p.deviceIfThere(side)
	if p.gone(side, err) {
		// It was taken away, and what we held of it went with the process that held it.
		return errors.Join(p.dropLedger(side), p.o.Audit("released", map[string]any{"side": side, "gone": err.Error()}))
	}
	if side == migrate.Shadow && p.o.Spare.File != "" && errors.Is(err, os.ErrNotExist) {
		// Only its loop is left of the file, and has the room on the disk still.
		return errors.Join(detach(blockdev.LoopOfRemoved(p.o.Spare.File)), p.dropLedger(side),
			p.o.Audit("released", map[string]any{"side": side, "gone": err.Error()}))
	}
	if err != nil || d == nil {
		return err
	}
	path := d.Path
	if err := p.exclusive(ctx, side, path); err != nil {
		return err
	}
	if err := p.dropLedger(side); err != nil {
		return err
	}
	if side == migrate.Shadow && p.o.Spare.File != "" {
		if err := detach(blockdev.LoopOf(p.o.Spare.File)); err != nil {
			return err
		}
	}
	return p.o.Audit("released", map[string]any{"side": side, "device": path})
}

// unmountTime bounds the wait for the kernel to finish an unmount, which it
// does after the last descriptor is closed and without telling anybody.
const unmountTime = 30 * time.Second

// exclusive waits until the device can be opened by nobody but us.
func (p *Place) exclusive(ctx context.Context, side migrate.Side, path string) error {
	ctx, cancel := context.WithTimeout(ctx, unmountTime)
	defer cancel()
	if p.mountedElsewhere(side) {
		cancel() // nothing to wait for: one attempt
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		f, err := blockdev.OpenExclusive(path)
		if err == nil {
			return f.Close()
		}
		if !errors.Is(err, unix.EBUSY) {
			return fmt.Errorf("open %s exclusively: %w", path, err)
		}
		select {
		case <-ctx.Done():
			return p.busyDevice(side, path)
		case <-tick.C:
		}
	}
}

// busyDevice names who holds a device: mounts in any namespace, processes on
// mounts that are attached nowhere, other devices.
func (p *Place) busyDevice(side migrate.Side, path string) error {
	holders, err := blockdev.DeviceHolders(path)
	if err != nil {
		return fmt.Errorf("find who holds %s: %w", path, err)
	}
	busy := &migrate.Busy{What: fmt.Sprintf("the %s %s", side, path)}
	for _, h := range holders {
		busy.Holders = append(busy.Holders, migrate.Holder(h))
	}
	return busy
}

// detach lets go of the loop that was found, if one was.
func detach(l *blockdev.Loop, err error) error {
	if err != nil || l == nil {
		return err
	}
	return l.Detach()
}
