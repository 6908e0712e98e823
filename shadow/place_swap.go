package shadow

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fsmigrate/fsmigrate/migrate"
)

// moveMountBeneath is MOVE_MOUNT_BENEATH of linux/mount.h (6.5).
const moveMountBeneath = 0x200

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
	l, err := p.list()
	if err != nil {
		return err
	}
	defer l.close()
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

// putBeneath attaches a new read-only mount of `to` beneath what is at Dir, and gives it
// the submounts.
func (p *Place) putBeneath(to migrate.Side) error {
	t, _, err := p.mountDevice(to, p.attributes(to)|unix.MOUNT_ATTR_RDONLY)
	if err != nil {
		return err
	}
	defer t.Close() // the descriptor only: it is attached by then, or goes with it
	subs, err := p.submounts()
	if err != nil {
		return err
	}
	defer subs.close()
	was, err := openTop(p.o.Dir)
	if err != nil {
		return err
	}
	defer unix.Close(was)
	if err := p.step("swap-attach"); err != nil {
		return err
	}
	lower, how := t.Fd(), "read-only, beneath"
	switch err := p.attachBeneath(t.Fd()); {
	case errors.Is(err, errNoBeneath):
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
	if err := p.step("swap-submounts"); err != nil {
		return err
	}
	return subs.attach(t.Fd())
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

// errNoBeneath says that the kernel cannot put one mount beneath another there.
var errNoBeneath = errors.New("cannot mount beneath")

// attachBeneath puts a detached or moved mount beneath the one at Dir.
func (p *Place) attachBeneath(fd int) error {
	if p.noBeneath {
		return errNoBeneath
	}
	err := unix.MoveMount(fd, "", unix.AT_FDCWD, p.o.Dir, unix.MOVE_MOUNT_F_EMPTY_PATH|moveMountBeneath)
	if errors.Is(err, unix.EINVAL) { // also the answer of a kernel that does not know the flag
		return fmt.Errorf("mount beneath %s: %w", p.o.Dir, errNoBeneath)
	}
	if err != nil {
		return fmt.Errorf("mount beneath %s: %w", p.o.Dir, err)
	}
	return nil
}

// attachTop puts a detached or moved mount on Dir.
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

// submount is a clone of something mounted inside the volume, with all below it.
type submount struct {
	fd   int
	path string // relative to the volume's root
}

type submountSet []submount

func (s submountSet) close() {
	for _, m := range s {
		unix.Close(m.fd)
	}
}

// submounts clones what is mounted inside the topmost volume at Dir. Each clone takes
// everything below it along.
func (p *Place) submounts() (set submountSet, err error) {
	infos, err := readMountinfo("/proc/thread-self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("read mounts: %w", err)
	}
	top := 0
	children := map[int]int{} // at Dir itself: parent → child
	for _, i := range infos {
		if i.Mountpoint == p.o.Dir {
			children[i.Parent] = i.ID
			top = i.ID
		}
	}
	for c, ok := children[top]; ok && c != top; c, ok = children[top] {
		top = c
	}
	defer func() {
		if err != nil {
			set.close()
		}
	}()
	for _, i := range infos {
		if i.Parent != top || i.Mountpoint == p.o.Dir {
			continue
		}
		fd, err := unix.OpenTree(unix.AT_FDCWD, i.Mountpoint,
			unix.OPEN_TREE_CLONE|unix.AT_RECURSIVE|unix.O_CLOEXEC|unix.AT_NO_AUTOMOUNT|unix.AT_SYMLINK_NOFOLLOW)
		if err != nil {
			return set, fmt.Errorf("clone submount %s: %w", i.Mountpoint, err)
		}
		set = append(set, submount{fd: fd, path: strings.TrimPrefix(i.Mountpoint, p.o.Dir+"/")})
	}
	return set, nil
}

// attach mounts the clones on the volume whose root is fd, where there is not
// one already. The paths are walked beneath that root, so that neither what
// covers it nor a symbolic link leads elsewhere.
func (s submountSet) attach(root int) error {
	for _, m := range s {
		how := unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS}
		at, err := unix.Openat2(root, m.path, &how)
		if err != nil {
			return fmt.Errorf("find the place of submount %s: %w", m.path, err)
		}
		here, err := shortID(root)
		var there int
		if err == nil {
			there, err = shortID(at)
		}
		if err == nil && here == there {
			err = unix.MoveMount(m.fd, "", at, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
		}
		unix.Close(at)
		if err != nil {
			return fmt.Errorf("attach submount %s: %w", m.path, err)
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
		if m.ns.own && m.Mountpoint == p.o.Dir {
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
		if errors.Is(err, errCovered) {
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
	l, err := p.list()
	if err != nil {
		return nil, err
	}
	defer l.close()
	return p.topOf(l, truth)
}

// scratch is where a mount waits while the one beneath it is taken away.
func (p *Place) scratch() string { return filepath.Join(p.o.StateDir, "aside") }

// withScratch makes the scratch place: a mount of its own, private, because a mount
// cannot be moved away from a shared one.
func (p *Place) withScratch(fn func() error) error {
	if err := os.MkdirAll(p.scratch(), 0o700); err != nil {
		return fmt.Errorf("make scratch place: %w", err)
	}
	if err := p.mountScratch(); err != nil {
		return fmt.Errorf("make scratch place: %w", err)
	}
	err := fn()
	return errors.Join(err, p.dropScratch())
}

func (p *Place) mountScratch() error {
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
	if err := unix.MoveMount(fd, "", unix.AT_FDCWD, p.scratch(), unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return err
	}
	return makePrivate(fd)
}

func makePrivate(fd int) error {
	return unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Propagation: unix.MS_PRIVATE})
}

// dropScratch takes the scratch place away. It is called only when what was put
// aside is back in place, or is a leftover.
func (p *Place) dropScratch() error {
	for {
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
