package scripts

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Vulnerabilities fail; that nobody can say is said, and fails where it is asked for.
func TestVulnDecides(t *testing.T) {
	for _, c := range []struct {
		answer   int
		required bool
		fails    bool
		says     string
	}{
		{0, true, false, "none known"},
		{3, false, true, "known to be vulnerable"},
		{1, false, false, "NOT CHECKED"},
		{1, true, true, "NOT CHECKED"},
		{2, false, false, "NOT CHECKED"},
	} {
		tool := filepath.Join(t.TempDir(), "govulncheck")
		script := fmt.Sprintf("#!/bin/sh\necho the tool was here\nexit %d\n", c.answer)
		if err := os.WriteFile(tool, []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("./vuln.sh")
		cmd.Env = append(os.Environ(), "GOVULNCHECK="+tool, "FSMIGRATE_VULN=")
		if c.required {
			cmd.Env = append(cmd.Env, "FSMIGRATE_VULN=required")
		}
		out, err := cmd.CombinedOutput()
		if (err != nil) != c.fails || !strings.Contains(string(out), c.says) {
			t.Errorf("answer %d, required %v: %v\n%s", c.answer, c.required, err, out)
		}
		if c.answer != 0 && !strings.Contains(string(out), "the tool was here") {
			t.Errorf("answer %d: what the tool said is not shown: %s", c.answer, out)
		}
	}
}
