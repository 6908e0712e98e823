package shadow

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fsmigrate/fsmigrate/copier"
	"github.com/fsmigrate/fsmigrate/migrate"
)

// These tests ask for marks one by one. Elsewhere an event of the same change, or a scan, sets
// the same one, and nobody would see that it is missing until there is neither.

// newStillRig is a rig whose tree is copied and clean. Nobody listens any more, and nothing is scanned.
func newStillRig(t *testing.T, from, to, tree string) *syncRig {
	t.Helper()
	r := newSyncRig(t, from, to)
	r.sh(tree)
	must(t, r.w.Barrier(context.Background()))
	must(t, r.p.walk(context.Background()))
	r.quiet()
	must(t, r.w.Close())
	r.p.scans.Store(false)
	return r
}

// do runs one task of a pass.
func (r *syncRig) do(do func(ctx context.Context, w *worker) error) error {
	return runTasks(context.Background(), 1, r.p, []task{do})
}

// passes runs them until nothing is dirty.
func (r *syncRig) passes() {
	r.t.Helper()
	for range 20 {
		_, err := r.p.pass(context.Background(), passMode{})
		must(r.t, err)
		if r.p.journal.Len() == 0 {
			return
		}
	}
	r.t.Fatalf("%d units are dirty after 20 passes", r.p.journal.Len())
}

// atRoot is the task of the root.
func (r *syncRig) atRoot() *dirTask {
	return &dirTask{p: r.p, node: r.p.from.root, from: r.p.from.fd, to: r.p.to.fd, root: true}
}

// blind has nothing of the source opened while it does something.
func (r *syncRig) blind(do func()) {
	fd := r.p.from.fd
	r.p.from.fd = -1
	do()
	r.p.from.fd = fd
}

func (r *syncRig) wantDirty(name string, n Node, want What) {
	r.t.Helper()
	if got := r.p.journal.Dirty(n); got&want != want {
		r.t.Errorf("%s is marked %#x, want %#x", name, got, want)
	}
}

// wantWhole asks that the next comparison of a directory is one of all its names.
func (r *syncRig) wantWhole(name string, n Node) {
	r.t.Helper()
	if names, some := r.p.names.take(n); some {
		r.t.Errorf("of %s only the names %v are compared", name, names)
	}
}

// A name that changed hands between two looks at it is looked at again, whether or not the
// change was heard.
func TestPairNameThatChangedHandsIsRedone(t *testing.T) {
	r := newStillRig(t, "ext4", "ext4", "echo f > file; echo o > other; ln -s file link; mkfifo fifo; mkdir dir")
	r.sh("ln file taken")
	must(t, os.WriteFile(filepath.Join(r.dst, "taken"), nil, 0o600))
	d := r.atRoot()
	file, link := r.node("file"), r.node("link")
	fifo, err := unix.Open(filepath.Join(r.src, "fifo"), unix.O_PATH|unix.O_CLOEXEC, 0)
	must(t, err)
	defer unix.Close(fifo)
	for _, c := range []struct {
		what, name string
		do         func(ctx context.Context, w *worker) error
	}{
		{"a link has the name of a file", "link",
			func(ctx context.Context, w *worker) error { return r.p.createFile(ctx, w, d, file, "link") }},
		{"another file has it", "other",
			func(ctx context.Context, w *worker) error { return r.p.createFile(ctx, w, d, file, "other") }},
		{"what was opened is no file", "fifo",
			func(ctx context.Context, w *worker) error { return r.p.copyFile(ctx, w, d, file, "fifo", fifo) }},
		{"it became a link while it was opened", "other",
			func(context.Context, *worker) error { return r.p.vanishedOr(d, "other", "open", unix.ELOOP) }},
		{"a directory is none", "file",
			func(_ context.Context, w *worker) error { return r.p.createDir(w, d, file, "file") }},
		{"a file has the name of a link", "file",
			func(_ context.Context, w *worker) error { return r.p.createOther(w, d, link, "file") }},
		{"a link is a file", "file",
			func(_ context.Context, w *worker) error { return r.p.createOther(w, d, file, "file") }},
		{"a new directory has the name already", "taken",
			func(ctx context.Context, w *worker) error {
				return d.placeNew(ctx, w, &entry{name: "taken", ino: file.Ino, typ: unix.DT_REG}, -1)
			}},
	} {
		must(t, r.do(c.do))
		names, some := r.p.names.take(d.node)
		if _, redone := names[c.name]; !some || !redone {
			t.Errorf("%s: the names %v are compared again, not %s", c.what, names, c.name)
		}
		if r.p.journal.Dirty(d.node)&Entries == 0 {
			t.Errorf("%s: the directory is clean", c.what)
		}
		r.p.journal.Done(slices.DeleteFunc(r.p.journal.Take(0), func(u Unit) bool { return u.Node != d.node })[0])
	}
	// The last one has been made changeable before it was found that its new name is taken.
	r.wantDirty("what was to be linked", file, Attrs|Firm)
}

