package program

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// do does an operation and says what the volume answered. Again says that it may have
// been done already.
func (r *runner) do(m *model, o Op, again bool) (string, error) {
	p, to := filepath.Join(r.o.Dir, o.Path), filepath.Join(r.o.Dir, o.To)
	want := m.fails(o)
	err := r.change(m, o, p, to, again && want == "")
	switch {
	case errors.Is(err, errLook):
		return r.look(m, o, p)
	case want == "" && err == nil:
		return "ok", nil
	}
	var errno unix.Errno
	if want != "" && errors.As(err, &errno) {
		return unix.ErrnoName(errno), nil
	}
	return "", fmt.Errorf("%v: want %q, got %w", o, want, err)
}

// errLook says that an operation changes nothing.
var errLook = errors.New("not a change")

func (r *runner) change(m *model, o Op, p, to string, again bool) error {
	done := func(err, accepted error) error { // what was done already is done
		if again && errors.Is(err, accepted) {
			return nil
		}
		return err
	}
	switch o.Kind {
	case Create:
		flags := os.O_CREATE | os.O_EXCL | os.O_WRONLY
		if again {
			flags = os.O_CREATE | os.O_TRUNC | os.O_WRONLY
		}
		return on(p, flags, func(fd int) error { return write(fd, o.data(), 0) })
	case Mkdir:
		return done(unix.Mkdir(p, 0o755), unix.EEXIST)
	case Symlink:
		return done(unix.Symlink(o.To, p), unix.EEXIST)
	case Link:
		return done(unix.Link(p, to), unix.EEXIST)
	case Unlink:
		return done(unix.Unlink(p), unix.ENOENT)
	case Rmdir:
		return done(unix.Rmdir(p), unix.ENOENT)
	case Rename:
		return done(unix.Rename(p, to), unix.ENOENT)
	case Exchange:
		return r.exchange(o, p, to, again)
	case Write, Append, Store, Truncate, Punch, Copy:
		return r.content(m, o, p, to, again)
	case Chmod:
		return unix.Chmod(p, o.mode())
	case Chown:
		return unix.Lchown(p, o.uid(), o.gid())
	case Utimes:
		ts := []unix.Timespec{{Sec: o.sec()}, {Sec: o.sec()}}
		return unix.UtimesNanoAt(unix.AT_FDCWD, p, ts, unix.AT_SYMLINK_NOFOLLOW)
	case SetXattr:
		return unix.Lsetxattr(p, o.xattr(), o.value(), 0)
	case DelXattr:
		if err := unix.Lremovexattr(p, o.xattr()); !errors.Is(err, unix.ENODATA) {
			return err
		}
		return nil // whether there was one, Xattrs says
	}
	return errLook
}

func (r *runner) content(m *model, o Op, p, to string, again bool) error {
	switch o.Kind {
	case Write:
		return on(p, unix.O_WRONLY, func(fd int) error { return write(fd, o.data(), o.Off) })
	case Append:
		if again {
			return on(p, unix.O_WRONLY, func(fd int) error { return write(fd, o.data(), o.Off) })
		}
		return on(p, unix.O_WRONLY|unix.O_APPEND, func(fd int) error { return write(fd, o.data(), -1) })
	case Store:
		return on(p, unix.O_RDWR, func(fd int) error {
			page := int64(os.Getpagesize())
			first := o.Off / page * page
			b, err := unix.Mmap(fd, first, int(o.Off-first+o.Len), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
			if err != nil {
				return err
			}
			copy(b[o.Off-first:], o.data())
			return unix.Munmap(b)
		})
	case Truncate:
		return unix.Truncate(p, o.Len)
	case Punch:
		return on(p, unix.O_WRONLY, func(fd int) error {
			return unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, o.Off, o.Len)
		})
	}
	size := m.at[o.To].size
	return on(to, unix.O_RDONLY, func(in int) error {
		return on(p, unix.O_WRONLY, func(out int) error {
			var from, at int64
			for from < size {
				n, err := unix.CopyFileRange(in, &from, out, &at, int(size-from), 0)
				if err != nil || n == 0 {
					return errors.Join(err, unexpected(n == 0, "copy_file_range ends at %d of %d", from, size))
				}
			}
			return nil
		})
	})
}

