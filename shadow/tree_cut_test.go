package shadow

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/fsmigrate/fsmigrate/blockdev/blocktest"
	"github.com/fsmigrate/fsmigrate/migrate"
)

// heldTree is a tree that is caught up and verified.
func (r *placeRig) heldTree() *Tree {
	r.t.Helper()
	var told []string
	tree := newTreeRig(r.t, r, &told)
	ctx := context.Background()
	must(r.t, tree.Prepare(ctx, migrate.Shadow))
	must(r.t, tree.Copy(ctx))
	if done, _, err := tree.store.Meta("copied"); err != nil || len(done) == 0 {
		r.t.Errorf("the next process would walk again: %q, %v", done, err)
	}
	r.caughtUp(tree)
	epoch := tree.active().journal.DurableEpoch()
	_, err := tree.Verify(ctx)
	must(r.t, err)
	if tree.active().journal.DurableEpoch() == epoch {
		r.t.Error("what is verified was not made durable first")
	}
	return tree
}

// I2: what the kernel has queued for the watch is heard before the first unit is copied
// behind the fence. (That the scan of the proof would find it too is the second witness.)
func TestTreeDrainsTheWatchFirst(t *testing.T) {
	r := newPlaceRig(t, rigOptions{from: "ext4", to: "ext4", noSub: true})
	tree := r.heldTree()
	ctx := context.Background()
	w := tree.watches[migrate.Source]
	must(t, w.Barrier(ctx))
	w.mu.Lock() // the reader stands still
	before := w.events.Load()
	must(t, os.WriteFile(filepath.Join(r.o.Dir, "file"), []byte("at the last moment"), 0o644))
	if err := tree.Fence(ctx, migrate.Shadow); err != nil {
		w.mu.Unlock()
		t.Fatal(err)
	}
	touched := false
	tree.active().step = func(string) error {
		if touched = true; w.events.Load() == before {
			t.Error("a unit is copied before the watch is heard out")
		}
		return nil
	}
	go func() {
		<-time.After(100 * time.Millisecond)
		w.mu.Unlock()
	}()
	proof, err := tree.Drain(ctx, migrate.Shadow)
	tree.active().step = nil
	must(t, err)
	if !touched || proof.Different != 0 || proof.Verified+proof.Waived != proof.Objects {
		t.Errorf("touched %v, proof %+v", touched, proof)
	}
	must(t, tree.Settle(ctx, migrate.Source))
	must(t, tree.Abort(ctx))
	must(t, tree.Close())
}

// I3 behind the fence: what was copied is durable before it is read back, and what the
// reading proved is durable before the record.
func TestOrderOfADrain(t *testing.T) {
	r := newPlaceRig(t, rigOptions{from: "ext4", to: "ext4", noSub: true})
	tree := r.heldTree()
	ctx := context.Background()
	must(t, os.WriteFile(filepath.Join(r.o.Dir, "file"), []byte("at the last moment"), 0o644))
	must(t, tree.Fence(ctx, migrate.Shadow))
	epoch := tree.active().journal.DurableEpoch()
	got := blocktest.Calls(t, r.o.StateDir, func() {
		_, err := tree.Drain(ctx, migrate.Shadow)
		must(t, err)
	}, r.o.Dir, tree.place.trees[migrate.Shadow].tree.Path())
	got = slices.DeleteFunc(got, func(c string) bool { return c != "syncfs volume 1" && c != "syncfs volume 2" })
	wantCalls(t, "the drain", got, "syncfs volume 1", "syncfs volume 2", "syncfs volume 1", "syncfs volume 2")
	if now := tree.active().journal.DurableEpoch(); now != epoch+2 {
		t.Errorf("epoch %d is durable after %d", now, epoch)
	}
	must(t, tree.Settle(ctx, migrate.Source))
	must(t, tree.Abort(ctx))
	must(t, tree.Close())
}

// What an attempt that was undone left of the way back is forgotten before the next one
// follows: its records name objects that are others now.
func TestTreeFollowForgetsAnUndoneAttempt(t *testing.T) {
	r := newPlaceRig(t, rigOptions{from: "ext4", to: "ext4", noSub: true})
	tree := r.heldTree()
	ctx := context.Background()
	stale := Node{Ino: 12345, Gen: 1}
	must(t, tree.store.Map('r').Put(stale, &Record{To: Node{Ino: 12, Gen: 1}, Type: 8}))
	must(t, tree.store.SetMeta(builtKey, []byte("1"), true))
	must(t, tree.Fence(ctx, migrate.Shadow))
	_, err := tree.Drain(ctx, migrate.Shadow)
	must(t, err)
	must(t, tree.SwapIn(ctx, migrate.Shadow))
	behind := Node{Ino: 777, Gen: 1}
	tree.there.left.add(behind, leftObject{})
	must(t, tree.Follow(ctx, migrate.Source))
	if kept, err := tree.loadKept(); err != nil || len(kept) != 1 {
		t.Errorf("the way back would remove what was left behind: it knows of %v, %v", kept, err)
	}
	tree.there.left.remove(behind)
	if _, known, err := tree.store.Map('r').Get(stale); err != nil || known {
		t.Errorf("a record of the attempt before is there: %v, %v", known, err)
	}
	if built, _, err := tree.store.Meta(builtKey); err != nil || len(built) != 0 {
		t.Errorf("the way back counts as built: %q, %v", built, err)
	}
	must(t, tree.Settle(ctx, migrate.Source))
	must(t, tree.Abort(ctx))
	must(t, tree.Close())
}

// Behind the fence nothing waits for its stamp to be old enough: it is read again at once.
func TestPairNothingWaitsBehindTheFence(t *testing.T) {
	r := newSyncRig(t, "ext4", "ext4", "-I", "128")
	ctx := context.Background()
	r.sh("echo x > f")
	must(t, r.p.walk(ctx))
	if r.p.racyLen() == 0 {
		t.Fatal("no stamp is racy")
	}
	<-time.After(2100 * time.Millisecond) // the stamps are old, and nobody looked again
	_, err := r.p.drain(ctx)
	must(t, err)
	if n := r.p.racyLen(); n != 0 {
		t.Errorf("%d files still wait", n)
	}
	r.p.fenced = false
	r.equal()
}
