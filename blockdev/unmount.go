package blockdev

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// DetachTop takes the topmost mount at dir, and what is mounted in it, out of
// the namespace at once. Who has something open in it keeps it alive, and can
// write through it unless it was sealed before: a detached mount can't be.
func DetachTop(dir string) error {
	if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
		return fmt.Errorf("detach mount at %s: %w", dir, err)
	}
	return nil
}

// ErrCovered says that a mount is hidden by another one on its root, and that
// what was asked for can't be done without going through that.
var ErrCovered = errors.New("covered by another mount")

// UnmountFd unmounts the mount whose root fd is.
//
// Not lazy: EBUSY while anybody but fd itself uses it. Since fd keeps the mount
// busy, it is pointed at "/" meanwhile: after a success it is still to be closed
// but no longer names the mount; after a failure it names it again. ErrCovered
// when another mount lies on it.
//
// Lazy: it leaves the namespace at once. The kernel takes what is mounted on a
// mount's root away together with it, so what covers this one is cloned and put
// back. With AttachBeneath that is without an instant of absence: the cover is
// detached, its clone slipped beneath, and the mount detached, which for that
// instant is what dir shows; descriptors opened through the cover before stay
// good but name a detached mount from then on. Without it dir shows what is below
// for an instant.
func UnmountFd(fd int, lazy bool) error {
	m, err := MountOfFd(fd)
	if err != nil {
		return fmt.Errorf("unmount: %w", err)
	}
	cover, covered, err := coverOf(m)
	if err != nil {
		return fmt.Errorf("unmount %s: %w", m.Point, err)
	}
	switch {
	case covered && !lazy:
		return fmt.Errorf("unmount %s: %w", m.Point, ErrCovered)
	case covered:
		return unmountCovered(fd, m, cover)
	case lazy:
		if err := unix.Unmount(fmt.Sprintf("/proc/self/fd/%d", fd), unix.MNT_DETACH); err != nil {
			return fmt.Errorf("detach mount at %s: %w", m.Point, err)
		}
		return nil
	default:
		return unmountOwn(fd, m)
	}
}

// unmountOwn unmounts the topmost mount m at its point, with fd out of the way.
func unmountOwn(fd int, m Mount) error {
	root, err := openPath("/")
	if err != nil {
		return err
	}
	defer unix.Close(root)
	if err := unix.Dup3(root, fd, unix.O_CLOEXEC); err != nil {
		return fmt.Errorf("unmount %s: %w", m.Point, err)
	}
	umountErr := unix.Unmount(m.Point, unix.UMOUNT_NOFOLLOW)
	if umountErr == nil {
		return nil
	}
	again, err := openPath(m.Point)
	if err == nil {
		err = unix.Dup3(again, fd, unix.O_CLOEXEC)
		unix.Close(again)
	}
	return errors.Join(fmt.Errorf("unmount %s: %w", m.Point, umountErr), err)
}

// coverOf finds the mount that lies on m's root.
func coverOf(m Mount) (Mount, bool, error) {
	mounts, err := ownMounts()
	if err != nil {
		return Mount{}, false, err
	}
	for _, c := range mounts {
		if c.Parent == m.ID && c.ID != m.ID && c.Point == m.Point {
			return c, true, nil
		}
	}
	return Mount{}, false, nil
}

func unmountCovered(fd int, m, cover Mount) error {
	if _, more, err := coverOf(cover); err != nil {
		return err
	} else if more {
		return fmt.Errorf("unmount %s: more than one mount lies on it: %w", m.Point, ErrCovered)
	}
	clone, err := cloneAt(unix.AT_FDCWD, m.Point, unix.AT_RECURSIVE)
	if err != nil {
		return fmt.Errorf("unmount %s: %w", m.Point, err)
	}
	defer clone.Close()
	if st, err := statMount(fd); err != nil {
		return err
	} else if int(st.Mnt_id) != m.ID {
		return fmt.Errorf("unmount %s: its mounts changed meanwhile", m.Point)
	}
	// By descriptor the kernel would unmount the topmost mount all the same: it
	// follows mounts also from there. So layer by layer, from the top.
	if err := DetachTop(m.Point); err != nil {
		return err
	}
	attach := clone.Attach
	if CanAttachBeneath() {
		if err := clone.AttachBeneath(m.Point); err != nil {
			return errors.Join(fmt.Errorf("unmount %s: %w", m.Point, err), clone.Attach(m.Point))
		}
		attach = func(string) error { return nil }
	}
	return errors.Join(DetachTop(m.Point), attach(m.Point))
}
