package preflight

import (
	"testing"

	"github.com/fsmigrate/fsmigrate/blockdev/blocktest"
)

// A state directory is usable when what is written there can be synced: it is tried.
func TestStateIsSynced(t *testing.T) {
	dir := t.TempDir()
	got := blocktest.Calls(t, dir, func() {
		if err := usable(dir); err != nil {
			t.Error(err)
		}
	})
	if len(got) != 1 {
		t.Errorf("calls %q", got)
	}
}
