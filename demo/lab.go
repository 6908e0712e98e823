package demo

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fsmigrate/fsmigrate/blockdev"
)

const labPrefix = "fsmigrate-demo."

// lab is a demo's own directory with two volumes' images, and everything that
// must be gone when it is closed.
type lab struct {
	paths
	lock     *os.File
	old, new *blockdev.Loop
	keep     bool
}

// openLab makes the directory, after it has cleared those whose demo was killed.
func openLab(dir string) (*lab, error) {
	left, err := filepath.Glob(filepath.Join(dir, labPrefix+"*"))
	if err != nil {
		return nil, err
	}
	for _, d := range left {
		l := &lab{paths: paths{d}}
		if l.take() == nil {
			_ = l.close() // what cannot be cleared now is tried by the next demo
		}
	}
	root, err := os.MkdirTemp(dir, labPrefix)
	if err != nil {
		return nil, fmt.Errorf("make the demo's directory: %w", err)
	}
	l := &lab{paths: paths{root}}
	if err := os.WriteFile(l.lockPath(), nil, 0o600); err != nil {
		return nil, errors.Join(err, os.RemoveAll(root))
	}
	if err := l.take(); err != nil {
		return nil, errors.Join(err, os.RemoveAll(root))
	}
	return l, nil
}

func (l *lab) lockPath() string { return filepath.Join(l.root, "lock") }

// take locks the directory; a demo that lives holds it. One that was kept has no lock.
func (l *lab) take() error {
	f, err := os.OpenFile(l.lockPath(), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return errors.Join(err, f.Close())
	}
	l.lock = f
	return nil
}

// volumes makes both images, an ext4 with the 128-byte inodes of old on one, and mounts it.
func (l *lab) volumes(ctx context.Context, size int64) error {
	for _, d := range []string{l.data(), l.state(), l.ledger()} {
		if err := os.Mkdir(d, 0o700); err != nil {
			return err
		}
	}
	var err error
	if l.old, err = image(l.oldImage(), size); err != nil {
		return err
	}
	if l.new, err = image(l.newImage(), size); err != nil {
		return err
	}
	// The inode size that Debian and others used for small volumes for years.
	if err := command(ctx, "mkfs.ext4", "-q", "-F", "-I", "128", "-L", "demo", l.old.Path); err != nil {
		return err
	}
	if err := unix.Mount(l.old.Path, l.data(), "ext4", 0, ""); err != nil {
		return fmt.Errorf("mount %s: %w", l.old.Path, err)
	}
	uuid, err := exec.CommandContext(ctx, "blkid", "-p", "-s", "UUID", "-o", "value", l.old.Path).Output()
	if err != nil {
		return fmt.Errorf("read the volume's UUID: %w", err)
	}
	entry := fmt.Sprintf("UUID=%s %s ext4 defaults 0 2\n", strings.TrimSpace(string(uuid)), l.data())
	return os.WriteFile(l.fstab(), []byte(entry), 0o600)
}

func image(file string, size int64) (*blockdev.Loop, error) {
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		return nil, err
	}
	if err := os.Truncate(file, size); err != nil {
		return nil, err
	}
	return blockdev.AttachLoop(file, blockdev.LoopOptions{DirectIO: true})
}

// command runs a tool and gives what it said when it fails.
func command(ctx context.Context, name string, args ...string) error {
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, strings.TrimSpace(string(out)))
	}
	return nil
}

// closeLimit bounds how long the last users of the volumes are waited for.
const closeLimit = 20 * time.Second

// close takes everything away. Whatever used the volumes has ended.
func (l *lab) close() error {
	end := time.Now().Add(closeLimit)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	err := l.release()
	for err != nil && time.Now().Before(end) {
		<-tick.C
		err = l.release()
	}
	if err == nil && l.keep {
		err = os.Remove(l.lockPath())
	} else if err == nil {
		err = os.RemoveAll(l.root)
	}
	if l.lock != nil {
		err = errors.Join(err, l.lock.Close())
	}
	if err != nil {
		return fmt.Errorf("clean up %s: %w", l.root, err)
	}
	return nil
}

// release unmounts and detaches what is still there.
func (l *lab) release() error {
	for range 16 { // mounts may lie on top of each other
		if err := unix.Unmount(l.data(), unix.UMOUNT_NOFOLLOW); err != nil {
			if errors.Is(err, unix.EBUSY) {
				err = unix.Unmount(l.data(), unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
			}
			if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
				break
			}
			if err != nil {
				return fmt.Errorf("unmount %s: %w", l.data(), err)
			}
		}
	}
	for _, file := range []string{l.oldImage(), l.newImage()} {
		loop, err := blockdev.LoopOf(file)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		if loop == nil {
			continue
		}
		// Another process's mount namespace may hold a copy of our mount, which was made
		// while it was there. The kernel then detaches with that copy's end.
		if err := loop.Detach(); err != nil && !errors.Is(err, unix.EBUSY) {
			return err
		}
	}
	return nil
}