// What ends a comparison before it has come to all names has it begun anew with all of them:
// those that it took are in no list any more.
func TestPairInterruptedComparisonsAreWhole(t *testing.T) {
	r := newStillRig(t, "ext4", "ext4", "mkdir d e; for i in $(seq 257); do echo $i > d/f$i; done; echo e > e/gone")
	ctx := context.Background()
	root, dir, other := r.p.from.root, r.node("d"), r.node("e")
	rec, _, err := r.p.nodes.Get(dir)
	must(t, err)

	r.sh("echo unheard > new")
	r.p.names.add(root, "new")
	r.blind(func() {
		must(t, r.do(func(ctx context.Context, w *worker) error { return r.p.reconcile(ctx, w, root) }))
	})
	must(t, r.do(func(ctx context.Context, w *worker) error { return r.p.reconcile(ctx, w, root) }))
	if _, err := os.Stat(filepath.Join(r.dst, "new")); err != nil {
		t.Errorf("a name is forgotten after its directory could not be opened: %v", err)
	}
	r.blind(func() {
		must(t, r.do(func(ctx context.Context, w *worker) error { return r.p.placeLarge(ctx, w, root, "new") }))
	})
	r.wantWhole("a directory that could not be opened for a large file", root)
	r.blind(func() {
		must(t, r.do(func(ctx context.Context, w *worker) error { return r.p.fill(ctx, w, dir, rec.To) }))
	})
	r.wantWhole("a new directory that could not be opened", dir)

	// The second chunk of a new directory, and a large file of one, fail in tasks of their own.
	must(t, os.RemoveAll(filepath.Join(r.dst, "d")))
	must(t, os.Mkdir(filepath.Join(r.dst, "d"), 0o700))
	to, err := r.p.to.codec.NodeAt(r.p.to.fd, "d", 0)
	must(t, err)
	made := 0
	r.p.step = func(op string) error {
		if op == "create" {
			if made++; made == 2 {
				return errStep
			}
		}
		return nil
	}
	if err := r.do(func(ctx context.Context, w *worker) error { return r.p.fill(ctx, w, dir, to) }); !errors.Is(err, errStep) {
		t.Fatalf("filling: %v", err)
	}
	if made != 2 {
		t.Errorf("%d files were made", made)
	}
	r.wantWhole("a new directory whose first chunk failed", dir)
	r.sh("head -c 4500000 /dev/zero > large")
	r.p.names.take(root)
	made = 1
	d := r.atRoot()
	d.left = &entriesLeft{all: func() {}}
	d.left.n.Store(1)
	if err := r.do(func(ctx context.Context, w *worker) error { return d.place(ctx, w, "large", unix.DT_REG) }); !errors.Is(err, errStep) {
		t.Fatalf("a large file: %v", err)
	}
	r.wantWhole("a directory whose large file failed", root)

	// A directory whose entries are equal, and which cannot be dressed, is compared again.
	r.p.step = func(op string) error {
		if op == "dress" {
			return errStep
		}
		return nil
	}
	r.sh("rm e/gone")
	r.p.names.add(other, "gone")
	r.p.journal.Mark(other, Entries)
	if err := r.p.work(ctx, r.p.journal.Take(0)); !errors.Is(err, errStep) {
		t.Fatalf("the pass: %v", err)
	}
	r.wantDirty("a directory that was not dressed", other, Entries|Attrs)
	r.wantWhole("a directory that was not dressed", other)
}

