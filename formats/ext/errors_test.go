package ext_test

import (
	"testing"

	"github.com/fsmigrate/fsmigrate/formats/formattest"
)

// Errors that the kernel recorded are seen, with the first of them.
func TestProbeErrors(t *testing.T) {
	v := formattest.Make(t, lookup(t, "ext4"), 64<<20, nil)
	formattest.Run(t, "debugfs", "-w", "-R", "set_super_value error_count 7", v.Device)
	formattest.Run(t, "debugfs", "-w", "-R", "set_super_value first_error_time 1700000000", v.Device)
	formattest.Run(t, "debugfs", "-w", "-R", "set_super_value state 3", v.Device)
	vol := v.Probe()
	if vol.ErrorCount != 7 || vol.Clean || vol.Props["first_error_time"] != "1700000000" {
		t.Errorf("%+v", vol)
	}
}

// While it is mounted the journal says so, and free inodes are those of now:
// the superblock's own count is as old as the mount.
func TestProbeMounted(t *testing.T) {
	v := formattest.Make(t, lookup(t, "ext4"), 64<<20, nil)
	before := v.Probe()
	dir := v.Mount("ext4", "")
	for i := range 50 {
		formattest.Touch(t, dir, i)
	}
	v.Sync()
	vol := v.Probe()
	if !vol.NeedsRecovery || vol.Clean {
		t.Errorf("mounted: recovery %v, clean %v", vol.NeedsRecovery, vol.Clean)
	}
	if vol.FreeInodes != before.FreeInodes-50 {
		t.Errorf("%d inodes free after 50 of %d were taken", vol.FreeInodes, before.FreeInodes)
	}
}
