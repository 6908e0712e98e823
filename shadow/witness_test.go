package shadow

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fsmigrate/fsmigrate/migrate"
)

// newTreeRig is a tree over the rig's volumes; audit events go to told.
func newTreeRig(t *testing.T, r *placeRig, told *[]string) *Tree {
	t.Helper()
	pl := &migrate.Plan{
		Version: migrate.PlanVersion, ID: "rig", Tracker: "watch", Copy: migrate.CopySpec{Policy: "asap"},
		Source: migrate.SourceSpec{Mount: r.o.Dir, Device: r.o.Source, Format: r.o.SourceFormat, UUID: r.o.SourceUUID, Options: r.o.MountOptions},
		Target: migrate.TargetSpec{Format: r.o.TargetFormat, Spare: r.o.Spare},
	}
	tree, err := NewTree(TreeOptions{Plan: pl, State: r.o.StateDir, Audit: func(e string, f map[string]any) error {
		*told = append(*told, fmt.Sprint(e, " ", f["path"]))
		return nil
	}})
	must(t, err)
	t.Cleanup(func() { _ = tree.Close() }) // for failures
	return tree
}

// cutTo swaps to a side, and fails unless everything is proven equal.
func (r *placeRig) cutTo(tree *Tree, to migrate.Side) {
	r.t.Helper()
	ctx := context.Background()
	r.soon("the "+string(to.Other())+" cannot be fenced", func() bool { return tree.Fence(ctx, to) == nil })
	proof, err := tree.Drain(ctx, to)
	must(r.t, err)
	if proof.Different != 0 || proof.Verified+proof.Waived != proof.Objects {
		r.t.Fatalf("proof towards the %s: %+v", to, proof)
	}
	must(r.t, tree.SwapIn(ctx, to))
	must(r.t, tree.Follow(ctx, to.Other()))
	must(r.t, tree.Settle(ctx, to))
}

// caughtUp runs passes until nothing is dirty.
func (r *placeRig) caughtUp(tree *Tree) {
	r.t.Helper()
	ctx := context.Background()
	r.soon("the passes do not come to an end", func() bool {
		_, err := tree.Pass(ctx)
		must(r.t, err)
		b, err := tree.Backlog(ctx)
		must(r.t, err)
		return b.Units == 0
	})
}

// What was changed after the swap while nobody listened comes back with a rollback, also when
// the clock was set back before: its stamp is one of before the swap.
func TestWayBackAsksNoClock(t *testing.T) {
	r := newPlaceRig(t, rigOptions{from: "xfs", to: "ext4", noSub: true})
	ctx := context.Background()
	var told []string
	tree := newTreeRig(t, r, &told)
	for i := range 200 {
		must(t, os.WriteFile(filepath.Join(r.o.Dir, fmt.Sprint("f", i)), []byte("as it was"), 0o644))
	}
	must(t, tree.Prepare(ctx, migrate.Shadow))
	must(t, tree.Copy(ctx))
	_, err := tree.Verify(ctx)
	must(t, err)
	<-time.After(4 * coarseTick) // no stamp on the shadow is of this moment
	r.caughtUp(tree)
	_, err = tree.Pass(ctx)
	must(t, err)
	must(t, os.WriteFile(filepath.Join(r.o.Dir, "f7"), []byte("changed before the fence"), 0o644))
	r.cutTo(tree, migrate.Shadow)
	must(t, tree.Close()) // a kill

	f := filepath.Join(r.o.Dir, "f1")
	var st unix.Stat_t
	must(t, unix.Stat(f, &st))
	must(t, os.WriteFile(f, []byte("other now"), 0o644)) // of the same size
	must(t, os.WriteFile(filepath.Join(r.o.Dir, "new"), []byte("made"), 0o644))
	r.sh("umount", r.o.Dir)
	for _, name := range []string{"/f1", "/new", "/"} { // what the clock of an hour ago would have left
		r.sh("debugfs", "-w", "-R", fmt.Sprintf("set_inode_field %s ctime @%d", name, time.Now().Unix()-3600), r.spare)
	}
	tree = newTreeRig(t, r, &told)
	must(t, tree.Settle(ctx, migrate.Shadow))
	must(t, tree.Prepare(ctx, migrate.Source))
	if b, err := tree.Backlog(ctx); err != nil || b.Units > 20 {
		t.Errorf("%d units of 200 are dirty, of which three were changed: %v", b.Units, err)
	}
	r.caughtUp(tree)
	if built, _, err := tree.store.Meta(builtKey); err != nil || len(built) == 0 {
		t.Errorf("the next process would make the map of the way back again: %q, %v", built, err)
	}
	_, err = tree.Verify(ctx)
	must(t, err)
	r.cutTo(tree, migrate.Source)
	for name, want := range map[string]string{"f1": "other now", "f2": "as it was", "f7": "changed before the fence", "new": "made"} {
		if got, err := os.ReadFile(filepath.Join(r.o.Dir, name)); err != nil || string(got) != want {
			t.Errorf("%s is %q, want %q: %v", name, got, want, err)
		}
	}
	must(t, tree.Finalize(ctx, migrate.Source))
	must(t, tree.Close())
}

