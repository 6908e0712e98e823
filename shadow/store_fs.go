package shadow

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// strictFS is the store's file system. Where Pebble has no way on after an error (its
// log, its manifest, the sync of a directory) it panics, in goroutines of its own
// and with its locks in a state that its deferred calls do not expect: that ends the
// process. So such an error is told to the store, which fails for good, and the
// call that met it never returns: what waits for it is left behind with it.
type strictFS struct {
	vfs.FS
	fail *storeFailure
}

// vital reports whether Pebble cannot go on without the file.
func vital(name string) bool {
	base := filepath.Base(name)
	return strings.HasSuffix(base, ".log") || strings.HasPrefix(base, "MANIFEST-") || strings.HasPrefix(base, "marker.")
}

// lost ends the store when err is not nil, and does not return then.
func (s *strictFS) lost(op, name string, err error) {
	if err == nil {
		return
	}
	s.fail.failed(fmt.Errorf("%w: %s %s: %w", ErrStore, op, filepath.Base(name), err))
	select {}
}

func (s *strictFS) wrap(f vfs.File, name string, err error) (vfs.File, error) {
	if err != nil || !vital(name) {
		return f, err
	}
	return &strictFile{File: f, fs: s, name: name}, nil
}

func (s *strictFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := s.FS.Create(name, c)
	if vital(name) {
		s.lost("create", name, err)
	}
	return s.wrap(f, name, err)
}

func (s *strictFS) ReuseForWrite(old, name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := s.FS.ReuseForWrite(old, name, c)
	if vital(name) {
		s.lost("reuse", name, err)
	}
	return s.wrap(f, name, err)
}

func (s *strictFS) OpenDir(name string) (vfs.File, error) {
	f, err := s.FS.OpenDir(name)
	if err != nil {
		return f, err
	}
	return &strictFile{File: f, fs: s, name: name}, nil
}

// MkdirAll makes a directory that nobody else enters: the node map has names in it.
func (s *strictFS) MkdirAll(dir string, _ os.FileMode) error { return s.FS.MkdirAll(dir, 0o700) }

// Unwrap is what vfs.Root walks by.
func (s *strictFS) Unwrap() vfs.FS { return s.FS }

// strictFile is a file, or a directory, without which Pebble cannot go on.
type strictFile struct {
	vfs.File
	fs   *strictFS
	name string
}

func (f *strictFile) Write(p []byte) (int, error) {
	n, err := f.File.Write(p)
	f.fs.lost("write", f.name, err)
	return n, nil
}

func (f *strictFile) Preallocate(off, n int64) error {
	f.fs.lost("preallocate", f.name, f.File.Preallocate(off, n))
	return nil
}

func (f *strictFile) Sync() error {
	f.fs.lost("sync", f.name, f.File.Sync())
	return nil
}

func (f *strictFile) SyncData() error {
	f.fs.lost("sync", f.name, f.File.SyncData())
	return nil
}

func (f *strictFile) SyncTo(n int64) (bool, error) {
	full, err := f.File.SyncTo(n)
	f.fs.lost("sync", f.name, err)
	return full, nil
}

func (f *strictFile) Close() error {
	f.fs.lost("close", f.name, f.File.Close())
	return nil
}
