package churn_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/fsmigrate/fsmigrate/e2e/churn"
	"github.com/fsmigrate/fsmigrate/e2e/vol"
)

var specs = []string{"ext4", "ext4-128", "xfs", "btrfs"}

func TestVolumeEqualsModel(t *testing.T) {
	for _, spec := range specs {
		t.Run(spec, func(t *testing.T) {
			lab := vol.New(t)
			device, dir := lab.Volume(spec, 1024, "data")
			seed := rand.Uint64()
			t.Logf("seed %d", seed)
			r := start(t, dir, lab.Path("log"), churn.Options{Seed: seed, Workers: 4, Objects: 1500, Ops: 20000})
			if err := r.Wait(); err != nil {
				t.Fatal(err)
			}
			requireEqual(t, "in memory", dir, r.Model)

			// What was logged says the same, also after the caches are gone.
			lab.Unmount(dir)
			lab.Mount(device, "data")
			rp, found, err := churn.CheckLog(dir, lab.Path("log"), churn.CheckOptions{})
			if err != nil || len(found) > 0 {
				t.Fatalf("replayed log against the remounted volume: %v\n%s", err, churn.Summary(found))
			}
			t.Logf("%d objects, %d acknowledged, refused: %v", rp.Model.Objects(), rp.Ops, rp.Failed)
		})
	}
}

func start(t *testing.T, dir, log string, o churn.Options) *churn.Runner {
	t.Helper()
	r, err := churn.Start(context.Background(), dir, log, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Stop() })
	return r
}

func requireEqual(t *testing.T, what, dir string, m *churn.Model) {
	t.Helper()
	found, err := m.Check(dir, churn.CheckOptions{})
	if err != nil || len(found) > 0 {
		t.Fatalf("%s: %v\n%s", what, err, churn.Summary(found))
	}
}

// A paused churn keeps nothing open: its volume can be unmounted, and mounted
// again beneath it.
func TestPauseLetsGo(t *testing.T) {
	lab := vol.New(t)
	device, dir := lab.Volume("xfs", 512, "data")
	r := start(t, dir, lab.Path("log"), churn.Options{Seed: 7, Objects: 300})
	for round := range 3 {
		want := r.Ops() + 800
		if !vol.Eventually(30*time.Second, func() bool { return r.Ops() > want }) {
			t.Fatalf("round %d: no progress", round)
		}
		r.Pause()
		lab.Unmount(dir)
		lab.Mount(device, "data")
		requireEqual(t, fmt.Sprintf("paused, round %d", round), dir, r.Model)
		r.Continue()
	}
	if err := r.Stop(); err != nil {
		t.Fatal(err)
	}
	requireEqual(t, "stopped", dir, r.Model)
}

// A churn that goes on from its log ends with a volume that equals all of it.
func TestResumeFromLog(t *testing.T) {
	lab := vol.New(t)
	_, dir := lab.Volume("btrfs", 512, "data")
	log := lab.Path("log")
	r := start(t, dir, log, churn.Options{Seed: 11, Objects: 300, Ops: 1500})
	if err := r.Wait(); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		next, err := churn.Resume(context.Background(), log, churn.Options{Ops: 1500})
		if err != nil {
			t.Fatal(err)
		}
		if err := next.Wait(); err != nil {
			t.Fatal(err)
		}
		requireEqual(t, "resumed", dir, next.Model)
	}
	if _, found, err := churn.CheckLog(dir, log, churn.CheckOptions{}); err != nil || len(found) > 0 {
		t.Fatalf("%v\n%s", err, churn.Summary(found))
	}
}
