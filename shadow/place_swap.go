package shadow

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/fsmigrate/fsmigrate/blockdev"
	"github.com/fsmigrate/fsmigrate/migrate"
)

// SwapIn mounts side `to` read-only beneath the fenced truth at Dir, with the
// truth's submounts attached to it as well. Nothing that applications see has
// changed then, and Settle for either side finishes or undoes it.
//
// A kernel without MOVE_MOUNT_BENEATH (before 6.5) gets it read-only on top: applications
// then see it before the record, and cannot write to it.
func (p *Place) SwapIn(ctx context.Context, to migrate.Side) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	l, err := p.listOwn()
	if err != nil {
		return err
	}
	stack, err := p.stack(l)
	if err != nil {
		return err
	}
	for _, m := range stack {
		if m.side == to {
			return fmt.Errorf("swap in the %s: it is mounted at %s already; settle first", to, p.o.Dir)
		}
	}
	if len(stack) == 0 {
		return fmt.Errorf("swap in the %s: nothing of this migration is mounted at %s", to, p.o.Dir)
	}
	return p.putBeneath(to)
}

// putBeneath attaches a new read-only mount of `to` beneath what is at Dir, with clones
// of the submounts that are there. It is put together aside and moves in as a
// whole, so that no crash leaves it without some of them where no path leads to it.
func (p *Place) putBeneath(to migrate.Side) error {
	t, _, err := p.mountDevice(to, p.attributes(to)|unix.MOUNT_ATTR_RDONLY)
	if err != nil {
		return err
	}
	defer t.Close() // the descriptor only: it is attached by then, or goes with it
	was, err := openTop(p.o.Dir)
	if err != nil {
		return err
	}
	defer unix.Close(was)
	if err := p.step("swap-aside"); err != nil {
		return err
	}
	if err := p.makeScratch(); err != nil {
		return err
	}
	if err := unix.MoveMount(t.Fd(), "", unix.AT_FDCWD, p.scratch(), unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("mount the %s aside: %w", to, err)
	}
	if err := p.step("swap-submounts"); err != nil {
		return err
	}
	if err := p.attachSubmounts(t.Fd()); err != nil {
		return err
	}
	if err := p.step("swap-attach"); err != nil {
		return err
	}
	lower, how := t.Fd(), "read-only, beneath"
	switch err := p.attachBeneath(t.Fd()); {
	case errors.Is(err, blockdev.ErrNoBeneath):
		p.o.Warn("the kernel cannot mount beneath "+p.o.Dir, "the new volume is on top, read-only until the switch", "")
		lower, how = was, "read-only, on top"
		if err := p.attachTop(t.Fd()); err != nil {
			return fmt.Errorf("swap in the %s: %w", to, err)
		}
	case err != nil:
		return fmt.Errorf("swap in the %s: %w", to, err)
	}
	p.keepLower(lower)
	if err := p.o.Audit("mounted", map[string]any{"side": to, "dir": p.o.Dir, "how": how}); err != nil {
		return err
	}
	return p.dropScratch()
}

// keepLower remembers the lower of the two mounts at Dir, which no path leads to:
// whoever holds it can take it away from under the other without detaching that.
func (p *Place) keepLower(fd int) {
	p.forgetLower()
	if dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3); err == nil {
		p.lower = dup
	}
}

func (p *Place) forgetLower() {
	if p.lower > 0 {
		unix.Close(p.lower)
	}
	p.lower = 0
}

// attachBeneath puts a detached or a moved mount beneath the one at Dir.
// blockdev.ErrNoBeneath where the kernel cannot, at all or there.
func (p *Place) attachBeneath(fd int) error {
	if p.noBeneath || !blockdev.CanAttachBeneath() {
		return blockdev.ErrNoBeneath
	}
	const beneath = 0x200 // MOVE_MOUNT_BENEATH of linux/mount.h
	err := unix.MoveMount(fd, "", unix.AT_FDCWD, p.o.Dir, unix.MOVE_MOUNT_F_EMPTY_PATH|beneath)
	if errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("mount beneath %s: %w: %w", p.o.Dir, blockdev.ErrNoBeneath, err)
	}
	if err != nil {
		return fmt.Errorf("mount beneath %s: %w", p.o.Dir, err)
	}
	return nil
}

// attachTop puts a detached or a moved mount on Dir.
func (p *Place) attachTop(fd int) error {
	if err := unix.MoveMount(fd, "", unix.AT_FDCWD, p.o.Dir, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("mount on %s: %w", p.o.Dir, err)
	}
	return nil
}

// openTop opens whatever is topmost at path.
func openTop(path string) (int, error) {
	fd, err := unix.OpenTree(unix.AT_FDCWD, path, unix.O_CLOEXEC|unix.AT_NO_AUTOMOUNT|unix.AT_SYMLINK_NOFOLLOW)
	if err != nil {
		return -1, fmt.Errorf("open %s: %w", path, err)
	}
	return fd, nil
}

