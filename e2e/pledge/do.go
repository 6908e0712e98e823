package pledge

import (
	"errors"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// do does one operation and makes it durable.
func (o Options) do(op Op) error {
	p, to := o.path(op.Path), o.path(op.To)
	switch op.Kind {
	case Mkdir:
		return errors.Join(os.Mkdir(p, 0o755), o.syncDirs(p))
	case Symlink:
		return errors.Join(os.Symlink(op.To, p), o.syncDirs(p))
	case Create:
		return errors.Join(o.write(op, p, os.O_CREATE|os.O_EXCL|os.O_WRONLY), o.syncDirs(p))
	case Append:
		return o.write(op, p, os.O_WRONLY)
	case Overwrite:
		return o.write(op, p, os.O_WRONLY)
	case Store:
		return o.store(op, p)
	case Truncate:
		return o.onFile(op, p, os.O_WRONLY, func(f *os.File) error { return f.Truncate(op.Len) })
	case Attr:
		return o.onFile(op, p, os.O_RDONLY, func(f *os.File) error {
			return errors.Join(f.Chmod(os.FileMode(op.mode())), unix.Fsetxattr(int(f.Fd()), "user.pledge", []byte(op.xattr()), 0))
		})
	case Replace:
		tmp := o.path(op.newTmp())
		err := o.write(op, tmp, os.O_CREATE|os.O_EXCL|os.O_WRONLY)
		return errors.Join(err, os.Rename(tmp, p), o.syncDirs(p))
	case Rename:
		return errors.Join(os.Rename(p, to), o.syncDirs(p, to))
	case Link:
		err := os.Link(p, to)
		return errors.Join(err, o.onFile(op, p, os.O_RDONLY, func(*os.File) error { return nil }), o.syncDirs(to))
	case Unlink:
		return errors.Join(os.Remove(p), o.syncDirs(p))
	}
	return errors.New("unknown kind")
}

// onFile opens a file, lets do change it, and makes the change durable.
func (o Options) onFile(op Op, path string, flags int, do func(*os.File) error) error {
	f, err := os.OpenFile(path, flags|unix.O_NOFOLLOW, 0o644)
	if err != nil {
		return err
	}
	if err = do(f); err == nil && !o.Lie {
		// fdatasync does for content and size, not for attributes and names.
		if op.How == "fdatasync" && slices.Contains([]Kind{Append, Overwrite, Truncate}, op.Kind) {
			err = unix.Fdatasync(int(f.Fd()))
		} else {
			err = f.Sync()
		}
	}
	return errors.Join(err, f.Close())
}

// write writes the operation's data at its place.
func (o Options) write(op Op, path string, flags int) error {
	if op.How == "dsync" && !o.Lie && flags&os.O_CREATE == 0 {
		f, err := os.OpenFile(path, flags|unix.O_DSYNC|unix.O_NOFOLLOW, 0)
		if err != nil {
			return err
		}
		_, err = f.WriteAt(op.data(), op.Off)
		return errors.Join(err, f.Close())
	}
	return o.onFile(op, path, flags, func(f *os.File) error {
		if flags&os.O_CREATE != 0 {
			if err := f.Chmod(0o644); err != nil { // whatever the umask
				return err
			}
		}
		_, err := f.WriteAt(op.data(), op.Off)
		return err
	})
}

// store changes a file through a mapping of it.
func (o Options) store(op Op, path string) error {
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	first := op.Off / int64(os.Getpagesize()) * int64(os.Getpagesize())
	b, err := unix.Mmap(int(f.Fd()), first, int(op.Off-first+op.Len), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	copy(b[op.Off-first:], op.data())
	if !o.Lie {
		err = unix.Msync(b, unix.MS_SYNC)
	}
	return errors.Join(err, unix.Munmap(b))
}

// syncDirs makes the entries of the directories that hold the paths durable.
func (o Options) syncDirs(paths ...string) error {
	if o.Lie {
		return nil
	}
	var dirs []string
	for _, p := range paths {
		if d := filepath.Dir(p); !slices.Contains(dirs, d) {
			dirs = append(dirs, d)
		}
	}
	for _, d := range dirs {
		f, err := os.Open(d)
		if err != nil {
			return err
		}
		if err := errors.Join(f.Sync(), f.Close()); err != nil {
			return err
		}
	}
	return nil
}
