package statedir

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// fsys is what this package asks of a file system: the seam where tests fail the
// k-th call and cut the power.
type fsys interface {
	create(path string) (file, error) // exclusively, 0600
	appendTo(path string) (file, error)
	read(path string) ([]byte, error)
	list(dir string) ([]string, error)
	mkdir(path string) error // 0700
	rename(from, to string) error
	link(from, to string) error // fs.ErrExist when there is one
	remove(path string) error
	syncDir(path string) error
}

type file interface {
	io.WriteCloser
	Sync() error
}

type osFS struct{}

func (osFS) create(path string) (file, error) {
	return os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY|unix.O_NOFOLLOW, 0o600)
}

func (osFS) appendTo(path string) (file, error) {
	return os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY|unix.O_NOFOLLOW, 0o600)
}

func (osFS) read(path string) ([]byte, error) { return os.ReadFile(path) }
func (osFS) mkdir(path string) error          { return os.Mkdir(path, 0o700) }
func (osFS) rename(from, to string) error     { return os.Rename(from, to) }
func (osFS) link(from, to string) error       { return os.Link(from, to) }
func (osFS) remove(path string) error         { return os.Remove(path) }
func (osFS) list(dir string) (n []string, err error) {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		n = append(n, e.Name())
	}
	return n, err
}

func (osFS) syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

var temporaries atomic.Int64

// tempName is a name that no other process and no other call uses.
func tempName() string {
	return ".tmp-" + strconv.Itoa(os.Getpid()) + "-" + strconv.FormatInt(temporaries.Add(1), 10)
}

// writeTemp writes a new file in dir and syncs it. It leaves nothing when it fails.
func writeTemp(f fsys, dir string, data []byte) (path string, err error) {
	path = filepath.Join(dir, tempName())
	_ = f.remove(path) // of a process that had our pid
	w, err := f.create(path)
	if err != nil {
		return "", fmt.Errorf("create %s: %w", path, err)
	}
	_, err = w.Write(data)
	if err == nil {
		err = w.Sync()
	}
	if cerr := w.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		_ = f.remove(path)
		return "", fmt.Errorf("write %s: %w", path, err)
	}
	return path, nil
}

// replace makes data the content of dir/name, durably: after a crash at any instant
// there is the old or the new content.
func replace(f fsys, dir, name string, data []byte) error {
	tmp, err := writeTemp(f, dir, data)
	if err != nil {
		return err
	}
	to := filepath.Join(dir, name)
	if err := f.rename(tmp, to); err != nil {
		_ = f.remove(tmp)
		return fmt.Errorf("rename %s to %s: %w", tmp, to, err)
	}
	if err := f.syncDir(dir); err != nil {
		return fmt.Errorf("sync directory %s: %w", dir, err)
	}
	return nil
}

// owned refuses a directory that somebody else could have written to.
func owned(path string, private bool) error {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return &fs.PathError{Op: "lstat", Path: path, Err: err}
	}
	mode := fs.FileMode(st.Mode & 0o777)
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFDIR:
		return fmt.Errorf("state directory %s: not a directory", path)
	case int(st.Uid) != os.Geteuid():
		return fmt.Errorf("state directory %s: owned by uid %d, this is uid %d", path, st.Uid, os.Geteuid())
	case private && mode&0o077 != 0:
		return fmt.Errorf("state directory %s: mode %04o lets others in, 0700 is needed", path, mode)
	case mode&0o022 != 0:
		return fmt.Errorf("state directory %s: mode %04o lets others write", path, mode)
	}
	return nil
}
