package shadow

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"golang.org/x/sys/unix"
)

func TestStoreIsOpenedOnce(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "journal")
	s, err := OpenStore(dir, StoreOptions{CacheBytes: 1 << 20})
	must(t, err)
	if _, err := OpenStore(dir, StoreOptions{CacheBytes: 1 << 20}); err == nil {
		t.Error("opened twice")
	}
	must(t, s.Close())
	s, err = OpenStore(dir, StoreOptions{CacheBytes: 1 << 20})
	must(t, err)
	must(t, s.Close())
	if st, err := os.Stat(dir); err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("others may enter the store: %v, %v", st.Mode(), err)
	}
}

// A store whose making was interrupted never held anything: it is made anew. One
// that was made and cannot be read is an error (I8).
func TestStoreMadeWholeOrNotAtAll(t *testing.T) {
	for _, name := range []string{"absent", "empty directory", "half made"} {
		dir := filepath.Join(t.TempDir(), "journal")
		switch name {
		case "empty directory":
			must(t, os.Mkdir(dir, 0o755))
		case "half made":
			must(t, os.Mkdir(dir+".making", 0o755))
			must(t, os.WriteFile(filepath.Join(dir+".making", "marker.manifest.000001.MANIFEST-000001"), nil, 0o600))
		}
		s, err := OpenStore(dir, StoreOptions{CacheBytes: 1 << 20})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		must(t, s.SetMeta("a", []byte("b"), true))
		must(t, s.Close())
		manifests, err := filepath.Glob(filepath.Join(dir, "MANIFEST-*"))
		must(t, err)
		for _, m := range manifests {
			must(t, os.Remove(m))
		}
		if s, err = OpenStore(dir, StoreOptions{CacheBytes: 1 << 20}); err == nil {
			t.Errorf("%s: opened without its manifest", name)
			must(t, s.Close())
		}
	}
}

// A full state directory is an error of the call, not the end of the process, and not a
// wait for ever; what was durable is there when there is space again.
func TestStoreOnAFullDisk(t *testing.T) {
	mnt := t.TempDir()
	must(t, unix.Mount("tmpfs", mnt, "tmpfs", 0, "size=40m"))
	t.Cleanup(func() { must(t, unix.Unmount(mnt, unix.MNT_DETACH)) })
	dir := filepath.Join(mnt, "journal")
	s, err := OpenStore(dir, StoreOptions{CacheBytes: 1 << 20})
	must(t, err)
	j, err := s.Journal('f')
	must(t, err)
	durable := Node{7, 7}
	j.Mark(durable, Data)
	must(t, j.Begin(ctx, j.Take(0)))
	m := s.Map('f')
	val := make([]byte, 100_000)
	for i := range val {
		val[i] = byte(i * i >> 7)
	}
	for i := uint64(0); err == nil; i++ {
		if i > 10_000 {
			t.Fatal("the disk is not full")
		}
		for k := range val {
			val[k] = val[k]*31 + byte(i+uint64(k))
		}
		if err = m.PutRanges(Node{i, 1}, val); err == nil && i%20 == 0 {
			err = s.SetMeta("x", nil, true)
		}
	}
	t.Logf("full: %v", err)
	if !errors.Is(err, ErrStore) && !errors.Is(err, unix.ENOSPC) {
		t.Errorf("error %v", err)
	}
	_ = s.Close()
	must(t, unix.Mount("tmpfs", mnt, "tmpfs", unix.MS_REMOUNT, "size=400m"))
	// The lock is this process's until it ends: what is there is read from a copy.
	copied := filepath.Join(mnt, "copy")
	copyStill(t, dir, copied)
	s, err = OpenStore(copied, StoreOptions{CacheBytes: 1 << 20})
	must(t, err)
	j, err = s.Journal('f')
	must(t, err)
	r, err := j.Recover("boot")
	if err != nil || r.Marks != 1 || j.Dirty(durable) == 0 {
		t.Errorf("%+v %v", r, err)
	}
	must(t, s.Close())
}

// copyStill copies a store's directory once nothing in the background removes files of it any more.
func copyStill(t *testing.T, from, to string) {
	t.Helper()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for try := 1; ; try++ {
		out, err := exec.Command("cp", "-a", from, to).CombinedOutput()
		if err == nil {
			return
		}
		if try == 50 {
			t.Fatalf("%v: %s", err, out)
		}
		must(t, os.RemoveAll(to))
		<-tick.C
	}
}

// A directory that cannot be synced, or a log that cannot be made, is an error of the
// call: Pebble would end the process.
func TestStoreLosesItsLog(t *testing.T) {
	for what, hit := range map[string]func(op errorfs.Op) bool{
		"sync of the directory": func(op errorfs.Op) bool { return op.Kind == errorfs.OpFileSync && op.Path == "journal" },
		"making a log":          func(op errorfs.Op) bool { return op.Kind == errorfs.OpCreate && strings.HasSuffix(op.Path, ".log") },
		"writing a log":         func(op errorfs.Op) bool { return op.Kind == errorfs.OpFileWrite && strings.HasSuffix(op.Path, ".log") },
	} {
		var bad atomic.Bool
		fs := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
			if bad.Load() && hit(op) {
				return unix.ENOSPC
			}
			return nil
		}))
		s, err := OpenStore("journal", StoreOptions{fs: fs, CacheBytes: 1 << 20})
		must(t, err)
		bad.Store(true)
		m := s.Map('f')
		val := make([]byte, 1<<20)
		for i := uint64(0); err == nil && i < 100; i++ {
			if err = m.PutRanges(Node{i, 1}, val); err == nil {
				err = s.SetMeta("x", nil, true)
			}
		}
		if !errors.Is(err, ErrStore) || !errors.Is(err, unix.ENOSPC) {
			t.Errorf("%s: %v", what, err)
		}
		s.Usage() // waits for nobody
		_ = s.Close()
	}
}

func TestStoreMetaSurvives(t *testing.T) {
	fs := vfs.NewMem()
	s := memStore(t, fs)
	must(t, s.SetMeta("k", []byte("v"), false))
	must(t, s.Close())
	v, ok, err := memStore(t, fs).Meta("k")
	if err != nil || !ok || string(v) != "v" {
		t.Errorf("%q %v %v", v, ok, err)
	}
}
