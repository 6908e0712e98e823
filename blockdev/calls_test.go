package blockdev_test

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fsmigrate/fsmigrate/blockdev"
	"github.com/fsmigrate/fsmigrate/blockdev/blocktest"
)

// The recorder that other packages' tests of order rely on sees every call, in order.
func TestCallsAreSeen(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	got := blocktest.Calls(t, dir, func() {
		f, err := os.Create(at("a"))
		if err != nil {
			t.Error(err)
			return
		}
		defer f.Close()
		d, err := os.Open(dir)
		if err != nil {
			t.Error(err)
			return
		}
		defer d.Close()
		for _, do := range []func() error{
			f.Sync,
			func() error { return unix.Fdatasync(int(f.Fd())) },
			func() error { return os.Rename(at("a"), at("b")) },
			func() error { return os.Link(at("b"), at("c")) },
			func() error { return unix.Renameat2(int(d.Fd()), "c", int(d.Fd()), "d", unix.RENAME_NOREPLACE) },
			func() error { return unix.Syncfs(int(d.Fd())) },
			d.Sync,
		} {
			if err := do(); err != nil {
				t.Error(err)
			}
		}
	})
	want := []string{"fsync a", "fdatasync a", "rename a b", "link b c", "rename c d", "syncfs .", "fsync ."}
	if !slices.Equal(got, want) {
		t.Errorf("seen %q, want %q", got, want)
	}
	got = blocktest.Calls(t, dir, func() { unix.Sync() })
	if !slices.Equal(got, []string{"sync"}) {
		t.Errorf("seen %q", got)
	}
	if n := len(blocktest.Calls(t, dir, func() {})); n != 0 {
		t.Errorf("%d calls of nothing", n)
	}
}

// An O_PATH descriptor cannot be synced; one that is opened anew can.
func TestSyncfsOfAPath(t *testing.T) {
	dir := t.TempDir()
	for flags, want := range map[int]int{unix.O_RDONLY: 1, unix.O_PATH: 2} {
		fd, err := unix.Open(dir, flags|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		got := blocktest.Calls(t, dir, func() {
			if err := blockdev.Syncfs(fd); err != nil {
				t.Error(err)
			}
		}, dir)
		unix.Close(fd)
		if len(got) != want || got[len(got)-1] != "syncfs volume 1" {
			t.Errorf("flags %#x: %q", flags, got)
		}
	}
}
