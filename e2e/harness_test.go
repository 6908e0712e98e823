package e2e

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/fsmigrate/fsmigrate/e2e/churn"
	"github.com/fsmigrate/fsmigrate/e2e/oracle"
	"github.com/fsmigrate/fsmigrate/e2e/vol"
)

// The harness without a migration: an application, a crash and a boot of a plain
// volume are judged right, and something lost in between is not. What the other
// tests conclude rests on this.
func TestHarness(t *testing.T) {
	for _, p := range []pair{pairs[0], pairs[4], pairs[5]} {
		t.Run(p.spec, func(t *testing.T) {
			r := newRig(t, p, 512)
			r.populate(seeded(t).Uint64(), 400, 800)
			r.moreChurn(100)
			r.quiesced(func() {
				r.judge("running", r.dir, 0)
				r.otherSide(fstypeOf(p.spec), r.source, func(copied string) {
					r.judge("the image", copied, 0)
					r.sameTree("volume and image", r.dir, copied, 0)
				})
			})
			r.moreChurn(100)
			r.reboot("without a migration")
			r.moreChurn(100)
			r.hook("stop")
			r.judge("stopped", r.dir, 0)

			lost := strings.TrimRight(vol.Run(t, "find", r.dir, "-type", "f", "-size", "+0", "-print0", "-quit"), "\x00")
			vol.Run(t, "chattr", "-a", "-i", lost)
			vol.Run(t, "truncate", "-s", "+1", lost)
			if _, found, err := churn.CheckLog(r.dir, r.churnLog(), churn.CheckOptions{}); err != nil || len(found) == 0 {
				t.Errorf("a byte too many in %q was not found: %v", filepath.Base(lost), err)
			}
			r.Unmount(r.dir)
			if err := oracle.Fsck(fstypeOf(p.spec), r.source); err != nil {
				t.Error(err)
			}
		})
	}
}