// attachSubmounts mounts clones of what is mounted in the topmost volume at Dir in
// the mount whose root is fd, where there is nothing yet.
func (p *Place) attachSubmounts(fd int) (err error) {
	subs, err := blockdev.CloneSubmounts(p.o.Dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, blockdev.CloseSubmounts(subs)) }()
	here, err := mountID(fd)
	if err != nil {
		return err
	}
	for _, s := range subs {
		how := unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS}
		at, err := unix.Openat2(fd, s.Rel, &how)
		if err != nil {
			return fmt.Errorf("find the place of submount %s: %w", s.Rel, err)
		}
		there, err := mountID(at)
		unix.Close(at)
		if err != nil {
			return err
		}
		if there != here {
			continue
		}
		if err := s.AttachUnderFd(fd); err != nil {
			return err
		}
	}
	return nil
}

// stack is what of this migration is mounted at Dir in our namespace, lowest first.
// Another volume mounted over it is an error: nobody but its owner can tell what it is for.
func (p *Place) stack(l *listing) ([]*mountPoint, error) {
	byParent := map[int]*mountPoint{}
	var lowest *mountPoint
	mine := map[int]bool{}
	for _, m := range l.mounts {
		if m.own && m.Point == p.o.Dir {
			byParent[m.Parent] = m
			mine[m.ID] = true
		}
	}
	for _, m := range byParent {
		if !mine[m.Parent] {
			lowest = m
		}
	}
	var out []*mountPoint
	for m := lowest; m != nil; m = byParent[m.ID] {
		out = append(out, m)
	}
	if len(out) != len(byParent) {
		return nil, fmt.Errorf("the mounts at %s do not lie on one another", p.o.Dir)
	}
	if len(out) > 0 {
		fd, err := openRoot(p.o.Dir, out[len(out)-1].ID)
		if errors.Is(err, blockdev.ErrCovered) {
			return nil, &migrate.Busy{What: p.o.Dir, Holders: []migrate.Holder{{Command: "another file system", Path: p.o.Dir, Kind: "mount"}}}
		}
		if err != nil {
			return nil, err
		}
		unix.Close(fd)
	}
	return out, nil
}

// topOf is the mount of the truth that is visible at Dir.
func (p *Place) topOf(l *listing, truth migrate.Side) (*mountPoint, error) {
	stack, err := p.stack(l)
	if err != nil {
		return nil, err
	}
	if len(stack) == 0 {
		return nil, fmt.Errorf("neither volume is mounted at %s", p.o.Dir)
	}
	top := stack[len(stack)-1]
	if top.side != truth {
		return nil, fmt.Errorf("the %s is mounted at %s, not the %s", top.side, p.o.Dir, truth)
	}
	return top, nil
}

func (p *Place) top(truth migrate.Side) (*mountPoint, error) {
	l, err := p.listOwn()
	if err != nil {
		return nil, err
	}
	return p.topOf(l, truth)
}

// scratch is where a mount waits while the one beneath it is taken away.
func (p *Place) scratch() string { return filepath.Join(p.o.StateDir, "aside") }

// makeScratch makes the scratch place: a mount of its own, private, because a mount
// cannot be moved away from a shared one.
func (p *Place) makeScratch() error {
	if err := p.dropScratch(); err != nil {
		return err
	}
	if err := os.MkdirAll(p.scratch(), 0o700); err != nil {
		return fmt.Errorf("make scratch place: %w", err)
	}
	if err := p.mountScratch(); err != nil {
		return fmt.Errorf("make scratch place: %w", err)
	}
	return nil
}

func (p *Place) mountScratch() error {
	if err := mountTmpfs(p.scratch()); err != nil {
		return err
	}
	fd, err := openTop(p.scratch())
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return makePrivate(fd)
}

func mountTmpfs(at string) error {
	fs, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return err
	}
	defer unix.Close(fs)
	if err := unix.FsconfigCreate(fs); err != nil {
		return err
	}
	fd, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, hardened)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.MoveMount(fd, "", unix.AT_FDCWD, at, unix.MOVE_MOUNT_F_EMPTY_PATH)
}

func makePrivate(fd int) error {
	return unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Propagation: unix.MS_PRIVATE})
}

// dropScratch takes the scratch place away, and what a crash left there. Nothing of that
// may propagate: a decoy of pullOut would take away the truth.
func (p *Place) dropScratch() error {
	for {
		if fd, err := openTop(p.scratch()); err == nil {
			_ = unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &unix.MountAttr{Propagation: unix.MS_PRIVATE})
			unix.Close(fd)
		}
		switch err := unix.Unmount(p.scratch(), unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); {
		case err == nil:
		case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOENT):
			if err := os.Remove(p.scratch()); err != nil && !errors.Is(err, os.ErrNotExist) {
				return fmt.Errorf("remove scratch place: %w", err)
			}
			return nil
		default:
			return fmt.Errorf("unmount scratch place: %w", err)
		}
	}
}
