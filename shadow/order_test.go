package shadow

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/sys/unix"

	"github.com/fsmigrate/fsmigrate/blockdev/blocktest"
	"github.com/fsmigrate/fsmigrate/copier"
	"github.com/fsmigrate/fsmigrate/migrate"
)

// These tests look at the system calls themselves: that a sync was left out, or came
// too late, shows in no file as long as the power stays on.

// calls are the durable calls that do makes, with the volumes of the pair as 1 and 2.
func (r *syncRig) calls(do func()) []string {
	r.t.Helper()
	return blocktest.Calls(r.t, r.src, do, r.src, r.dst)
}

func wantCalls(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s made the calls %q, want %q", what, got, want)
	}
}

// I3: nothing is committed as clean before the source and then the shadow are synced.
func TestOrderOfACheckpoint(t *testing.T) {
	r := newSyncRig(t, "ext4", "ext4")
	ctx := context.Background()
	both := []string{"syncfs volume 1", "syncfs volume 2"}
	wantCalls(t, "a start", r.calls(func() { must(t, r.p.begin()) }), both[0])
	r.sh("mkdir d; for i in $(seq 20); do echo $i > d/f$i; done")
	must(t, r.w.Barrier(ctx))
	// Once for the pass that is the first commit, and once when all of it is copied.
	wantCalls(t, "the walk", r.calls(func() { must(t, r.p.walk(ctx)) }), append(both, both...)...)
	wantCalls(t, "a checkpoint", r.calls(func() { must(t, r.p.checkpoint(ctx)) }), both...)
	r.sh("echo more >> d/f1")
	must(t, r.w.Barrier(ctx))
	wantCalls(t, "a durable pass", r.calls(func() { _, err := r.p.pass(ctx, passMode{durable: true}); must(t, err) }), both...)
	r.sh("echo more >> d/f2")
	must(t, r.w.Barrier(ctx))
	// What is read back comes from the device; the application does not wait for that.
	wantCalls(t, "a pass that reads back", r.calls(func() { _, err := r.p.pass(ctx, passMode{verify: true}); must(t, err) }), both[1])
	wantCalls(t, "the drain", r.calls(func() { _, err := r.p.drain(ctx); must(t, err) }), both...)
}

// Inodes that btrfs delays are in its tree, where the scan looks, once it is synced.
func TestOrderOfAScanOfBtrfs(t *testing.T) {
	r := newSyncRig(t, "btrfs", "ext4")
	wantCalls(t, "a scan", r.calls(func() { _, err := r.p.rescan(context.Background()); must(t, err) }), "syncfs volume 1")
}

// What is committed is durable: while a side cannot be synced, nothing is.
func TestOrderNoCommitWithoutSyncs(t *testing.T) {
	for _, side := range []string{"source", "shadow"} {
		t.Run(side, func(t *testing.T) {
			r := newSyncRig(t, "ext4", "ext4")
			ctx := context.Background()
			must(t, r.p.walk(ctx))
			r.sh("echo x > f")
			must(t, r.w.Barrier(ctx))
			_, err := r.p.pass(ctx, passMode{})
			must(t, err)
			epoch := r.p.journal.DurableEpoch()
			v := r.p.from
			if side == "shadow" {
				v = r.p.to
			}
			fd := v.fd
			v.fd = -1
			err = r.p.checkpoint(ctx)
			v.fd = fd
			if err == nil {
				t.Fatal("a checkpoint without a sync")
			}
			if got := r.p.journal.DurableEpoch(); got != epoch {
				t.Errorf("epoch %d is durable, it was %d", got, epoch)
			}
			if side == "shadow" {
				if rescan, _ := r.p.journal.NeedRescan(); !rescan {
					t.Error("what the shadow did not keep is not looked for")
				}
				return
			}
			// It is the application's write that is lost, perhaps: for good, and for every process (I6).
			if err := r.p.checkpoint(ctx); !errors.Is(err, errSourceSync) {
				t.Errorf("the next sync is believed: %v", err)
			}
			again, err := newPair(pairOptions{From: r.volume(r.src, r.p.from.device, "ext4"), To: r.volume(r.dst, r.p.to.device, "ext4"),
				Store: r.store, Space: 'f', BootID: r.p.bootID, Workers: 1, Limbo: ".fsmigrate-test"})
			must(t, err)
			defer again.shut()
			if again.fails.empty() || again.fails.list()[0].Class != syncError {
				t.Errorf("the next process knows nothing of it: %v", again.fails.list())
			}
		})
	}
}

