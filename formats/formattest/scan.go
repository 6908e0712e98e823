package formattest

import (
	"context"
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fsmigrate/fsmigrate/formats"
)

// ScanContract mounts a fresh volume, fills it, and proves Scan against the
// kernel: rw-mounted after a sync with open unlinked files, with the superblock
// read-only, and after a fresh mount.
func ScanContract(t *testing.T, v *Volume) {
	t.Helper()
	l := v.Probe().Limits
	v.Mount(v.Format.Name(), "")
	orphans, done := Populate(t, v.Dir, l)
	v.Sync()
	want := Truth(t, v.Dir)
	for _, o := range orphans {
		if o.Nlink != 0 {
			t.Errorf("orphan with %d links", o.Nlink)
		}
		want[o.Ino] = o
	}
	CompareScan(t, v, want)
	done()
	if t.Failed() {
		return
	}
	scanStops(t, v)
	for _, o := range orphans {
		delete(want, o.Ino)
	}
	v.Sync()
	v.ReadOnly()
	CompareScan(t, v, want)
	v.Unmount()
	v.Mount(v.Format.Name(), "ro")
	CompareScan(t, v, Truth(t, v.Dir))
	v.Unmount()
	Run(t, v.Format.Check(v.Device)...)
}

// scanStops: an error of fn and a cancelled context end a scan, as they are.
func scanStops(t *testing.T, v *Volume) {
	t.Helper()
	fd := v.Open()
	defer unix.Close(fd)
	target := formats.ScanTarget{Device: v.Device, MountFD: fd}
	stop := errors.New("enough")
	n := 0
	_, err := v.Format.Scan(t.Context(), target, 0, func(formats.InodeRecord) error { n++; return stop })
	if !errors.Is(err, stop) || n != 1 {
		t.Errorf("fn failed, the scan said %v after %d calls", err, n)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := v.Format.Scan(ctx, target, 0, func(formats.InodeRecord) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled scan: %v", err)
	}
}
