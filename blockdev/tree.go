package blockdev

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Tree is a mount held by descriptor: detached, or attached somewhere, where
// the descriptor goes on naming this very mount whatever is above or below it.
type Tree struct {
	fd   int
	name string // for messages
}

// CloneTree makes a second, detached mount of what is mounted at dir, with its
// flags and without its submounts: files that a submount hides are visible in
// it. dir may be a directory below a mount's root, as for a bind.
func CloneTree(dir string) (*Tree, error) {
	return cloneAt(unix.AT_FDCWD, dir, 0)
}

// CloneFd is CloneTree of the mount root or directory that fd refers to. The
// mount must be attached in our namespace, or be a detached one of our own
// (Linux 6.15).
func CloneFd(fd int) (*Tree, error) {
	return cloneAt(fd, "", unix.AT_EMPTY_PATH)
}

func cloneAt(dirfd int, path string, flags uint) (*Tree, error) {
	name := path
	if name == "" {
		name = fdName(dirfd)
	}
	fd, err := unix.OpenTree(dirfd, path, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|flags)
	if err != nil {
		return nil, fmt.Errorf("clone mount %s: %w", name, err)
	}
	t := &Tree{fd: fd, name: name}
	// The clone of a shared mount is its peer: what is mounted in one appears in
	// the other, and what is unmounted in the original vanishes from the clone.
	private := unix.MountAttr{Propagation: unix.MS_PRIVATE}
	if err := setattr(fd, "", unix.AT_EMPTY_PATH|flags&unix.AT_RECURSIVE, private); err != nil {
		t.Close()
		return nil, fmt.Errorf("make clone of %s private: %w", name, err)
	}
	return t, nil
}

// Fd is the descriptor of the tree's root, an O_PATH one. It belongs to the tree.
func (t *Tree) Fd() int { return t.fd }

// Path reaches the tree's root through this process, for programs and calls
// that take a path.
func (t *Tree) Path() string { return fmt.Sprintf("/proc/self/fd/%d", t.fd) }

// Close gives the descriptor back; a tree that was never attached is unmounted
// by it. It may be called twice.
func (t *Tree) Close() error {
	if t == nil || t.fd < 0 {
		return nil
	}
	fd := t.fd
	t.fd = -1
	if err := unix.Close(fd); err != nil {
		return fmt.Errorf("close mount of %s: %w", t.name, err)
	}
	return nil
}

// SetReadOnly makes this one mount refuse or accept writes; its superblock and
// other mounts stay as they are. EBUSY while something is open for writing
// through it. It must be attached in our namespace or a detached tree of ours.
func (t *Tree) SetReadOnly(ro bool) error { return SealFd(t.fd, ro) }

// SetAttrs sets and clears MOUNT_ATTR_* of this mount.
func (t *Tree) SetAttrs(set, clear uint64) error {
	if err := setattr(t.fd, "", unix.AT_EMPTY_PATH, unix.MountAttr{Attr_set: set, Attr_clr: clear}); err != nil {
		return fmt.Errorf("set attributes of the mount of %s: %w", t.name, err)
	}
	return nil
}

// Attach puts the tree on top of whatever is at dir. An attached tree moves.
func (t *Tree) Attach(dir string) error {
	err := unix.MoveMount(t.fd, "", unix.AT_FDCWD, dir, unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_SYMLINKS)
	if err != nil {
		return fmt.Errorf("attach %s at %s: %w", t.name, dir, err)
	}
	return nil
}

// AttachOver is the fallback for kernels without AttachBeneath: the tree goes on
// top of the mount at dir, which stays below it. Path lookups change over at
// once as with AttachBeneath, but what is below can then be unmounted only with
// what is on it: UnmountFd tells how it gets by. dir must be a mount point.
func (t *Tree) AttachOver(dir string) error {
	if _, err := MountAt(dir); err != nil {
		return fmt.Errorf("attach %s over %s: %w", t.name, dir, err)
	}
	return t.Attach(dir)
}

// ErrNoBeneath says that the kernel can't slip a mount beneath another (Linux 6.5 can).
var ErrNoBeneath = errors.New("this kernel can't attach a mount beneath another")

// moveMountBeneath is MOVE_MOUNT_BENEATH of linux/mount.h.
const moveMountBeneath = 0x200

// noBeneath makes this kernel look like one before 6.5, for tests of the fallback.
var noBeneath bool

// CanAttachBeneath reports whether the kernel knows AttachBeneath, by trying.
func CanAttachBeneath() bool {
	if noBeneath {
		return false
	}
	// Unknown flags are refused (EINVAL) before the descriptors are (EBADF).
	err := unix.MoveMount(-1, "", -1, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH|moveMountBeneath)
	return !errors.Is(err, unix.EINVAL)
}

// AttachBeneath slips the tree between the topmost mount at dir and what that
// is mounted on. Nothing changes for anybody until DetachTop(dir) uncovers it,
// without an instant of absence. dir must be a mount point and not the root of
// the namespace. The tree must be detached: a mount that is attached below a
// shared mount can't be moved (EINVAL), its clone can.
// ErrNoBeneath: see AttachOver.
func (t *Tree) AttachBeneath(dir string) error {
	if !CanAttachBeneath() {
		return fmt.Errorf("attach %s beneath %s: %w", t.name, dir, ErrNoBeneath)
	}
	err := unix.MoveMount(t.fd, "", unix.AT_FDCWD, dir,
		unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_SYMLINKS|moveMountBeneath)
	if err != nil {
		return fmt.Errorf("attach %s beneath %s: %w", t.name, dir, err)
	}
	return nil
}

// setattr is mount_setattr(2), here so that all of its callers agree on the call.
func setattr(dirfd int, path string, flags uint, attr unix.MountAttr) error {
	return unix.MountSetattr(dirfd, path, flags, &attr)
}
