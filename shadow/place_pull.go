package shadow

import (
	"fmt"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/fsmigrate/fsmigrate/blockdev"
)

// pullOut takes away the mount below the truth by the propagation that brought it into other
// namespaces. An unmount that propagates removes what is mounted at that place, in each
// namespace, and lets what lies on it down onto the parent, where a plain one would
// take both. So a private clone of the parent gets something mounted at that
// place, joins the parent's peer group, and has it unmounted.
//
// It reports whether the lower mount is gone: the kernel leaves one that has
// submounts, which only whoever holds its descriptor can unmount first.
func (p *Place) pullOut(truth *mountPoint, l *listing) (bool, error) {
	parent, ok := l.groundOf(truth.Parent)
	if !ok {
		return false, nil
	}
	p.clearLower(truth.Parent, l)
	ground, err := openRoot(parent.Point, parent.ID)
	if err != nil {
		return false, nil //nolint:nilerr // covered itself: the other way works
	}
	defer unix.Close(ground)
	if err := p.makeScratch(); err != nil {
		return false, err
	}
	peer, err := unix.OpenTree(unix.AT_FDCWD, filepath.Dir(p.o.Dir), unix.OPEN_TREE_CLONE|unix.O_CLOEXEC|unix.AT_NO_AUTOMOUNT|unix.AT_SYMLINK_NOFOLLOW)
	if err != nil {
		return false, fmt.Errorf("clone the mount around %s: %w", p.o.Dir, err)
	}
	defer unix.Close(peer)
	if err := makePrivate(peer); err != nil {
		return false, fmt.Errorf("make a clone private: %w", err)
	}
	if err := unix.MoveMount(peer, "", unix.AT_FDCWD, p.scratch(), unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return false, fmt.Errorf("mount a clone aside: %w", err)
	}
	decoy := filepath.Join(p.scratch(), filepath.Base(p.o.Dir))
	if err := mountTmpfs(decoy); err != nil {
		return false, fmt.Errorf("mount a decoy aside: %w", err)
	}
	if err := p.step("settle-pull"); err != nil {
		return false, err
	}
	if err := unix.MoveMount(ground, "", peer, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH|unix.MOVE_MOUNT_SET_GROUP); err != nil {
		return false, nil //nolint:nilerr // not shared after all: the other way works
	}
	if err := p.step("settle-pulled"); err != nil {
		return false, err
	}
	if err := unix.Unmount(decoy, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
		return false, fmt.Errorf("unmount a decoy: %w", err)
	}
	if err := p.dropScratch(); err != nil {
		return false, err
	}
	now, err := p.top(truth.side)
	if err != nil {
		return false, err
	}
	return now.ID == truth.ID && now.Parent == parent.ID, nil
}

// groundOf is the mount on which mount id of our namespace lies.
func (l *listing) groundOf(id int) (blockdev.Mount, bool) {
	ours := map[int]blockdev.Mount{}
	for _, m := range l.all {
		if m.NS == l.ns {
			ours[m.ID] = m
		}
	}
	g, ok := ours[ours[id].Parent]
	return g, ok
}

// clearLower unmounts the submounts of the lower mount, if that is the one we hold. What
// cannot be unmounted shows when the lower one stays.
func (p *Place) clearLower(id int, l *listing) {
	if p.lower <= 0 {
		return
	}
	if held, err := mountID(p.lower); err != nil || held != id {
		return
	}
	for _, m := range l.all {
		if m.NS != l.ns || m.Parent != id || m.Point == p.o.Dir {
			continue
		}
		if rel, err := filepath.Rel(p.o.Dir, m.Point); err == nil {
			_ = unix.Unmount(fmt.Sprintf("/proc/self/fd/%d/%s", p.lower, rel), unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		}
	}
}
