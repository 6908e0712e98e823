package shadow

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// What says which parts of an object may differ between the sides.
type What uint8

// The parts.
const (
	Data    What = 1 << iota // a file's content
	Attrs                    // owner, mode, xattrs, times …
	Entries                  // a directory's names
	Object                   // everything, and the digest proves nothing
	Links                    // the number of names, and which

	// Firm is no part but says that a scan of all inodes would not find this
	// mark's reason: a difference that verification found, an object that we touched on
	// the other side only. It survives when the fine marks are dropped.
	Firm
)

// Unit is one dirty object, as it was when it was taken.
type Unit struct {
	Node Node
	What What
	Seq  uint64 // for Done
}

// JournalOptions are the options of a Journal. The zero value has the defaults.
type JournalOptions struct {
	MaxUnits int                 // fine marks held, past which they are dropped; default 400,000 (about 20 MB)
	Coarse   func(reason string) // called when fine marks were dropped; must not block
}

const journalShards = 64

// Journal is the set of dirty units of one direction (I4). Marks are kept in memory:
// a watch hears of a change after it, so after a crash only a scan of all inodes can
// say what it did not hear, and a durable copy of every mark would buy nothing. Durable is what
// the scan cannot find: the units whose other side is being touched (Begin), until the copy
// itself is durable (Commit). See the package comment for why.
//
// A unit's life: Mark → Take → Begin → (copied) → Done → (both sides synced) → Commit.
// A Mark at any point keeps it, or makes it, dirty. Safe for concurrent use.
type Journal struct {
	s   *Store
	ns  byte
	max int64

	shards [journalShards]journalShard
	dirty  atomic.Int64 // units in the set
	firm   atomic.Int64 // of these, the ones that dropping keeps
	marked atomic.Int64 // units that became dirty, ever
	cursor atomic.Uint64

	durable sync.RWMutex // Begin shares it, Commit has it alone: a mark that Begin wrote is never deleted for an older copy
	coarse  atomic.Bool  // durable: any unit may differ
	quiet   uint64       // cleaned+1 at the last Commit if nothing was dirty then, else 0; held by durable
	cleaned atomic.Uint64

	dropMu  sync.Mutex // one at a time drops the marks
	mu      sync.Mutex
	epoch   uint64 // last durable
	bootID  string // of that commit
	rescan  string // reason, "" when none is needed
	drops   uint64 // how often MarkAll was called
	onDrop  func(string)
	samples []rateSample
}

type journalShard struct {
	mu    sync.Mutex
	seq   uint64
	units map[Node]journalUnit
	_     [40]byte // a cache line each
}

// journalUnit is 24 bytes beside its 16-byte key. A unit without what is clean
// in memory and waits for Commit to delete its durable mark.
type journalUnit struct {
	seq   uint64 // of the last mark
	taken uint64 // seq at the last Take
	what  What   // dirty parts
	since What   // of these, marked after the last Take
	dur   What   // durable mark
}

func (u journalUnit) firm() bool { return u.dur != 0 || u.what&Firm != 0 }

type rateSample struct {
	at time.Time
	n  int64
}

func newJournal(s *Store, ns byte, o JournalOptions) (*Journal, error) {
	if o.MaxUnits == 0 {
		o.MaxUnits = 400_000
	}
	j := &Journal{s: s, ns: ns, max: int64(o.MaxUnits), onDrop: o.Coarse}
	if err := j.loadMarker(); err != nil {
		return nil, fmt.Errorf("open journal %q: %w", ns, err)
	}
	return j, nil
}

// OnCoarse sets the function that is told when fine marks were dropped.
func (j *Journal) OnCoarse(fn func(reason string)) {
	j.mu.Lock()
	j.onDrop = fn
	j.mu.Unlock()
}

func (j *Journal) shard(n Node) *journalShard {
	h := (n.Ino ^ uint64(n.Gen)<<32) * 0x9e3779b97f4a7c15
	return &j.shards[h>>58]
}

// Mark says that parts of n may differ. It only touches memory.
func (j *Journal) Mark(n Node, w What) {
	if w == 0 {
		return
	}
	sh := j.shard(n)
	sh.mu.Lock()
	u := sh.units[n]
	fresh, wasFirm := u.what == 0, u.what != 0 && u.firm()
	sh.seq++
	u.seq = sh.seq
	u.what |= w
	u.since |= w
	if sh.units == nil {
		sh.units = make(map[Node]journalUnit)
	}
	sh.units[n] = u
	if !wasFirm && u.firm() {
		j.firm.Add(1)
	}
	over := false
	if fresh {
		j.marked.Add(1)
		over = j.dirty.Add(1)-j.firm.Load() > j.max
	}
	sh.mu.Unlock()
	if over {
		j.tooMany()
	}
}

// tooMany drops the fine marks, once for all that found them too many.
func (j *Journal) tooMany() {
	j.dropMu.Lock()
	defer j.dropMu.Unlock()
	if j.dirty.Load()-j.firm.Load() > j.max {
		j.markAllLocked(fmt.Sprintf("more than %d objects are dirty", j.max))
	}
}

