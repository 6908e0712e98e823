package shadow

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fsmigrate/fsmigrate/blockdev"
	"github.com/fsmigrate/fsmigrate/copier"
	"github.com/fsmigrate/fsmigrate/formats"
	"github.com/fsmigrate/fsmigrate/migrate"
)

// Tree is a mounted volume that changes its format: the Subject for files, followed
// by a watch. It joins what the other parts of the package do: Place mounts and
// fences, a pair copies one way, a Watch feeds the pair's journal, the Store remembers.
type Tree struct {
	o     TreeOptions
	place *Place
	store *Store
	boot  string

	mu      sync.Mutex // serialises what changes the pairs; never held by Backlog
	pairMu  sync.Mutex
	there   *pair // source → shadow
	back    *pair // shadow → source, after the switch
	watches map[migrate.Side]*Watch
	wayBack wayBack
	full    atomic.Bool // the shadow was, and has not grown since
	rate    struct {    // the last look at the progress
		mu             sync.Mutex
		of             *pair
		at             time.Time
		objects, bytes int64
	}
	open struct { // the last look at who holds files open for writing
		mu    sync.Mutex
		at    time.Time
		files int
		bytes int64
	}
}

// TreeOptions are what a Tree needs beside its plan.
type TreeOptions struct {
	Plan  *migrate.Plan
	State string // this migration's directory: journal and records of what was made
	// JournalQuota is the disk space, bytes, past which the journal keeps coarse marks; 0: by objects.
	JournalQuota int64
	// Checks proves that the plan can work here and now; package preflight has it.
	Checks func(ctx context.Context) ([]migrate.Check, error)
	Audit  func(event string, fields map[string]any) error
	Warn   func(what, why, hint string)
	// FstabChanged is told after each change of fstab, for those who keep in mind what they
	// read there; nil: nobody does. What it fails with is a warning.
	FstabChanged func() error
	// Lock keeps others from settling at the same time: the watchdog, and the boot.
	Lock func(ctx context.Context) (unlock func(), err error)
}

// NewTree opens the subject of a plan over its state directory and touches neither volume.
func NewTree(o TreeOptions) (*Tree, error) {
	if o.Warn == nil {
		o.Warn = func(_, _, _ string) {}
	}
	po := PlaceOf(o.Plan, o.State)
	po.Audit, po.Warn = o.Audit, o.Warn
	place, err := OpenPlace(po)
	if err != nil {
		return nil, err
	}
	boot, err := blockdev.BootID()
	if err != nil {
		return nil, errors.Join(err, place.Close())
	}
	return &Tree{o: o, place: place, boot: boot, watches: map[migrate.Side]*Watch{}}, nil
}

// PlaceOf is the place of a plan's volumes, with the migration's directory state.
func PlaceOf(pl *migrate.Plan, state string) PlaceOptions {
	return PlaceOptions{
		ID: pl.ID, Dir: pl.Source.Mount, Source: pl.Source.Device, Spare: pl.Target.Spare,
		SourceFormat: pl.Source.Format, SourceUUID: pl.Source.UUID,
		TargetFormat: pl.Target.Format, TargetOptions: pl.Target.Options,
		MountOptions: pl.Source.Options, Objects: pl.Observed.Objects, Wipe: pl.Target.Wipe,
		Label: pl.Target.Label, StateDir: state, Fstab: pl.Persist.Fstab,
	}
}

// Preflight is Subject.Preflight.
func (t *Tree) Preflight(ctx context.Context) ([]migrate.Check, error) {
	if t.o.Checks == nil {
		return nil, nil
	}
	return t.o.Checks(ctx)
}

// What the journal may take of the state directory before it keeps coarse marks only: some
// in any case, and twice what an object was measured to need.
const (
	journalQuota     = 256 << 20
	journalPerObject = 400
)

func (t *Tree) openStore() error {
	if t.store != nil {
		return nil
	}
	quota := t.o.JournalQuota
	if quota == 0 {
		quota = journalQuota + 2*journalPerObject*t.o.Plan.Observed.Objects
	}
	s, err := OpenStore(filepath.Join(t.o.State, "journal"), StoreOptions{QuotaBytes: quota})
	if err != nil {
		return fmt.Errorf("open journal: %w", err)
	}
	t.store = s
	return nil
}