// A mount of the old volume that somebody makes in Reverse is sealed and told, and what may
// have been written through it is found before a rollback.
func TestGuardFindsALateMount(t *testing.T) {
	r := newPlaceRig(t, rigOptions{from: "ext4", to: "xfs", noSub: true})
	ctx := context.Background()
	var told []string
	tree := newTreeRig(t, r, &told)
	must(t, tree.Prepare(ctx, migrate.Shadow))
	must(t, tree.Copy(ctx))
	_, err := tree.Verify(ctx)
	must(t, err)
	r.caughtUp(tree)
	r.cutTo(tree, migrate.Shadow)
	must(t, tree.Prepare(ctx, migrate.Source))
	r.caughtUp(tree)
	must(t, tree.Guard(ctx, migrate.Source))
	late := filepath.Join(t.TempDir(), "late")
	must(t, os.Mkdir(late, 0o755))
	if out, err := exec.Command("mount", r.source, late).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	mounted := true
	t.Cleanup(func() {
		if mounted {
			_ = exec.Command("umount", late).Run()
		}
	})
	must(t, os.WriteFile(filepath.Join(late, "file"), []byte("FAKE"), 0o644))
	must(t, tree.Guard(ctx, migrate.Source))
	if err := os.WriteFile(filepath.Join(late, "file"), []byte("more"), 0o644); !errors.Is(err, unix.EROFS) {
		t.Errorf("the late mount can be written: %v", err)
	}
	if n := strings.Count(strings.Join(told, "\n"), "sealed-late "+late); n != 1 {
		t.Errorf("the audit log has the late mount %d times: %v", n, told)
	}
	must(t, tree.Guard(ctx, migrate.Source))
	if n := strings.Count(strings.Join(told, "\n"), "sealed-late"); n != 1 {
		t.Errorf("it is told again: %v", told)
	}
	if b, err := tree.Backlog(ctx); err != nil || b.Unverified == 0 {
		t.Errorf("the old volume still counts as proven: %+v, %v", b, err)
	}
	r.sh("umount", late)
	mounted = false
	proof, err := tree.Verify(ctx)
	must(t, err)
	if proof.Different == 0 {
		t.Error("what was written through the late mount was not found")
	}
	r.caughtUp(tree)
	_, err = tree.Verify(ctx)
	must(t, err)
	r.cutTo(tree, migrate.Source)
	if got, err := os.ReadFile(filepath.Join(r.o.Dir, "file")); err != nil || string(got) != "data" {
		t.Errorf("file is %q: %v", got, err)
	}
	must(t, tree.Finalize(ctx, migrate.Source))
	must(t, tree.Close())
}
