package blockdev

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Submount is a clone of something mounted inside another mount, with all that
// is mounted in it, detached.
type Submount struct {
	Rel   string // its place, relative to the mount that it was in
	Mount Mount  // the original
	tree  *Tree
}

// CloneSubmounts clones everything that is mounted directly in the topmost
// mount at dir. A swap of that mount would take them away with it; the clones are attached
// again in the mount that takes its place. Close those that aren't used.
//
// The clones have no propagation ties: those of the originals would carry the
// swap's unmount over to them. Attached in a shared mount they are shared, and a
// submount that was shared itself is again, but not with its former peers.
func CloneSubmounts(dir string) ([]Submount, error) {
	top, err := MountAt(dir)
	if err != nil {
		return nil, fmt.Errorf("clone submounts of %s: %w", dir, err)
	}
	mounts, err := ownMounts()
	if err != nil {
		return nil, err
	}
	var subs []Submount
	for _, m := range mounts {
		rel, ok := below(top.Point, m.Point)
		if m.Parent != top.ID || m.ID == top.ID || !ok {
			continue
		}
		tree, err := cloneSubmount(m)
		if err != nil {
			for _, s := range subs {
				s.Close()
			}
			return nil, fmt.Errorf("clone submounts of %s: %w", dir, err)
		}
		subs = append(subs, Submount{Rel: rel, Mount: m, tree: tree})
	}
	slices.SortFunc(subs, func(a, b Submount) int { return strings.Compare(a.Rel, b.Rel) })
	return subs, nil
}

// cloneSubmount clones m with its submounts. What is stacked on m's root is
// topmost at its point; the clone then has only the topmost of the stack, which
// is all that anybody could reach.
func cloneSubmount(m Mount) (*Tree, error) {
	return cloneAt(unix.AT_FDCWD, m.Point, unix.AT_RECURSIVE|unix.AT_SYMLINK_NOFOLLOW)
}

// AttachUnder attaches the clone at its place below dir. The place must exist
// there, without a symbolic link on the way.
func (s Submount) AttachUnder(dir string) error {
	fd, err := openPath(dir)
	if err != nil {
		return fmt.Errorf("attach submount %s: %w", s.Rel, err)
	}
	defer unix.Close(fd)
	return s.AttachUnderFd(fd)
}

// AttachUnderFd attaches the clone at its place below fd, the root of a mount
// that may still be covered: done between AttachBeneath and DetachTop, the
// submounts are never absent.
func (s Submount) AttachUnderFd(fd int) error {
	place, err := unix.Openat2(fd, s.Rel, &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		return fmt.Errorf("attach submount %s: open its place: %w", s.Rel, err)
	}
	defer unix.Close(place)
	err = unix.MoveMount(s.tree.fd, "", place, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
	if err != nil {
		return fmt.Errorf("attach submount %s below %s: %w", s.Rel, fdName(fd), err)
	}
	if strings.Contains(s.Mount.Propagation, "shared:") {
		if err := setattr(s.tree.fd, "", unix.AT_EMPTY_PATH, unix.MountAttr{Propagation: unix.MS_SHARED}); err != nil {
			return fmt.Errorf("share submount %s again: %w", s.Rel, err)
		}
	}
	return nil
}

// Close gives the clone back; it is unmounted if it was not attached.
func (s Submount) Close() error { return s.tree.Close() }

// CloseSubmounts closes all of them.
func CloseSubmounts(subs []Submount) error {
	var errs []error
	for _, s := range subs {
		errs = append(errs, s.Close())
	}
	return errors.Join(errs...)
}