// Prepare is Subject.Prepare.
func (t *Tree) Prepare(ctx context.Context, to migrate.Side) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.openStore(); err != nil {
		return err
	}
	if to == migrate.Source {
		return t.prepareBack(ctx)
	}
	if t.active() != nil {
		return nil
	}
	if err := t.place.Make(ctx); err != nil {
		return t.told(deviceError("format", err))
	}
	if err := t.enlist(); err != nil {
		return err
	}
	from, err := t.volume(ctx, migrate.Source, false)
	if err != nil {
		return err
	}
	dst, err := t.volume(ctx, migrate.Shadow, true)
	if err != nil {
		unix.Close(from.fd)
		return t.told(deviceError("mount", err))
	}
	p, err := t.newPair(from, dst, 'f')
	if err != nil {
		unix.Close(from.fd)
		unix.Close(dst.fd)
		return t.told(err)
	}
	p.waived = func(class string) bool { _, ok := t.o.Plan.Waives(class); return ok }
	// The tracker starts before anything is read, or what changes between the two is lost.
	err = t.watch(migrate.Source, from, p)
	if err == nil {
		err = t.recover(p)
	}
	if err == nil {
		err = p.begin()
	}
	if err != nil {
		// Descriptors that stay would keep the volumes from being released.
		err = errors.Join(err, t.unwatch(migrate.Source))
		p.shut()
		return err
	}
	t.setPairs(p, t.back)
	return nil
}

// recover brings back what is durable, and has everything scanned that may have
// changed while nobody watched.
func (t *Tree) recover(p *pair) error {
	rec, err := p.journal.Recover(t.boot)
	if err != nil {
		return err
	}
	p.epoch.Store(rec.Epoch + 1)
	if err := p.nodes.LoadPrints(p.prints); err != nil {
		return fmt.Errorf("read node map: %w", err)
	}
	objects, err := p.recount()
	if err != nil {
		return err
	}
	p.objects.Store(objects)
	if objects > 0 {
		p.journal.Mark(p.from.root, Attrs|Firm) // limbo may have come or gone: no scan finds that
		p.journal.MarkAll("nobody watched since the last run")
	}
	return nil
}

// volume opens a side through its private mount.
func (t *Tree) volume(ctx context.Context, side migrate.Side, write bool) (*volume, error) {
	tree, err := t.place.Open(ctx, side, write)
	if err != nil {
		return nil, err
	}
	return t.describe(side, tree)
}

// describe reads what a volume is from its superblock: its limits are those of
// the volume that was made, not of the options that were meant.
func (t *Tree) describe(side migrate.Side, tree *blockdev.Tree) (*volume, error) {
	dev, err := t.place.device(side)
	if err != nil {
		return nil, err
	}
	f, ok := formats.Lookup(t.place.format(side))
	if !ok {
		return nil, fmt.Errorf("unknown format %q", t.place.format(side))
	}
	v, err := probe(dev.Path, f)
	if err != nil {
		return nil, fmt.Errorf("read superblock of %s: %w", dev.Path, err)
	}
	fd, err := readable(tree.Fd())
	if err != nil {
		return nil, err
	}
	vol, err := openVolume(fd, dev.Path, f, v.Limits)
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	return vol, nil
}

func (t *Tree) newPair(from, to *volume, space byte) (*pair, error) {
	c := t.o.Plan.Copy
	workers := c.Threads
	if workers <= 0 {
		workers = runtime.NumCPU() * 2
	}
	moreProcs(2 * workers)
	var setup func()
	if c.Policy != "asap" {
		setup = lowerPriority
	}
	p, err := newPair(pairOptions{
		From: from, To: to, Store: t.store, Space: space, BootID: t.boot, Workers: workers, Setup: setup,
		Throttle: copier.NewThrottle(c.Policy, c.Rate), Limbo: ".fsmigrate-" + t.o.Plan.ID,
	})
	if err != nil {
		return nil, err
	}
	p.journal.OnCoarse(func(reason string) {
		t.o.Warn("the journal is coarse now: a scan finds what changed", reason, "nothing is lost; passes take longer")
	})
	return p, nil
}