// A directory that on the shadow is still above the place it has now goes through limbo,
// with all below it, and is fetched from there although nobody heard of the rename.
func TestPairEvictsForARename(t *testing.T) {
	r := newStillRig(t, "ext4", "xfs", "mkdir -p p/q; echo deep > p/q/f; echo top > p/f")
	p, q, root := r.node("p"), r.node("p/q"), r.p.from.root
	recQ, _, err := r.p.nodes.Get(q)
	must(t, err)
	r.sh("mv p/q q; mv p q/p")
	from, err := r.p.from.open(q, unix.O_RDONLY|unix.O_DIRECTORY)
	must(t, err)
	defer unix.Close(from)
	to, err := r.p.to.open(recQ.To, unix.O_RDONLY|unix.O_DIRECTORY)
	must(t, err)
	defer unix.Close(to)
	d := &dirTask{p: r.p, node: q, from: from, to: to}
	must(t, r.do(func(ctx context.Context, w *worker) error { return d.place(ctx, w, "p", unix.DT_DIR) }))
	recP, _, err := r.p.nodes.Get(p)
	must(t, err)
	if is, err := r.p.to.codec.NodeAt(to, "p", 0); err != nil || is != recP.To {
		t.Errorf("the directory is not where it belongs: %v, %v", is, err)
	}
	if recP.Parent != recQ.To || recP.Name != "p" {
		t.Errorf("it is remembered as %q of %v", recP.Name, recP.Parent)
	}
	r.wantDirty("what waits in limbo", q, Attrs|Firm)
	r.wantDirty("the directory that it is fetched for", root, Entries)
	names, some := r.p.names.take(root)
	if some {
		t.Errorf("of that only the names %v are compared", names)
	}
	r.p.names.allOf(root)
	r.passes()
	r.equal()
	if back, err := os.ReadFile(filepath.Join(r.dst, "q/p/f")); err != nil || string(back) != "top\n" {
		t.Errorf("%q, %v", back, err)
	}
}

// A counterpart of a directory that a power cut took is made anew, though nothing changed on the source.
func TestPairLostDirectoryIsMadeAnew(t *testing.T) {
	r := newStillRig(t, "ext4", "ext4", "mkdir -p e/d/sub; echo x > e/d/f; echo y > e/d/sub/g")
	must(t, os.RemoveAll(filepath.Join(r.dst, "e/d")))
	r.p.journal.Mark(r.node("e/d"), Entries)
	r.passes()
	r.equal()
}

// What only the shadow's side differs in is found by a firm mark alone: all names are compared.
func TestPairFirmMarkComparesAllNames(t *testing.T) {
	r := newStillRig(t, "ext4", "ext4", "mkdir d; echo x > d/f; echo y > d/g")
	must(t, os.Remove(filepath.Join(r.dst, "d/f")))
	r.p.journal.Mark(r.node("d"), Attrs|Firm)
	r.passes()
	r.equal()
}

// What found no place, or could not be read, is tried again by its mark alone.
func TestPairRetriesByAMark(t *testing.T) {
	r := newStillRig(t, "ext4", "ext4", "mkdir d; echo x > d/f; echo r > record")
	dir, root, record := r.node("d"), r.p.from.root, r.node("record")
	r.sh("mv d e")
	r.p.left.retry(dir, leftObject{parent: root, name: "e"})
	r.p.journal.Mark(dir, Data|Attrs|Entries)
	r.passes()
	r.equal()
	r.p.left.add(record, leftObject{record: true})
	if !r.p.retry(record) {
		t.Error("it is not known where it is")
	}
	r.wantDirty("an object with an earlier state", record, Data|Attrs)
}

