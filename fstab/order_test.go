package fstab

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/fsmigrate/fsmigrate/blockdev/blocktest"
)

// The backup is durable before the table is replaced, and each is on disk before it has its name.
func TestOrderOfSystemCalls(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "fstab")
	if err := os.WriteFile(path, []byte("old\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	r, err := openReplacement(path)
	if err != nil {
		t.Fatal(err)
	}
	got := blocktest.Calls(t, dir, func() {
		if err := r.replace([]byte("new\n"), path+".before"); err != nil {
			t.Error(err)
		}
	})
	want := []string{"fsync fstab.before.new", "rename fstab.before.new fstab.before", "fsync .", "fsync fstab.new", "rename fstab.new fstab", "fsync ."}
	if !slices.Equal(got, want) {
		t.Errorf("calls %q, want %q", got, want)
	}
}