// moreProcs lets at least n goroutines run at a time. Workers are in system calls nearly all the
// time, and of 20 µs and more: without an idle P the runtime takes the caller's away during
// each of those and wakes another thread for it, which cost a tenth of the copy on two
// processors. Whoever set GOMAXPROCS has his reasons.
func moreProcs(n int) {
	if os.Getenv("GOMAXPROCS") == "" && runtime.GOMAXPROCS(0) < n {
		runtime.GOMAXPROCS(n)
	}
}

// lowerPriority has this worker's I/O and its processor time come after the application's. The
// worker keeps the thread, which ends with it.
func lowerPriority() {
	runtime.LockOSThread()
	// Where the I/O scheduler knows no priorities, pressure still slows us down; of the processor
	// nothing else gives way: with as many workers as processors an application that
	// wakes up would wait for its turn.
	_ = copier.SetThreadIOPriority(copier.IOPriorityLow)
	_ = unix.Setpriority(unix.PRIO_PROCESS, unix.Gettid(), lowestNice)
}

const lowestNice = 19

// watch starts following a side into a pair's journal.
func (t *Tree) watch(side migrate.Side, v *volume, p *pair) error {
	if w := t.watches[side]; w != nil {
		if err := w.Close(); err != nil {
			return err
		}
		delete(t.watches, side)
	}
	w, err := StartWatch(v.fd, v.codec, p.handle)
	if err != nil {
		return fmt.Errorf("watch %s: %w", v.device, err)
	}
	t.watches[side] = w
	return nil
}

// rewatch mends a watch that lost events or died. What it missed is found by a scan.
func (t *Tree) rewatch(p *pair) error {
	side := migrate.Source
	if p.back {
		side = migrate.Shadow
	}
	w := t.watches[side]
	if w == nil || !w.Lost() {
		return nil
	}
	p.journal.MarkAll("events were lost")
	p.names.full()
	if w.Forgive() == nil {
		return nil
	}
	return t.watch(side, p.from, p)
}

func (t *Tree) unwatch(side migrate.Side) error {
	w := t.watches[side]
	delete(t.watches, side)
	if w == nil {
		return nil
	}
	return w.Close()
}

// pairNow is the pair that copies now. After a cutover it prepares the way back first: the old
// volume may be written only once the new one is in place.
func (t *Tree) pairNow(ctx context.Context) (*pair, error) {
	if p := t.active(); p != nil {
		return p, nil
	}
	if t.store == nil {
		return nil, errNotPrepared
	}
	if err := t.prepareBack(ctx); err != nil {
		return nil, err
	}
	return t.active(), nil
}

// active is the pair that copies now; nil before Prepare and between a switch and
// the preparation of the way back.
func (t *Tree) active() *pair {
	t.pairMu.Lock()
	defer t.pairMu.Unlock()
	if t.back != nil && t.back.ready.Load() {
		return t.back
	}
	return t.there
}

func (t *Tree) setPairs(there, back *pair) {
	t.pairMu.Lock()
	t.there, t.back = there, back
	t.pairMu.Unlock()
}

// Copy is Subject.Copy: the comparison of a root that has nothing yet is the walk.
func (t *Tree) Copy(ctx context.Context) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.active()
	if p == nil {
		return errNotPrepared
	}
	if done, _, err := t.store.Meta("copied"); err != nil {
		return err
	} else if len(done) > 0 {
		return nil
	}
	if err := t.grow(p); err != nil {
		return err
	}
	if err := p.walk(ctx); err != nil {
		return t.told(err)
	}
	return t.store.SetMeta("copied", []byte(time.Now().UTC().Format(time.RFC3339)), true)
}

var errNotPrepared = errors.New("not prepared")

