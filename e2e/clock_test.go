package e2e

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/fsmigrate/fsmigrate/e2e/vol"
)

// The clock was years ahead when a volume was written, and has been put right: every stamp
// on it is of the future. Each such file counted as changed just now, for years: all of it
// was copied again every two seconds, and once more behind the fence.
func TestStampsAhead(t *testing.T) {
	specs := []string{"ext4-128", "ext4"}
	if !long() {
		specs = specs[:1]
	}
	for _, spec := range specs {
		t.Run(spec, func(t *testing.T) {
			r := small(t, pair{spec: spec, to: "xfs"}, 400)
			inodes := strings.Fields(vol.Run(t, "find", r.dir, "-xdev", "-printf", `%i\n`))
			r.Unmount(r.dir)
			var script strings.Builder
			for _, ino := range inodes {
				fmt.Fprintf(&script, "sif <%s> ctime 203701010000\n", ino)
			}
			if err := os.WriteFile(r.Path("ahead"), []byte(script.String()), 0o600); err != nil {
				t.Fatal(err)
			}
			vol.Run(t, "debugfs", "-w", "-f", r.Path("ahead"), r.source)
			vol.Run(t, "mount", r.source, r.dir)
			if got := vol.Run(t, "stat", "-c", "%z", r.dir+"/dir/f7"); !strings.HasPrefix(got, "203") {
				t.Fatalf("the stamp is %s", got)
			}
			r.begin(nil, "hold")
			r.inStep()
			r.insist("cutover")
			r.insist("finalize")
			if code := r.engine.code(t, toEnd); code != 0 {
				t.Fatalf("exit %d\n%s", code, r.said())
			}
			r.sameTree("stamps of the future", r.Mount(r.source, "old", "ro"), r.dir, time.Second)
			r.over(r.spare)
		})
	}
}