// A scan that nobody's events come before finds what changed, all of it.
func TestPairScanComparesAllNames(t *testing.T) {
	r := newStillRig(t, "ext4", "ext4", "mkdir d; echo x > d/f; echo y > d/g")
	r.sh("rm d/f; echo new > d/new; mkdir d/more; echo in > d/more/in; echo longer > d/g")
	_, err := r.p.rescan(context.Background())
	must(t, err)
	r.passes()
	r.equal()
}

// On the way back all that the swap's witness did not see as it is now is dirty at once: a
// cutover back that is asked for then says how much it has to do.
func TestPairBaselineMarks(t *testing.T) {
	r := newStillRig(t, "ext4", "ext4", "mkdir d; echo x > d/f")
	must(t, r.p.baseline(context.Background())) // there is no witness
	for _, name := range []string{"d", "d/f"} {
		r.wantDirty(name, r.node(name), Data|Attrs|Entries)
	}
	r.wantWhole("a directory", r.node("d"))
}

// A directory that changed after its entries were compared is compared again, whether or not
// that was heard.
func TestPairDirectoryThatChangedIsComparedAgain(t *testing.T) {
	r := newStillRig(t, "ext4", "ext4", "mkdir d; echo x > d/f")
	dir := r.node("d")
	before := dirState{listed: true, print: 1} // no print of it as it is
	must(t, r.do(func(_ context.Context, w *worker) error { return r.p.dressDir(w, dir, before) }))
	r.wantDirty("the directory", dir, Entries|Attrs)
}

// After an overflow no list of names is complete.
func TestPairOverflowForgetsNames(t *testing.T) {
	r := newStillRig(t, "ext4", "ext4", "mkdir d; echo x > d/f")
	r.p.names.add(r.node("d"), "f")
	r.p.handle(Event{Overflow: true})
	r.wantWhole("a directory", r.node("d"))
}

// Between a scan that took note of a dead watch and the watch that replaces it nobody listens:
// the new one begins with a scan of its own.
func TestTreeScansOnceMoreAfterADeadWatch(t *testing.T) {
	r := newSyncRig(t, "ext4", "ext4")
	ctx := context.Background()
	r.sh("mkdir d; echo x > d/f")
	must(t, r.p.walk(ctx))
	r.quiet()
	r.w.mu.Lock()
	r.w.buf = r.w.buf[:8] // too small for any event: EINVAL
	r.w.mu.Unlock()
	r.sh("echo more >> d/f; touch d/seen")
	<-r.w.done
	r.passes() // that was under way
	if need, why := r.p.journal.NeedRescan(); need {
		t.Fatalf("the scan took no note: %s", why)
	}
	r.sh("echo unheard > d/new")
	tree := &Tree{watches: map[migrate.Side]*Watch{migrate.Source: r.w}}
	must(t, tree.rewatch(r.p))
	must(t, tree.unwatch(migrate.Source))
	if need, _ := r.p.journal.NeedRescan(); !need {
		t.Error("the new watch begins without a scan")
	}
	r.wantWhole("a directory", r.node("d"))
	r.passes()
	r.equal()
}

// The next process looks at the root in any case, scans, and says so.
func TestTreeRecoverScans(t *testing.T) {
	r := newStillRig(t, "ext4", "ext4", "echo x > f")
	var told string
	r.p.journal.OnCoarse(func(reason string) { told = reason })
	must(t, (&Tree{boot: r.p.bootID}).recover(r.p))
	r.wantDirty("the root", r.p.from.root, Attrs|Firm)
	if need, _ := r.p.journal.NeedRescan(); !need || told == "" {
		t.Errorf("scan %v, told %q", need, told)
	}
}

// A file that has another number of names, while a directory waits to be compared, is no
// difference yet; but it is looked at again, since no scan would find it.
func TestPairLinksThatDifferAreLookedAtAgain(t *testing.T) {
	r := newStillRig(t, "ext4", "ext4", "mkdir d; echo x > f; ln f d/l")
	f := r.node("f")
	must(t, os.Remove(filepath.Join(r.dst, "d/l")))
	r.p.journal.Mark(r.node("d"), Entries)
	r.p.names.add(r.node("d"), "l")
	rec, _, err := r.p.nodes.Get(f)
	must(t, err)
	r.p.unverify(&rec)
	must(t, r.p.nodes.Put(f, &rec))
	r.p.fresh.add(f)
	proof, err := r.p.readBack(context.Background())
	must(t, err)
	if proof.Different != 0 {
		t.Errorf("differences: %v", proof.Examples)
	}
	r.wantDirty("the file", f, Attrs|Firm)
	r.passes()
	r.equal()
}

