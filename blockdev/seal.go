package blockdev

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// ErrDetached says that a mount is in no namespace: the kernel changes no flag
// of such a mount any more. Who keeps it alive must let go of it, or its
// superblock must stay read-only.
var ErrDetached = errors.New("mount is detached from every namespace")

// Seal sets or clears MOUNT_ATTR_RDONLY on that one mount, in whatever
// namespace it is. ErrCovered if another mount hides it there (SealFd can do it),
// ErrDetached if it is in none, EBUSY while something is open for writing through it.
// A mount that is gone is os.ErrNotExist.
func Seal(m Mount, ro bool) error {
	what := fmt.Sprintf("seal mount %d at %s", m.ID, m.Point)
	if m.Detached() {
		return sealDetached(m, ro)
	}
	own, err := nsInode("/proc/thread-self/ns/mnt")
	if err != nil {
		return err
	}
	if m.NS == own {
		if err := sealAt(m, ro); err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		return nil
	}
	ns, err := openNamespace(m)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	defer ns.Close()
	if err := inNamespace(ns, func(int) error { return sealAt(m, ro) }); err != nil {
		return fmt.Errorf("%s in the namespace of process %d: %w", what, m.PID, err)
	}
	return nil
}

// SealFd sets or clears MOUNT_ATTR_RDONLY on the mount whose root fd is, also
// when it is covered. ErrDetached if it is in no namespace any more, or in one
// that the calling thread isn't in: the kernel doesn't tell the two apart.
func SealFd(fd int, ro bool) error {
	err := setattr(fd, "", unix.AT_EMPTY_PATH, readOnlyAttr(ro))
	if err == nil {
		return nil
	}
	if errors.Is(err, unix.EINVAL) {
		if st, serr := statMount(fd); serr == nil && st.Attributes&unix.STATX_ATTR_MOUNT_ROOT == 0 {
			return fmt.Errorf("seal mount of %s: %w", fdName(fd), ErrNotMountPoint)
		}
		return fmt.Errorf("seal mount of %s: %w", fdName(fd), ErrDetached)
	}
	return fmt.Errorf("seal mount of %s: %w", fdName(fd), err)
}

// sealAt seals m by its place in the calling thread's namespace.
func sealAt(m Mount, ro bool) error {
	fd, err := openPath(m.Point)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	st, err := statMount(fd)
	if err != nil {
		return err
	}
	if int(st.Mnt_id) != m.ID {
		return fmt.Errorf("mount %d is there: %w", st.Mnt_id, ErrCovered)
	}
	return SealFd(fd, ro)
}

func sealDetached(m Mount, ro bool) error {
	fd, err := openPath(m.Via)
	if err != nil {
		return fmt.Errorf("seal detached mount %d: %w", m.ID, err)
	}
	defer unix.Close(fd)
	if st, err := statMount(fd); err != nil {
		return err
	} else if int(st.Mnt_id) != m.ID {
		return fmt.Errorf("seal detached mount %d through %s: %w", m.ID, m.Via, os.ErrNotExist)
	}
	if err := setattr(fd, "", unix.AT_EMPTY_PATH, readOnlyAttr(ro)); err != nil {
		if errors.Is(err, unix.EINVAL) {
			err = ErrDetached
		}
		return fmt.Errorf("seal detached mount %d through %s: %w", m.ID, m.Via, err)
	}
	return nil
}

// openNamespace opens m's namespace: through a process in it, else among all.
func openNamespace(m Mount) (*os.File, error) {
	if m.PID != 0 {
		f, err := os.Open(fmt.Sprintf("/proc/%d/ns/mnt", m.PID))
		if ignoreGone(err) != nil {
			return nil, fmt.Errorf("open mount namespace: %w", err)
		}
		if err == nil {
			if ino, err := nsInode(fmt.Sprintf("/proc/self/fd/%d", f.Fd())); err == nil && ino == m.NS {
				return f, nil
			}
			f.Close()
		}
	}
	spaces, _, err := foreignNamespaces()
	defer closeNamespaces(spaces)
	if err != nil {
		return nil, err
	}
	for _, s := range spaces {
		if s.inode == m.NS {
			fd, err := unix.FcntlInt(s.file.Fd(), unix.F_DUPFD_CLOEXEC, 3)
			if err != nil {
				return nil, fmt.Errorf("open mount namespace %d: %w", m.NS, err)
			}
			return os.NewFile(uintptr(fd), "mnt namespace"), nil
		}
	}
	return nil, fmt.Errorf("mount namespace %d: %w", m.NS, os.ErrNotExist)
}

func readOnlyAttr(ro bool) unix.MountAttr {
	if ro {
		return unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
	}
	return unix.MountAttr{Attr_clr: unix.MOUNT_ATTR_RDONLY}
}
