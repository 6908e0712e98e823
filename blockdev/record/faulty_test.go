package record

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func faulty(t *testing.T) (Faults, *Faulty) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(path, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	d, err := OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	f := &Faulty{Disk: d}
	return Faults{"disk": f}, f
}

// Each operation is counted and fails when it is told to, and what fails is not done.
func TestFaulty(t *testing.T) {
	d, f := faulty(t)
	sector, got := make([]byte, Sector), make([]byte, Sector)
	sector[0] = 1
	write := func() error { _, err := f.WriteAt(sector, 0); return err }
	read := func() error { _, err := f.ReadAt(got, 0); return err }
	discard := func() error { return f.Discard(0, Sector) }
	for _, c := range []struct {
		mark string
		do   []func() error
		want []error
	}{
		{"disk write 1 EIO", []func() error{write, read, write, write}, []error{nil, nil, unix.EIO, nil}},
		{"disk write 0 ENOSPC sticky", []func() error{write, discard, read}, []error{unix.ENOSPC, unix.ENOSPC, nil}},
		{"disk sync 0 EIO", []func() error{write, f.Sync, f.Sync}, []error{nil, unix.EIO, nil}},
		{"disk any 1 EROFS sticky", []func() error{read, read, write, f.Sync}, []error{nil, unix.EROFS, unix.EROFS, unix.EROFS}},
		{"disk mend", []func() error{discard, read, write, f.Sync}, []error{nil, nil, nil, nil}},
	} {
		if err := d.Mark(c.mark); err != nil {
			t.Fatal(err)
		}
		for i, do := range c.do {
			if err := do(); !errors.Is(err, c.want[i]) {
				t.Errorf("%s: operation %d: %v, want %v", c.mark, i, err, c.want[i])
			}
		}
	}
	if got := d.Tell(); got != "disk 4 3\n" {
		t.Errorf("it tells %q", got)
	}
	if err := d.Mark("disk write 0 EIO"); err != nil {
		t.Fatal(err)
	}
	if sector[0] = 2; write() == nil || read() != nil || got[0] != 1 {
		t.Errorf("a write that failed left %d", got[0])
	}
	for _, wrong := range []string{"", "disk", "other mend", "disk write x EIO", "disk write 0 EPERM", "disk fly 0 EIO", "disk write 0 EIO now", "disk write -1 EIO"} {
		if d.Mark(wrong) == nil {
			t.Errorf("%q was taken", wrong)
		}
	}
}

// What is held goes on when the fault is mended.
func TestFaultyHolds(t *testing.T) {
	d, f := faulty(t)
	if err := d.Mark("disk sync 0 hold"); err != nil {
		t.Fatal(err)
	}
	synced := make(chan error)
	go func() { synced <- f.Sync() }()
	for _, fired := f.Counts(); fired == 0; _, fired = f.Counts() {
		select {
		case err := <-synced:
			t.Fatalf("it was not held: %v", err)
		default:
		}
	}
	if _, err := f.WriteAt(make([]byte, Sector), 0); err != nil {
		t.Errorf("beside it: %v", err)
	}
	f.Mend()
	if err := <-synced; err != nil {
		t.Error(err)
	}
}