// What was undressed to be moved is dressed again: only we touched it.
func TestPairMarksWhatItUndressed(t *testing.T) {
	r := newStillRig(t, "ext4", "ext4", "mkdir d; echo x > f; ln f l")
	f := r.node("f")
	rec, _, err := r.p.nodes.Get(f)
	must(t, err)
	must(t, r.p.dressAgain(limboName(rec.To)))
	r.wantDirty("the file", f, Attrs|Firm)
}

// With consent a file that grew over what the target can hold is left behind: what was copied
// of it before is no state of it that anybody agreed to.
func TestPairOutgrownIsLeftBehind(t *testing.T) {
	r := newSyncRig(t, "xfs", "ext4")
	ctx := context.Background()
	r.p.waived = func(string) bool { return true }
	r.sh("mkdir d; echo x > d/grows; echo y > d/stays")
	must(t, r.p.walk(ctx))
	r.quiet()
	r.sh("truncate -s 17T d/grows") // ext4 has 16
	must(t, r.w.Barrier(ctx))
	proof, err := r.p.drain(ctx)
	must(t, err)
	if proof.Waived != 1 || proof.Different != 0 || proof.Verified+proof.Waived != proof.Objects {
		t.Errorf("proof %+v", proof)
	}
	names, err := os.ReadDir(filepath.Join(r.dst, "d"))
	if err != nil || len(names) != 1 || names[0].Name() != "stays" {
		t.Errorf("the shadow has %v, %v", names, err)
	}
}

// I2, I3: the mark of a unit is in the store before the other side is touched: what a power
// cut leaves half written, or of a future that the truth lost, is copied again.
func TestPairMarksBeforeItTouches(t *testing.T) {
	r := newStillRig(t, "ext4", "xfs", "mkdir d; echo x > d/f")
	ctx := context.Background()
	must(t, r.p.checkpoint(ctx))
	marks := func() (n int) {
		must(t, r.store.scan([]byte{'f', 'd'}, func(_, _ []byte) error { n++; return nil }))
		return n
	}
	if n := marks(); n != 0 {
		t.Fatalf("%d marks of what is clean and durable", n)
	}
	r.sh("echo more >> d/f")
	r.p.journal.Mark(r.node("d/f"), Data|Attrs)
	touched, marked := 0, 0
	r.p.workers = 1
	r.p.step = func(op string) error {
		if op != "source-synced" {
			if touched++; marks() > 0 {
				marked++
			}
		}
		return nil
	}
	_, err := r.p.pass(ctx, passMode{})
	must(t, err)
	r.p.step = nil
	if touched == 0 || marked != touched {
		t.Errorf("of %d changes of the other side %d came after a mark", touched, marked)
	}
}

// A failed write of the application of which we are told in its place is remembered for every
// later process (I6). Files of /proc are those that no sync is good for.
func TestPairRemembersALostWrite(t *testing.T) {
	r := newStillRig(t, "ext4", "ext4", "echo x > f")
	fd, err := unix.Open("/proc/self/status", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	must(t, err)
	defer unix.Close(fd)
	if err := unix.Fdatasync(fd); !errors.Is(err, unix.EINVAL) {
		t.Fatalf("a sync of it says %v", err)
	}
	r.p.t0.Store(0) // all are young
	_, err = r.p.read(&worker{bufs: copier.NewBuffers()}, fd)
	must(t, err)
	if b := r.p.fails.list(); len(b) != 1 || b[0].Class != syncError {
		t.Errorf("blockers %+v", b)
	}
	if kept, _, err := r.store.Meta(r.p.lostKey()); err != nil || len(kept) == 0 {
		t.Errorf("the next process knows nothing of it: %v", err)
	}
}
