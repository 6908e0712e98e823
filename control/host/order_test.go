package host

import (
	"path/filepath"
	"regexp"
	"slices"
	"testing"

	"github.com/fsmigrate/fsmigrate/blockdev/blocktest"
	"github.com/fsmigrate/fsmigrate/migrate"
)

// A report is on disk before it has its name, and its name before the command ends.
func TestOrderOfAReport(t *testing.T) {
	dir := t.TempDir()
	got := blocktest.Calls(t, dir, func() {
		if err := writeReport(filepath.Join(dir, "report.json"), migrate.Report{}); err != nil {
			t.Error(err)
		}
	})
	for i := range got {
		got[i] = regexp.MustCompile(`\.report\.json\.[0-9]+`).ReplaceAllString(got[i], "T")
	}
	if want := []string{"fsync T", "rename T report.json", "fsync ."}; !slices.Equal(got, want) {
		t.Errorf("calls %q, want %q", got, want)
	}
}
