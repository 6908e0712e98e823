package shadow

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fsmigrate/fsmigrate/migrate"
)

// A tree over real volumes, driven as the engine drives it: there, and back again
// with what was written meanwhile.
func TestTreeThereAndBack(t *testing.T) {
	r := newPlaceRig(t, rigOptions{from: "ext4", to: "xfs", noSub: true})
	pl := &migrate.Plan{
		Version: migrate.PlanVersion, ID: "rig", Tracker: "watch", Copy: migrate.CopySpec{Policy: "asap"},
		Source: migrate.SourceSpec{Mount: r.o.Dir, Device: r.o.Source, Format: "ext4", UUID: r.o.SourceUUID, Options: r.o.MountOptions},
		Target: migrate.TargetSpec{Format: "xfs", Spare: r.o.Spare},
	}
	tree, err := NewTree(TreeOptions{Plan: pl, State: r.o.StateDir, Audit: func(string, map[string]any) error { return nil }})
	must(t, err)
	t.Cleanup(func() { _ = tree.Close() }) // closed below; this is for failures
	ctx := context.Background()
	sh := func(script string) {
		t.Helper()
		c := exec.Command("bash", "-euc", script)
		c.Dir = r.o.Dir
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	copied := filepath.Join(t.TempDir(), "truth")
	keep := func() { r.sh("rsync", "-aHAXc", "--delete", r.o.Dir+"/", copied+"/") }
	equal := func() {
		t.Helper()
		out, err := exec.Command("rsync", "-naHAXc", "--delete", "--itemize-changes", "--exclude=/lost+found",
			"--filter=-xr trusted.SGI_ACL_*", copied+"/", r.o.Dir+"/").CombinedOutput()
		if err != nil || len(out) > 0 {
			t.Fatalf("rsync finds differences: %v\n%s", err, out)
		}
	}
	cut := func(to migrate.Side) {
		t.Helper()
		r.soon("the "+string(to.Other())+" cannot be fenced", func() bool { return tree.Fence(ctx, to) == nil })
		proof, err := tree.Drain(ctx, to)
		must(t, err)
		if proof.Different != 0 || proof.Verified+proof.Waived != proof.Objects {
			t.Fatalf("proof towards the %s: %+v", to, proof)
		}
	}
	defer lookBeside(t, tree)()
	sh("mkdir -p a/b; for i in $(seq 40); do echo $i > a/f$i; done; ln a/f1 a/b/l")
	must(t, tree.Prepare(ctx, migrate.Shadow))
	must(t, tree.Copy(ctx))
	sh("mv a/b c; echo late > c/late")
	_, err = tree.Pass(ctx)
	must(t, err)
	proof, err := tree.Verify(ctx)
	must(t, err)
	if proof.Different != 0 {
		t.Fatalf("%+v", proof)
	}
	// A cutover that is undone after the drain costs nothing, and the next one counts all.
	cut(migrate.Shadow)
	must(t, tree.Settle(ctx, migrate.Source))
	must(t, tree.Prepare(ctx, migrate.Shadow))
	sh("echo again > c/again; rm a/f2; printf shadow > who")
	_, err = tree.Pass(ctx)
	must(t, err)
	keep()
	cut(migrate.Shadow)
	must(t, tree.SwapIn(ctx, migrate.Shadow))
	must(t, tree.Follow(ctx, migrate.Shadow))
	must(t, tree.Settle(ctx, migrate.Shadow))
	equal()
	r.settledAlone(migrate.Shadow)

	sh("echo new > a/new; mv c a/; rm a/f3; chmod 600 a/f4; printf source > who")
	must(t, tree.Prepare(ctx, migrate.Source))
	deadline := time.Now().Add(20 * time.Second)
	for b := int64(1); b > 0 && time.Now().Before(deadline); {
		_, err = tree.Pass(ctx)
		must(t, err)
		now, err := tree.Backlog(ctx)
		must(t, err)
		b = now.Units
	}
	if w := tree.WayBack(ctx); w.State != "full" {
		t.Errorf("way back: %+v", w)
	}
	keep()
	cut(migrate.Source)
	must(t, tree.SwapIn(ctx, migrate.Source))
	must(t, tree.Settle(ctx, migrate.Source))
	equal()
	r.settledAlone(migrate.Source)
	must(t, tree.Finalize(ctx, migrate.Source))
	must(t, tree.Close())
	if _, err := os.Stat(filepath.Join(r.o.Dir, ".fsmigrate-rig")); err == nil {
		t.Error("limbo stays on the truth")
	}
}

// lookBeside asks what status asks, over and over, until the func it returns is called: for
// the race detector, while everything else goes on.
func lookBeside(t *testing.T, tree *Tree) (stop func()) {
	end := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for tick := time.NewTicker(time.Millisecond); ; {
			select {
			case <-end:
				tick.Stop()
				return
			case <-tick.C:
			}
			if _, err := tree.Backlog(context.Background()); err != nil {
				t.Errorf("backlog: %v", err)
				return
			}
			tree.Progress()
			tree.WayBack(context.Background())
		}
	}()
	return func() {
		close(end)
		<-done
	}
}

// The rate of the way back is not the difference to what the way there had copied: it was
// told as -98,025 objects a second.
func TestTreeProgressOfTheWayBack(t *testing.T) {
	tree := &Tree{o: TreeOptions{Plan: &migrate.Plan{}}}
	tree.there = &pair{}
	tree.there.objects.Store(1000)
	tree.Progress()
	tree.rate.at = tree.rate.at.Add(-time.Second)
	tree.there.objects.Store(3000)
	if p := tree.Progress(); p.ObjectsPerSec < 1000 || p.ObjectsPerSec > 2100 {
		t.Errorf("%+v", p)
	}
	tree.there, tree.back = nil, &pair{}
	tree.back.ready.Store(true)
	tree.rate.at = tree.rate.at.Add(-time.Second)
	if p := tree.Progress(); p.ObjectsPerSec != 0 || p.BytesPerSec != 0 {
		t.Errorf("%+v", p)
	}
}

// A gentle copy's workers give way, and nothing that runs in this process after them does.
func TestLowerPriority(t *testing.T) {
	nice := func(lower bool) int {
		got := make(chan int)
		go func() {
			if lower {
				lowerPriority()
			}
			runtime.LockOSThread() // and its thread ends with it
			n, err := unix.Getpriority(unix.PRIO_PROCESS, unix.Gettid())
			if err != nil {
				n = -1
			}
			got <- 20 - n // what the system call answers is 20 - nice
		}()
		return <-got
	}
	before := nice(false)
	for range 8 {
		if n := nice(true); n != lowestNice {
			t.Errorf("a worker's nice is %d", n)
		}
		if n := nice(false); n != before {
			t.Errorf("what runs after a worker has nice %d, not %d", n, before)
		}
	}
}
