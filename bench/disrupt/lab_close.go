package disrupt

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fsmigrate/fsmigrate/blockdev"
)

// unmountLimit bounds how long the last users of the volumes are waited for.
const unmountLimit = 20 * time.Second

// unmount takes all mounts away, also those on top of each other.
func (l *lab) unmount() error {
	for _, dir := range []string{l.data(), l.peer(), l.stateDir()} {
		end := time.Now().Add(unmountLimit)
		for n := 0; n < 16; {
			err := unix.Unmount(dir, unix.UMOUNT_NOFOLLOW)
			switch {
			case err == nil:
				n++
				continue
			case errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT):
				n = 16 // none is left
				continue
			case !errors.Is(err, unix.EBUSY) || time.Now().After(end):
				return errors.Join(fmt.Errorf("unmount %s: %w", dir, err), unix.Unmount(dir, unix.MNT_DETACH))
			}
			<-time.After(50 * time.Millisecond) // whoever uses it is ending
		}
	}
	return nil
}

// close takes everything away. Whatever used the volumes has ended.
func (l *lab) close() error {
	errs := []error{l.unmount()}
	for _, f := range l.blank {
		errs = append(errs, tool(context.Background(), "wipefs", "-q", "-a", f.Name()), f.Close()) // as blank as it was
	}
	for _, loop := range l.loops {
		errs = append(errs, loop.Detach())
	}
	errs = append(errs, os.RemoveAll(l.root))
	if l.lock != nil {
		errs = append(errs, l.lock.Close())
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("clean up %s: %w", l.root, err)
	}
	return nil
}

// claim locks a lab's directory; a benchmark that lives holds it.
func claim(root string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(root, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// clearDead takes away what a benchmark left that was killed: its loops and its files. Its
// mounts went with its mount namespace. What cannot be cleared now is tried by the next.
func clearDead(dir string) {
	left, _ := filepath.Glob(filepath.Join(dir, labPrefix+"*"))
	for _, root := range left {
		lock, err := claim(root)
		if err != nil {
			continue // it lives
		}
		images, _ := filepath.Glob(filepath.Join(root, "*.img"))
		free := true
		for _, image := range images {
			loop, err := blockdev.LoopOf(image)
			if err == nil && loop != nil {
				err = loop.Detach()
			}
			free = free && err == nil
		}
		if free {
			_ = os.RemoveAll(root)
		}
		_ = lock.Close()
	}
}