func unexpected(yes bool, format string, v ...any) error {
	if !yes {
		return nil
	}
	return fmt.Errorf(format, v...)
}

// exchange swaps two files. What stood at the path before is noted first, outside of the
// volume: so it is known afterwards whether it was done.
func (r *runner) exchange(o Op, p, to string, again bool) error {
	note := fmt.Sprintf("%s.exchange%d", r.transcript.Name(), o.N)
	now, err := facts(p)
	if err != nil {
		return err
	}
	if before, rerr := os.ReadFile(note); rerr != nil || len(before) == 0 || !again {
		err = os.WriteFile(note, []byte(now), 0o600)
	} else if string(before) != now {
		return os.Remove(note)
	}
	if err == nil {
		err = unix.Renameat2(unix.AT_FDCWD, p, unix.AT_FDCWD, to, unix.RENAME_EXCHANGE)
	}
	return errors.Join(err, os.Remove(note))
}

func on(path string, flags int, do func(fd int) error) error {
	fd, err := unix.Open(path, flags|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0o644)
	if err != nil {
		return err
	}
	return errors.Join(do(fd), unix.Close(fd))
}

// write writes all of b, at off or, when that is negative, at the end.
func write(fd int, b []byte, off int64) error {
	for len(b) > 0 {
		n, err := 0, error(nil)
		if off < 0 {
			n, err = unix.Write(fd, b)
		} else {
			n, err = unix.Pwrite(fd, b, off)
			off += int64(n)
		}
		if err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

func (r *runner) look(m *model, o Op, p string) (string, error) {
	switch o.Kind {
	case Read:
		return digest(p)
	case List:
		entries, err := os.ReadDir(p)
		names := make([]string, 0, len(entries))
		for _, e := range entries {
			names = append(names, fmt.Sprintf("%q%s", e.Name(), e.Type().String()[:1]))
		}
		slices.Sort(names)
		return strings.Join(names, " "), err
	case Readlink:
		return os.Readlink(p)
	case Xattrs:
		return xattrs(p)
	case Missing:
		var st unix.Stat_t
		err := unix.Lstat(p, &st)
		var errno unix.Errno
		if errors.As(err, &errno) {
			return unix.ErrnoName(errno), nil
		}
		return "there", nil
	}
	return stat(p, m.at[o.Path].stamped)
}

// digest names a file's content.
func digest(p string) (string, error) {
	b, err := os.ReadFile(p)
	sum := sha256.Sum256(b)
	return fmt.Sprintf("%d bytes %x", len(b), sum[:8]), err
}

// stat is what every format answers alike, with the mtime if it was set.
func stat(p string, stamped bool) (string, error) {
	var st unix.Stat_t
	if err := unix.Lstat(p, &st); err != nil {
		return "", &os.PathError{Op: "lstat", Path: p, Err: err}
	}
	s := fmt.Sprintf("%o %d:%d", st.Mode, st.Uid, st.Gid)
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		s += fmt.Sprintf(" %d links %d bytes", st.Nlink, st.Size)
	}
	if stamped {
		s += fmt.Sprintf(" at %d", st.Mtim.Sec)
	}
	return s, nil
}

func xattrs(p string) (string, error) {
	var all []string
	for _, name := range []string{"user.p0", "user.p1", "user.p2"} {
		b := make([]byte, 64)
		n, err := unix.Lgetxattr(p, name, b)
		if errors.Is(err, unix.ENODATA) {
			continue
		}
		if err != nil {
			return "", fmt.Errorf("getxattr %s of %s: %w", name, p, err)
		}
		all = append(all, name+"="+string(b[:n]))
	}
	return strings.Join(all, " "), nil
}

// facts is all that tells two files apart.
func facts(p string) (string, error) {
	d, err := digest(p)
	s, serr := stat(p, false)
	x, xerr := xattrs(p)
	return strings.Join([]string{d, s, x}, "; "), errors.Join(err, serr, xerr)
}