// Take is a snapshot of at most max units (0: all), in the order of inode
// numbers, beginning where the last one ended. They stay dirty until Done.
func (j *Journal) Take(max int) []Unit {
	out := make([]Unit, 0, j.Len())
	for i := range j.shards {
		sh := &j.shards[i]
		sh.mu.Lock()
		for n, u := range sh.units {
			if u.what != 0 {
				out = append(out, Unit{n, u.what, u.seq})
			}
		}
		sh.mu.Unlock()
	}
	slices.SortFunc(out, func(a, b Unit) int { return compareNodes(a.Node, b.Node) })
	if max > 0 && len(out) > max {
		from, _ := slices.BinarySearchFunc(out, j.cursor.Load(), func(u Unit, ino uint64) int {
			if u.Node.Ino <= ino {
				return -1
			}
			return 1
		})
		if from+max > len(out) {
			out = append(slices.Clone(out[from:]), out[:from+max-len(out)]...)
		} else {
			out = slices.Clone(out[from : from+max])
		}
		j.cursor.Store(out[len(out)-1].Node.Ino)
	}
	for i := range out {
		j.take(&out[i])
	}
	return out
}

// take begins a new "since" for a unit that is about to be copied.
func (j *Journal) take(t *Unit) {
	sh := j.shard(t.Node)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if u, ok := sh.units[t.Node]; ok && u.what != 0 {
		t.What, t.Seq = u.what, u.seq
		u.since, u.taken = 0, u.seq
		sh.units[t.Node] = u
	}
}

// Done says that u was copied after it was taken, and reports whether it is
// clean now: not when it was marked meanwhile (then only what was marked since stays dirty),
// nor when the mark was dropped with all others. A clean unit's durable mark stays until Commit.
func (j *Journal) Done(u Unit) bool {
	sh := j.shard(u.Node)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	is, ok := sh.units[u.Node]
	if !ok || is.what == 0 {
		return false
	}
	wasFirm := is.firm()
	if is.seq != u.Seq {
		if is.taken == u.Seq && is.since != 0 {
			is.what = is.since
			sh.units[u.Node] = is
			if wasFirm && !is.firm() {
				j.firm.Add(-1)
			}
		}
		return false
	}
	j.dirty.Add(-1)
	j.cleaned.Add(1)
	if wasFirm {
		j.firm.Add(-1)
	}
	if is.dur == 0 {
		delete(sh.units, u.Node)
	} else {
		is.what, is.since = 0, 0
		sh.units[u.Node] = is
	}
	return true
}

// Forget drops the mark of an object that exists no more on this side: its durable
// mark, if there is one, goes with the Commit that u is given to.
func (j *Journal) Forget(u Unit) bool { return j.Done(u) }

// Len is the number of dirty units that are known. With NeedRescan there are more.
func (j *Journal) Len() int { return int(j.dirty.Load()) }

// Dirty is what may differ of n, 0 when nothing is known to.
func (j *Journal) Dirty(n Node) What {
	sh := j.shard(n)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	return sh.units[n].what
}

// MarkAll makes the journal coarse: fine marks are dropped, but for Firm ones and
// those that are durable, and a scan of all inodes is needed to find them again. Marks that come
// later are kept.
func (j *Journal) MarkAll(reason string) {
	j.dropMu.Lock()
	defer j.dropMu.Unlock()
	j.markAllLocked(reason)
}

func (j *Journal) markAllLocked(reason string) {
	j.mu.Lock()
	j.rescan = reason
	j.drops++
	fn := j.onDrop
	j.mu.Unlock()
	for i := range j.shards {
		sh := &j.shards[i]
		sh.mu.Lock()
		kept := make(map[Node]journalUnit)
		for n, u := range sh.units {
			switch {
			case u.what == 0 || u.firm():
				kept[n] = u
			default:
				j.dirty.Add(-1)
			}
		}
		sh.units = kept
		sh.mu.Unlock()
	}
	if fn != nil {
		fn(reason)
	}
}

// NeedRescan reports whether a scan of all inodes is needed to know what is
// dirty, and why.
func (j *Journal) NeedRescan() (bool, string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.rescan != "", j.rescan
}

// RescanBegin is called before the scan of all inodes. What it returns is for RescanDone.
func (j *Journal) RescanBegin() (token uint64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.drops
}

// RescanDone says that the scan that began with token marked all it found. It
// reports false, and a rescan is still needed, when marks were dropped since.
func (j *Journal) RescanDone(token uint64) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	if token != j.drops {
		return false
	}
	j.rescan = ""
	return true
}

// rateWindow is what DirtyRate looks back on.
const rateWindow = 10 * time.Second

// DirtyRate is how many units became dirty a second, over the last 10 s of the
// times it was called at.
func (j *Journal) DirtyRate() float64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	now := rateSample{time.Now(), j.marked.Load()}
	for len(j.samples) > 1 && now.at.Sub(j.samples[1].at) >= rateWindow {
		j.samples = j.samples[1:]
	}
	var rate float64
	if len(j.samples) > 0 {
		if d := now.at.Sub(j.samples[0].at).Seconds(); d > 0 {
			rate = float64(now.n-j.samples[0].n) / d
		}
	}
	if k := len(j.samples); k == 0 || now.at.Sub(j.samples[k-1].at) >= rateWindow/50 {
		j.samples = append(j.samples, now)
	}
	return rate
}

func compareNodes(a, b Node) int {
	switch {
	case a.Ino < b.Ino:
		return -1
	case a.Ino > b.Ino:
		return 1
	case a.Gen < b.Gen:
		return -1
	case a.Gen > b.Gen:
		return 1
	}
	return 0
}
