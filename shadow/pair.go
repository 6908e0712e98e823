package shadow

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fsmigrate/fsmigrate/copier"
	"github.com/fsmigrate/fsmigrate/formats"
	"github.com/fsmigrate/fsmigrate/migrate"
)

// pair keeps the volume `to` equal to the volume `from`. There is one for the
// way there and one, with the roles exchanged, for the way back; it does not know which it is.
//
// The data goes one way: tracker → journal → pass (structure, objects,
// directories' attributes) → sync of both sides → node map. What a pass cannot
// settle it marks again, and the next pass reads the truth anew (I4).
type pair struct {
	from, to *volume
	store    *Store
	nodes    *NodeMap
	journal  *Journal
	prints   *Prints
	space    byte
	throttle *copier.Throttle
	bootID   string
	workers  int
	setup    func() // run by every worker on its own thread: its I/O priority

	t0            atomic.Int64 // T0: unix nanoseconds before syncfs(from) at the start of the walk
	steps         clockSteps   // of the clock since T0
	epoch         atomic.Uint64
	limboMu       sync.Mutex
	limboFD       int
	limboDir      string
	syncFailed    atomic.Bool
	limbo         Node            // of `to`
	locks         [256]sync.Mutex // by node: two names of one new inode must become one object
	names         dirtyNames
	shared        extentIndex
	pending       pending
	dirsMu        sync.Mutex
	dirs          map[Node]dirState // directories of `from` whose attributes this pass must dress again
	racyMu        sync.Mutex
	racy          map[Node]time.Time // copied within their stamp's granularity: read again after this moment
	fails         failures
	left          leftBehind
	strangers     strangers
	kept          map[Node]struct{} // on the way back: objects of `to` that `from` never had, see left.go; never changed
	done          []Unit            // cleaned in memory, not yet durably
	doneMu        sync.Mutex
	fresh         freshSet    // objects copied since they were last verified
	verifies      atomic.Bool // read back what a pass copies
	scans         atomic.Bool // scan for what makes no events, from time to time
	ready         atomic.Bool // `to` is open: what is read of the pair beside a pass is there
	fenced        bool        // nobody changes `from`: racy stamps do not matter
	verified      atomic.Int64
	heard         atomic.Int64 // unix nanoseconds of the last event
	interrupted   atomic.Bool  // a pass ended early: scan before the next
	allDirs       atomic.Bool  // compare all directories at the next pass
	differMu      sync.Mutex
	differ        map[Node]difference // how often an object was found different
	back          bool                // this is the way back
	witnessed     time.Time           // the last bearWitness of this process
	witnessCost   time.Duration
	commitEvery   time.Duration // between checkpoints of a long pass
	loaded        bool          // the way back: what is durable of it is in memory
	skipLostFound atomic.Bool
	waived        func(class string) bool
	onLoss        func(path string, l formats.Loss)

	aheads chan *copier.Ahead // those not in use
	atOnce int                // files that a worker opens before it reads the first

	step func(op string) error // tests: called before each change of `to`, which it may fail, and when a file was synced

	objects, bytes atomic.Int64 // copied since the start of this process
	counts         counters
}

// counters are what Backlog's predictions are made of.
type counters struct {
	mu sync.Mutex
	costs
	consistent time.Time
	committed  time.Time
	scanned    time.Time
}

// costs are what a pause is predicted from; 0: not measured yet.
type costs struct {
	unitCost  time.Duration // of one unit of a pass, without its bytes
	byteRate  float64       // bytes/s that a pass compares
	checkCost time.Duration // of reading one unit back, without its bytes
	checkRate float64       // bytes/s that are read back
	scanCost  time.Duration // of the last scan of all inodes of `from`
}

type pairOptions struct {
	From, To *volume
	Store    *Store
	Space    byte // the node map's and the journal's name space
	Throttle *copier.Throttle
	BootID   string
	Workers  int
	Setup    func()
	Limbo    string
}

// newPair opens the pair over what is durable in the store.
func newPair(o pairOptions) (*pair, error) {
	p := &pair{
		from: o.From, to: o.To, store: o.Store, nodes: o.Store.Map(o.Space), throttle: o.Throttle,
		bootID: o.BootID, workers: o.Workers, setup: o.Setup, prints: NewPrints(),
		dirs: map[Node]dirState{}, racy: map[Node]time.Time{}, limboFD: -1, commitEvery: commitEvery,
		aheads: make(chan *copier.Ahead, o.Workers), atOnce: aheadFiles(o.Workers),
	}
	p.shared.p = p
	j, err := o.Store.Journal(o.Space)
	if err != nil {
		return nil, fmt.Errorf("open journal: %w", err)
	}
	p.journal, p.space = j, o.Space
	p.limboDir = o.Limbo
	p.epoch.Store(j.DurableEpoch() + 1)
	if err := p.recallLost(); err != nil {
		return nil, err
	}
	if p.to == nil {
		return p, nil // the way back, before its target may be written
	}
	if err := p.openLimbo(); err != nil {
		return nil, err
	}
	p.ready.Store(true)
	return p, nil
}