// A young file, and one with holes, is synced before it is read; an old one is not. Of a
// file that was written after the clock was set back, its stamp said that it was old.
func TestOrderOfAReading(t *testing.T) {
	r := newSyncRig(t, "ext4", "ext4")
	r.sh("echo x > dense; truncate -s 1M sparse; echo x >> sparse")
	now := time.Now()
	for _, c := range []struct {
		name string
		t0   time.Time
		back time.Duration // the clock was set back since
		want []string
	}{
		{"dense", now.Add(time.Hour), 0, nil},
		{"dense", now.Add(-time.Hour), 0, []string{"fdatasync dense"}},
		{"dense", now.Add(time.Hour), 2 * time.Hour, []string{"fdatasync dense"}},
		{"sparse", now.Add(time.Hour), 0, []string{"fdatasync sparse"}},
	} {
		r.p.t0.Store(c.t0.UnixNano())
		r.p.steps.back = c.back
		fd, err := unix.Open(filepath.Join(r.src, c.name), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		must(t, err)
		var got reader
		calls := r.calls(func() { got, err = r.p.read(&worker{bufs: copier.NewBuffers()}, fd) })
		unix.Close(fd)
		must(t, err)
		wantCalls(t, "to read "+c.name, calls, c.want...)
		if got.synced != (c.want != nil) {
			t.Errorf("%s: synced %v", c.name, got.synced)
		}
	}
}

func TestOrderOfAReplacedFile(t *testing.T) {
	dir := t.TempDir()
	got := blocktest.Calls(t, dir, func() { must(t, writeDurably(filepath.Join(dir, "x.json"), []byte("x"))) })
	wantCalls(t, "replacing a file", got, "fsync x.json.new", "rename x.json.new x.json", "fsync .")
}

// A store is moved into place when it is whole and on disk.
func TestOrderOfANewStore(t *testing.T) {
	dir := t.TempDir()
	var s *Store
	got := blocktest.Calls(t, dir, func() {
		var err error
		s, err = OpenStore(filepath.Join(dir, "journal"), StoreOptions{})
		must(t, err)
	})
	defer func() { must(t, s.Close()) }()
	at := slices.Index(got, "rename journal.making journal")
	if at < 1 || got[at-1] != "fsync journal.making" || at+1 == len(got) || got[at+1] != "fsync ." {
		t.Errorf("a new store made the calls %q", got)
	}
}

// What Pebble syncs is synced: the layer between sees errors and passes on the rest.
func TestOrderOfTheStoresFiles(t *testing.T) {
	dir := t.TempDir()
	fs := &strictFS{vfs.Default, &storeFailure{ended: make(chan struct{})}}
	f, err := fs.Create(filepath.Join(dir, "000001.log"), vfs.WriteCategoryUnspecified)
	must(t, err)
	defer f.Close()
	got := blocktest.Calls(t, dir, func() {
		must(t, f.Sync())
		must(t, f.SyncData())
		_, err := f.SyncTo(1)
		must(t, err)
	})
	if len(got) != 3 || strings.Count(strings.Join(got, " "), " 000001.log") != 3 {
		t.Errorf("calls %q", got)
	}
}

// The spare is on disk before it is recorded to be made, its file before it is looped.
func TestOrderOfAMadeSpare(t *testing.T) {
	r := newPlaceRig(t, rigOptions{from: "ext4", to: "ext4", noSub: true})
	file := filepath.Join(t.TempDir(), "spare.img")
	r.o.Spare = migrate.DeviceSpec{File: file, Size: 128 << 20, Bytes: 128 << 20}
	p := r.open()
	got := blocktest.Calls(t, r.o.StateDir, func() { must(t, p.Make(context.Background())) })
	var kept []string
	device := false
	for _, c := range got {
		switch {
		case c == "fsync "+file:
			kept = append(kept, "file")
		case strings.HasPrefix(c, "fsync /dev/loop"):
			kept, device = append(kept, "device"), true
		case strings.HasPrefix(c, "rename shadow.json"):
			kept = append(kept, "record")
		}
	}
	if !device || !slices.Equal(kept, []string{"file", "record", "device", "record"}) {
		t.Errorf("calls %q", got)
	}
}

// The fence syncs before the superblock is read-only: nothing is left to write in the pause,
// and a failed write is heard of. The ledger is in place before the first seal.
func TestOrderOfAFence(t *testing.T) {
	r := newPlaceRig(t, rigOptions{from: "ext4", to: "xfs", noSub: true})
	p := r.prepared()
	var at []string
	p.step = func(op string) error { at = append(at, op); return nil }
	got := blocktest.Calls(t, r.o.StateDir, func() { r.fence(p, migrate.Source) }, r.o.Dir)
	must(t, p.Settle(context.Background(), migrate.Source))
	want := []string{"syncfs volume 1", "rename sealed-source.json.new sealed-source.json"}
	kept := slices.DeleteFunc(slices.Clone(got), func(c string) bool { return !slices.Contains(want, c) })
	if !slices.Equal(slices.Compact(kept), want) {
		t.Errorf("calls %q at %v", got, at)
	}
}

// A side that was written is synced before its private mount goes, and the volume that is
// named at the end too.
func TestOrderOfARelease(t *testing.T) {
	r := newPlaceRig(t, rigOptions{from: "ext4", to: "ext4", noSub: true})
	ctx := context.Background()
	p := r.prepared()
	tree := p.trees[migrate.Shadow].tree
	got := blocktest.Calls(t, r.o.StateDir, func() { must(t, p.dropPrivate(migrate.Shadow)) }, tree.Path())
	if !slices.Contains(got, "syncfs volume 1") {
		t.Errorf("a release made the calls %q", got)
	}
	_, err := p.Open(ctx, migrate.Shadow, true)
	must(t, err)
	r.fence(p, migrate.Source)
	must(t, p.SwapIn(ctx, migrate.Shadow))
	must(t, p.Settle(ctx, migrate.Shadow))
	got = blocktest.Calls(t, r.o.StateDir, func() { must(t, p.Name(ctx)) }, r.o.Dir)
	wantCalls(t, "naming the volume", got, "syncfs volume 1")
}
