package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fsmigrate/fsmigrate/e2e/vol"
)

// A lab that ends in the middle, with a volume mounted on a loop over a file of a mount
// that a process of the lab serves, leaves nothing behind.
func TestSweep(t *testing.T) {
	lab := vol.New(t)
	script := `set -e
mkdir "$TMPDIR/disks" "$TMPDIR/data"
name=$(basename "$TMPDIR")-one
"$0" record --dir "$TMPDIR/disks" --log "$TMPDIR/log" --images "$name=64M" >"$TMPDIR/out" &
until grep -q ready "$TMPDIR/out"; do sleep 0.02; done
dev=$(losetup --find --show --direct-io=on "$TMPDIR/disks/$name")
mkfs.ext4 -q "$dev"
mount "$dev" "$TMPDIR/data"
echo x >"$TMPDIR/data/x"
echo "$TMPDIR" >"$1"
exit 3`
	said := lab.Path("said")
	cmd := exec.Command(filepath.Join("..", "scripts", "inlab.sh"), "bash", "-c", script, programs.recorder, said)
	cmd.Env = append(os.Environ(), "FSMIGRATE_LAB="+lab.Dir)
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState.ExitCode() != 3 {
		t.Fatalf("lab: %v\n%s", err, out)
	}
	b, err := os.ReadFile(said)
	if err != nil {
		t.Fatal(err)
	}
	dir := strings.TrimSpace(string(b))
	if _, err := os.Stat(dir); err == nil {
		t.Errorf("%s is still there", dir)
	}
	files, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
	for _, f := range files {
		if b, err := os.ReadFile(f); err == nil && strings.Contains(string(b), filepath.Base(dir)) {
			t.Errorf("%s is still over %s", f, b)
		}
	}
	for _, p := range vol.Processes(dir) {
		t.Errorf("process %d still runs: %v", p.PID, p.Args)
	}
}
