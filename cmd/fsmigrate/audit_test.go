package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fsmigrate/fsmigrate/blockdev"
	"github.com/fsmigrate/fsmigrate/blockdev/blocktest"
	"github.com/fsmigrate/fsmigrate/migrate"
	"github.com/fsmigrate/fsmigrate/statedir"
)

// What is mounted, by a boot and by whoever settles, is in the audit log.
func TestMountsAreAudited(t *testing.T) {
	dir, dev := blocktest.NewVolume(t, "ext4", 64<<20)
	if err := unix.Unmount(dir, 0); err != nil {
		t.Fatal(err)
	}
	uuid, err := exec.Command("blkid", "-p", "-o", "value", "-s", "UUID", dev).Output()
	if err != nil {
		t.Fatal(err)
	}
	d, err := blockdev.Identify(dev)
	if err != nil {
		t.Fatal(err)
	}
	root := filepath.Join(t.TempDir(), "state")
	state, err := statedir.Create(root, &migrate.Plan{
		ID:     "data",
		Source: migrate.SourceSpec{Mount: dir, Device: migrate.DeviceSpec{Path: dev, IDs: d.IDs, Bytes: d.Bytes}, Format: "ext4", UUID: strings.TrimSpace(string(uuid)), Options: "rw"},
		Target: migrate.TargetSpec{Format: "xfs", Spare: migrate.DeviceSpec{Path: "/dev/none", Bytes: 1 << 30}},
	})
	if err != nil {
		t.Fatal(err)
	}
	for what, mount := range map[string]func() error{
		"a boot":         func() error { return wireMount(t.Context(), mountRequest{State: root, ID: "data", Dir: dir}) },
		"the watchdog's": func() error { return wireSettle(t.Context(), state, migrate.Source) },
	} {
		before := mountsAudited(t, state)
		if err := mount(); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if err := unix.Unmount(dir, 0); err != nil {
			t.Errorf("%s: nothing is mounted: %v", what, err)
		}
		if n := mountsAudited(t, state) - before; n != 1 {
			t.Errorf("%s mount is %d times in the audit log", what, n)
		}
	}
}

func mountsAudited(t *testing.T, d *statedir.Dir) int {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(d.Path(), "audit.jsonl"))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return bytes.Count(b, []byte(`"event":"mounted"`))
}
