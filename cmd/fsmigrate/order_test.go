package main

import (
	"bytes"
	"path/filepath"
	"slices"
	"testing"

	"github.com/fsmigrate/fsmigrate/blockdev/blocktest"
	"github.com/fsmigrate/fsmigrate/migrate"
)

// A plan that was reported to be written is on disk.
func TestOrderOfAPlan(t *testing.T) {
	dir := t.TempDir()
	a := &app{out: &bytes.Buffer{}, err: &bytes.Buffer{}}
	got := blocktest.Calls(t, dir, func() {
		if err := a.writePlan(migrate.Plan{ID: "data"}, filepath.Join(dir, "plan.yaml")); err != nil {
			t.Error(err)
		}
	})
	if want := []string{"fsync plan.yaml"}; !slices.Equal(got, want) {
		t.Errorf("calls %q, want %q", got, want)
	}
}
