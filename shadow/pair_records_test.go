package shadow

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// A directory that was touched on the shadow is not verified any more, and its record is of
// this epoch: after a power cut it is looked at again (I3).
func TestPairTouchedDirectoryIsRecorded(t *testing.T) {
	r := newStillRig(t, "ext4", "ext4", "mkdir d; echo x > d/f")
	ctx := context.Background()
	dir := r.node("d")
	_, err := r.p.verifyAll(ctx)
	must(t, err)
	was, _, err := r.p.nodes.Get(dir)
	must(t, err)
	must(t, r.p.checkpoint(ctx)) // the next epoch
	must(t, r.do(func(_ context.Context, w *worker) error { return r.p.dressDir(w, dir, dirState{}) }))
	is, _, err := r.p.nodes.Get(dir)
	must(t, err)
	if was.Flags&Verified == 0 || is.Flags&Verified != 0 || is.Epoch <= was.Epoch || is.Print != was.Print {
		t.Errorf("the record was %+v and is %+v", was, is)
	}
}

// Where a directory stands is remembered also when it stands there already: the way back
// begins with records that do not say it.
func TestPairPlaceOfADirectoryIsRecorded(t *testing.T) {
	r := newStillRig(t, "ext4", "ext4", "mkdir -p d/e; echo x > d/e/f")
	dir := r.node("d")
	was, _, err := r.p.nodes.Get(dir)
	must(t, err)
	rec := was
	rec.Parent, rec.Name = Node{}, ""
	must(t, r.p.nodes.Put(dir, &rec))
	must(t, r.do(func(ctx context.Context, w *worker) error { return r.atRoot().place(ctx, w, "d", unix.DT_DIR) }))
	is, _, err := r.p.nodes.Get(dir)
	must(t, err)
	if is.Parent != was.Parent || is.Name != "d" || is.Parent != r.p.to.root {
		t.Errorf("it is %q of %v, want that of %v", is.Name, is.Parent, was.Parent)
	}
}

// A worker's batch is written when it is as large as it may be, and not at the end of a task
// of a million files.
func TestPairBatchesAreBounded(t *testing.T) {
	r := newStillRig(t, "ext4", "ext4", "echo x > f")
	for _, c := range []struct {
		name string
		put  func(w *worker, n Node, rec *Record) error
	}{
		{"new records", func(w *worker, n Node, rec *Record) error { return w.put(r.p, n, rec) }},
		{"records again", func(w *worker, n Node, rec *Record) error { return w.amend(r.p, n, rec) }},
	} {
		must(t, r.do(func(_ context.Context, w *worker) error {
			for i := range uint64(batchSize) {
				rec := Record{To: Node{Ino: 1<<32 + i, Gen: 1}, Type: unix.S_IFREG >> 12, Name: c.name}
				if err := c.put(w, Node{Ino: 1<<32 + i, Gen: 1}, &rec); err != nil {
					return err
				}
			}
			if rec, known, err := r.p.nodes.Get(Node{Ino: 1 << 32, Gen: 1}); err != nil || !known || rec.Name != c.name {
				return fmt.Errorf("%s: after %d the map has %+v of the first: %w", c.name, batchSize, rec, err)
			}
			return nil
		}))
	}
}

// A change of all records is written in pieces too.
func TestNodeMapChangesInPieces(t *testing.T) {
	m := memStore(t, nil).Map('f')
	for i := range uint64(2000) {
		must(t, m.Put(Node{Ino: i + 1, Gen: 1}, &Record{To: Node{Ino: i + 1, Gen: 2}, Epoch: 1}))
	}
	seen := 0
	must(t, m.change(func(rec *Record) bool {
		if seen++; seen == 1500 {
			first, _, err := m.Get(Node{Ino: 1, Gen: 1})
			if must(t, err); first.Epoch != 2 {
				t.Errorf("after 1500 changes the map has epoch %d of the first", first.Epoch)
			}
		}
		rec.Epoch = 2
		return true
	}))
	last, _, err := m.Get(Node{Ino: 2000, Gen: 1})
	if must(t, err); seen != 2000 || last.Epoch != 2 {
		t.Errorf("%d were changed; the last has epoch %d", seen, last.Epoch)
	}
}

// The way back's node map is made of what is on disk, and is durable before anything is written by it.
func TestOrderOfTurningAround(t *testing.T) {
	r := newStillRig(t, "ext4", "ext4", "echo x > f")
	got := r.calls(func() { must(t, r.p.buildFrom(context.Background(), r.store.Map('t'), false)) })
	wantCalls(t, "turning the node map around", got, "syncfs volume 1", "syncfs volume 1", "syncfs volume 2")
}

// The witness of the swap is of what is on disk, and of nothing that an earlier one saw; one
// that was not finished is none.
func TestWitnessIsWholeOrNone(t *testing.T) {
	r := newStillRig(t, "ext4", "ext4", "mkdir d; echo x > d/f")
	ctx := context.Background()
	const gone = 1 << 40 // a number that the shadow has no more
	old := NewPrints()
	old.Set(gone, 7)
	must(t, r.store.putPrints(witnessSpace, old))
	if got := r.calls(func() { must(t, r.p.bearWitness(ctx)) }); !slices.Contains(got, "syncfs volume 2") {
		t.Errorf("a witness made the calls %q", got)
	}
	saw, err := r.store.witness()
	must(t, err)
	if saw.Get(gone) != 0 {
		t.Error("the witness speaks of what an earlier one saw")
	}
	if whole, _, err := r.store.Meta(witnessKey); err != nil || len(whole) == 0 {
		t.Errorf("the witness counts as unfinished: %v", err)
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	if err := r.p.bearWitness(ended); err == nil {
		t.Fatal("a witness was borne although the scan was ended")
	}
	must(t, r.store.putPrints(witnessSpace, old)) // the half that a kill would leave
	if saw, err = r.store.witness(); err != nil || saw.Get(gone) != 0 {
		t.Errorf("half a witness counts: %v", err)
	}
}

// Prints of many inodes are written in several pieces, and all of them are there.
func TestStorePrintsInPieces(t *testing.T) {
	s := memStore(t, nil)
	const chunks = 2500
	prints, got := NewPrints(), NewPrints()
	for i := range uint64(chunks) {
		prints.Set(i*printChunk+i%printChunk, Print(i+1))
	}
	must(t, s.putPrints(witnessSpace, prints))
	must(t, s.getPrints(witnessSpace, got))
	for i := range uint64(chunks) {
		if p := got.Get(i*printChunk + i%printChunk); p != Print(i+1) {
			t.Fatalf("the print of chunk %d is %d", i, p)
		}
	}
}
