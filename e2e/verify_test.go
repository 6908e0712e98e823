package e2e

import (
	"context"
	"testing"

	"github.com/fsmigrate/fsmigrate/e2e/churn"
	"github.com/fsmigrate/fsmigrate/e2e/plant"
	"github.com/fsmigrate/fsmigrate/e2e/vol"
)

// lastAck reads how far the append workload got.
func lastAck(log string) (uint64, error) { return churn.LastAcked(log, "sequence") }

// requireAcks proves that every acknowledged record is there.
func requireAcks(t *testing.T, dir, log string) {
	t.Helper()
	n, err := churn.CheckAppend(dir, log, "sequence")
	if err != nil || n == 0 {
		t.Errorf("%d acknowledged: %v", n, err)
	}
}

// `fsmigrate verify A B` finds one planted error in each attribute, and none in
// equal trees.
func TestVerifyFindsEveryPlantedError(t *testing.T) {
	r := newRig(t, pair{spec: "xfs", to: "xfs"}, 512)
	run, err := churn.Start(context.Background(), r.dir, r.Path("log"),
		churn.Options{Seed: seeded(t).Uint64(), Objects: 300, Ops: 1500, Without: []string{"chattr", "project"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := run.Wait(); err != nil {
		t.Fatal(err)
	}
	plant.Objects(t, r.dir)
	r.Unmount(r.dir)
	image, copied := r.Path("image1"), r.Path("copy")
	vol.Run(t, "cp", "--sparse=always", image, copied)
	r.Mount(r.source, "data")
	other := r.Mount(r.Loop(copied), "other", "nouuid")
	r.must([]string{"verify", r.dir, other})
	for _, c := range plant.Cases(r.dir, other) {
		t.Run(c.Name, func(t *testing.T) {
			c.Do(t)
			if code, out := r.cmd("verify", r.dir, other); code != 8 {
				t.Errorf("verify: exit %d, want 8\n%s", code, out)
			}
			c.Undo(t)
			if code, out := r.cmd("verify", r.dir, other); code != 0 {
				t.Errorf("verify of equal trees: exit %d, want 0\n%s", code, out)
			}
		})
	}
}
