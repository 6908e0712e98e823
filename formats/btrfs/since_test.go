package btrfs_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fsmigrate/fsmigrate/formats"
	"github.com/fsmigrate/fsmigrate/formats/btrfs"
	"github.com/fsmigrate/fsmigrate/formats/formattest"
)

// A scan since an earlier one delivers everything that changed after it, and
// far from everything (FACTS: "btrfs: tree search by transaction id").
func TestScanSince(t *testing.T) {
	v := formattest.Make(t, lookup(t), 1<<30, nil)
	v.Mount("btrfs", "")
	const n = 5000
	for i := range n {
		if err := os.WriteFile(filepath.Join(v.Dir, fmt.Sprintf("f%d", i)), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	v.Sync()
	fd := v.Open()
	defer unix.Close(fd)
	target := formats.ScanTarget{Device: v.Device, MountFD: fd}
	first, err := v.Format.Scan(t.Context(), target, 0, func(formats.InodeRecord) error { return nil })
	if err != nil || first.Generation == 0 {
		t.Fatalf("first scan: %+v, %v", first, err)
	}
	v.Sync()
	want := map[uint64]bool{}
	for _, i := range []int{0, 17, 2500, n - 1} {
		name := filepath.Join(v.Dir, fmt.Sprintf("f%d", i))
		if err := os.Chmod(name, 0o644); err != nil {
			t.Fatal(err)
		}
		rec, err := formattest.Record(unix.AT_FDCWD, name, 0)
		if err != nil {
			t.Fatal(err)
		}
		want[rec.Ino] = true
	}
	v.Sync()
	second, err := v.Format.Scan(t.Context(), target, first.Generation, func(r formats.InodeRecord) error {
		delete(want, r.Ino)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(want) > 0 {
		t.Errorf("changed inodes missed: %v", want)
	}
	if second.Inodes > n/4 {
		t.Errorf("%d of %d inodes delivered for 4 changes", second.Inodes, n)
	}
	if second.Generation <= first.Generation {
		t.Errorf("generation went from %d to %d", first.Generation, second.Generation)
	}
}

// A subvolume is a tree of its own: listed, not scanned.
func TestSubvolumes(t *testing.T) {
	v := formattest.Make(t, lookup(t), 256<<20, nil)
	v.Mount("btrfs", "")
	fd := v.Open()
	defer unix.Close(fd)
	if ids, err := btrfs.Subvolumes(t.Context(), fd); err != nil || len(ids) != 0 {
		t.Fatalf("fresh volume: %v, %v", ids, err)
	}
	formattest.Run(t, "btrfs", "subvolume", "create", filepath.Join(v.Dir, "sub"))
	v.Sync()
	if ids, err := btrfs.Subvolumes(t.Context(), fd); err != nil || len(ids) != 1 {
		t.Fatalf("one subvolume: %v, %v", ids, err)
	}
}
