package fstab

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// ErrChanged says that the file was changed by somebody else meanwhile. Trying again helps.
var ErrChanged = errors.New("the file changed meanwhile")

// step is called before every operation that changes something: the knob of the
// tests that fail, or die, at each of them.
var step = func(string) error { return nil }

// replacement is a file that is about to be replaced.
type replacement struct {
	path string // without symbolic links
	old  []byte
}

func openReplacement(path string) (*replacement, error) {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	old, err := os.ReadFile(real)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return &replacement{path: real, old: old}, nil
}

// replace puts data in the file's place, durably and at once: at every instant, also after a
// power cut, the file is the old one or the new one. The old one is kept under
// the backup's name, unless an older backup is there.
func (r *replacement) replace(data []byte, backup string) error {
	if _, err := os.Lstat(backup); errors.Is(err, os.ErrNotExist) {
		if err := r.write(backup, r.old); err != nil {
			return fmt.Errorf("back up %s: %w", r.path, err)
		}
	}
	if err := r.write(r.path, data); err != nil {
		return fmt.Errorf("replace %s: %w", r.path, err)
	}
	return nil
}

// write makes name hold data, with the owner, mode and attributes of the file.
func (r *replacement) write(name string, data []byte) (err error) {
	tmp := name + ".new"
	if err := step("remove"); err != nil {
		return err
	}
	if err := os.Remove(tmp); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := step("create"); err != nil {
		return err
	}
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close()
			_ = os.Remove(tmp)
		}
	}()
	if err := step("write"); err != nil {
		return err
	}
	if _, err := f.Write(data); err != nil {
		return err
	}
	if err := step("dress"); err != nil {
		return err
	}
	if err := dress(f, r.path); err != nil {
		return err
	}
	if err := step("sync"); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	// The last look: what somebody wrote since we read it must not be lost.
	if now, err := os.ReadFile(r.path); err != nil {
		return err
	} else if !bytes.Equal(now, r.old) {
		return ErrChanged
	}
	if err := step("rename"); err != nil {
		return err
	}
	if err := os.Rename(tmp, name); err != nil {
		return err
	}
	if err := step("sync-directory"); err != nil {
		return err
	}
	d, err := os.Open(filepath.Dir(name))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// dress gives f the owner, the mode and the extended attributes of like: the security
// label, without which a confined mount(8) may not read the table, and ACLs.
func dress(f *os.File, like string) error {
	var st unix.Stat_t
	if err := unix.Stat(like, &st); err != nil {
		return fmt.Errorf("stat: %w", err)
	}
	if err := f.Chown(int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	names, err := xattrNames(like)
	if err != nil {
		return err
	}
	for _, name := range names {
		value, err := xattr(like, name)
		if err != nil {
			return fmt.Errorf("read attribute %s: %w", name, err)
		}
		if err := unix.Fsetxattr(int(f.Fd()), name, value, 0); err != nil && !errors.Is(err, unix.ENOTSUP) {
			return fmt.Errorf("set attribute %s: %w", name, err)
		}
	}
	return f.Chmod(os.FileMode(st.Mode & 0o777))
}

func xattrNames(path string) ([]string, error) {
	n, err := unix.Listxattr(path, nil)
	if errors.Is(err, unix.ENOTSUP) || err == nil && n == 0 {
		return nil, nil
	}
	buf := make([]byte, n)
	if err == nil {
		n, err = unix.Listxattr(path, buf)
	}
	if err != nil {
		return nil, fmt.Errorf("list attributes: %w", err)
	}
	var names []string
	for name := range bytes.SplitSeq(buf[:n], []byte{0}) {
		if len(name) > 0 {
			names = append(names, string(name))
		}
	}
	return names, nil
}

func xattr(path, name string) ([]byte, error) {
	n, err := unix.Getxattr(path, name, nil)
	if err != nil || n == 0 {
		return nil, err
	}
	buf := make([]byte, n)
	n, err = unix.Getxattr(path, name, buf)
	if err != nil {
		return nil, err
	}
	return buf[:n], nil
}