func (p *pair) close() {
	for range len(p.aheads) {
		(<-p.aheads).Close()
	}
	if p.limboFD >= 0 {
		unix.Close(p.limboFD)
		p.limboFD = -1
	}
}

// shut closes both volumes.
func (p *pair) shut() {
	p.close()
	for _, v := range []*volume{p.from, p.to} {
		if v != nil && v.fd >= 0 {
			unix.Close(v.fd)
			v.fd = -1
		}
	}
}

// touch is called before each change of `to`.
func (p *pair) touch(op string) error {
	if p.step == nil {
		return nil
	}
	return p.step(op)
}

// lock serialises all that is done to one node of `from`.
func (p *pair) lock(n Node) *sync.Mutex {
	h := n.Ino*0x9e3779b97f4a7c15 ^ uint64(n.Gen)
	return &p.locks[(h>>32)%uint64(len(p.locks))]
}

// begin is T0: what has an older ctime than this had no dirty page once `from` was
// synced after it, so that any later store through a mapping faults and bumps its ctime.
func (p *pair) begin() error {
	p.judgeLostFound()
	p.t0.Store(p.steps.begin(time.Now()))
	return p.syncFrom()
}

// young reports whether a file with this ctime may have dirty pages that a store
// through a mapping would not fault on, so that it needs an fdatasync before it is read.
func (p *pair) young(ctimeSec int64, ctimeNsec uint32) bool {
	return ctimeSec*1e9+int64(ctimeNsec) >= p.t0.Load()-int64(p.steps.see(time.Now()))-int64(p.from.stamp)-int64(coarseTick)
}

// stampAhead is how far ahead of the clock a stamp is that no change just now can have given:
// more than the second to which some are rounded.
const stampAhead = 2 * time.Second

// isRacy reports whether a change after `read` could carry the very ctime that was
// recorded: then the fingerprint proves nothing until the file is read again later.
func (p *pair) isRacy(ctimeSec int64, ctimeNsec uint32, read time.Time) bool {
	if time.Until(time.Unix(ctimeSec, int64(ctimeNsec))) > stampAhead {
		return false // a clock that was ahead gave it: no change has it before the clock is there again
	}
	if p.from.stamp >= time.Second {
		return ctimeSec >= read.Unix()-1
	}
	return ctimeSec*1e9+int64(ctimeNsec) >= read.Add(-2*p.from.stamp).UnixNano()
}

// markRacy has n read again once its stamp's window is over.
func (p *pair) markRacy(n Node, read time.Time) {
	after := read.Add(2*p.from.stamp + 50*time.Millisecond)
	if p.from.stamp >= time.Second {
		after = read.Add(2*time.Second + 50*time.Millisecond)
	}
	p.racyMu.Lock()
	p.racy[n] = after
	p.racyMu.Unlock()
}

// dueRacy marks the racy files whose window is over (all of them behind the fence).
func (p *pair) dueRacy(all bool) {
	now := time.Now()
	p.racyMu.Lock()
	defer p.racyMu.Unlock()
	for n, after := range p.racy {
		if all || !now.Before(after) {
			delete(p.racy, n)
			p.journal.Mark(n, Data|Attrs|Entries)
		}
	}
}

func (p *pair) racyLen() int {
	p.racyMu.Lock()
	defer p.racyMu.Unlock()
	return len(p.racy)
}

// handle is the tracker's sink: an event becomes a mark, and a name where it has one.
func (p *pair) handle(ev Event) {
	p.heard.Store(time.Now().UnixNano())
	if ev.Overflow {
		p.names.full()
	}
	if ev.Mask&unix.FAN_FS_ERROR != 0 {
		p.fails.add(migrate.Blocker{Class: "source-error", Object: p.from.device, Why: "the file system reported an error about itself",
			Hint: "see the kernel log; check the volume before it is migrated"})
	}
	if ev.HasDir {
		p.names.add(ev.Dir, ev.Name)
	}
	MarkFrom(ev, p.journal)
}

// cleaned remembers units that need no further copy.
func (p *pair) cleaned(u Unit) {
	if !p.journal.Done(u) {
		return
	}
	p.doneMu.Lock()
	p.done = append(p.done, u)
	p.doneMu.Unlock()
}