// walk copies the whole tree: root's entries, and with each new directory its own. After a
// crash the scan marks what is unfinished, and this copies the rest.
func (p *pair) walk(ctx context.Context) error {
	root := p.from.root
	if _, known, err := p.nodes.Get(root); err != nil {
		return err
	} else if !known {
		if err := p.nodes.Put(root, &Record{To: p.to.root, Type: unix.S_IFDIR >> 12, Epoch: p.epoch.Load()}); err != nil {
			return err
		}
	}
	p.names.allOf(root)
	p.journal.Mark(root, Entries|Attrs)
	during, stop := p.checkpointsDuring(ctx)
	_, err := p.pass(during, passMode{})
	for err == nil && p.journal.Len() > passUnits {
		_, err = p.pass(during, passMode{}) // a resumed walk may have left more than one pass takes
	}
	if err := stop(err); err != nil {
		return err
	}
	p.scans.Store(true)
	return p.checkpoint(ctx)
}

// Pass is Subject.Pass.
func (t *Tree) Pass(ctx context.Context) (migrate.PassResult, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p, err := t.pairNow(ctx)
	if p == nil {
		return migrate.PassResult{}, err
	}
	p.scans.Store(true)
	if err := errors.Join(t.rewatch(p), t.grow(p)); err != nil {
		return migrate.PassResult{}, err
	}
	res, err := p.pass(ctx, passMode{verify: p.verifies.Load()})
	if err == nil && p == t.there && p.verifies.Load() && p.witnessDue() {
		err = p.bearWitness(ctx)
	}
	return res, t.told(err)
}

// Verify is Subject.Verify. The first time the shadow is unmounted and mounted again, so
// that nothing is compared from memory.
func (t *Tree) Verify(ctx context.Context) (migrate.Proof, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.active()
	if p == nil {
		return migrate.Proof{}, errNotPrepared
	}
	if p.to.fd < 0 { // the last remount failed
		if err := t.reopen(ctx, p); err != nil {
			return migrate.Proof{}, t.told(deviceError("mount", err))
		}
	}
	if err := p.checkpoint(ctx); err != nil {
		return migrate.Proof{}, t.told(err)
	}
	if !p.verifies.Load() && p == t.there {
		if err := t.remount(ctx, p); err != nil {
			return migrate.Proof{}, t.told(deviceError("mount again", err))
		}
	}
	proof, err := p.verifyAll(ctx)
	if err == nil {
		p.verifies.Store(true)
	}
	return proof, t.told(err)
}

// remount reads everything that follows from the shadow's device.
func (t *Tree) remount(ctx context.Context, p *pair) error {
	p.close()
	unix.Close(p.to.fd)
	p.to.fd = -1 // the number may be another file's at once
	tree, err := t.place.RemountOther(ctx, migrate.Shadow)
	var v *volume
	if err == nil {
		v, err = t.describe(migrate.Shadow, tree)
	}
	if err != nil {
		// Without a remount there is no proof, but the next attempt finds a volume.
		return errors.Join(err, t.reopen(context.WithoutCancel(ctx), p))
	}
	p.to = v
	return p.openLimbo()
}

// reopen gives a pair the shadow back.
func (t *Tree) reopen(ctx context.Context, p *pair) error {
	v, err := t.volume(ctx, migrate.Shadow, true)
	if err != nil {
		return err
	}
	p.to = v
	return p.openLimbo()
}

// Mirror is Subject.Mirror.
func (t *Tree) Mirror(context.Context, bool) error { return migrate.ErrNoMirror }

// Close is Subject.Close.
func (t *Tree) Close() error { return errors.Join(t.stop(), t.place.Close()) }

// Abort is Subject.Abort.
func (t *Tree) Abort(ctx context.Context) error {
	if err := t.stop(); err != nil {
		return err
	}
	if err := t.delist(); err != nil {
		return err
	}
	return t.place.Release(ctx, migrate.Shadow)
}

// stop ends tracker, pairs and store.
func (t *Tree) stop() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	errs := []error{t.unwatch(migrate.Source), t.unwatch(migrate.Shadow)}
	for _, p := range []*pair{t.there, t.back} {
		if p != nil {
			p.shut()
		}
	}
	t.setPairs(nil, nil)
	if t.store != nil {
		errs = append(errs, t.store.Close())
		t.store = nil
	}
	return errors.Join(errs...)
}
