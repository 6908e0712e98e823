package shadow

import (
	"context"
	"maps"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fsmigrate/fsmigrate/blockdev"
	"github.com/fsmigrate/fsmigrate/formats"
	"github.com/fsmigrate/fsmigrate/migrate"
)

// Costs of a cutover that no pass can measure: the swap itself, and what a
// sync of a quiet volume takes.
const (
	swapCost     = 40 * time.Millisecond
	assumedUnit  = 50 * time.Microsecond
	assumedRate  = 300e6 // bytes/s
	sampledUnits = 5000  // whose sizes are looked up for a prediction
	openEvery    = 5 * time.Second
)

// learn updates what predictions are made of from one pass.
func (p *pair) learn(took time.Duration, res *migrate.PassResult) {
	p.counts.mu.Lock()
	defer p.counts.mu.Unlock()
	learn(&p.counts.unitCost, &p.counts.byteRate, took, res.Units, res.Bytes)
}

// learnCheck is learn for what was read back.
func (p *pair) learnCheck(took time.Duration, units, bytes int64) {
	p.counts.mu.Lock()
	defer p.counts.mu.Unlock()
	learn(&p.counts.checkCost, &p.counts.checkRate, took, units, bytes)
}

// learn takes what took long for its bytes for a rate, all else for a cost a unit.
func learn(cost *time.Duration, rate *float64, took time.Duration, units, bytes int64) {
	const weight = 0.3
	if bytes > 4<<20 && took > 0 {
		now := float64(bytes) / took.Seconds()
		if *rate == 0 {
			*rate = now
		}
		*rate += weight * (now - *rate)
	} else if units >= 16 {
		now := took / time.Duration(units)
		if *cost == 0 {
			*cost = now
		}
		*cost += time.Duration(weight * float64(now-*cost))
	}
}

// pause predicts how long a cutover that begins now refuses writes: each unit is copied
// and read back, the inodes are scanned, and both sides are synced. What was learnt
// varies with the machine's load: a quarter is added.
func (p *pair) pause(units, bytes int64) time.Duration {
	p.counts.mu.Lock()
	c := p.counts.costs
	p.counts.mu.Unlock()
	def := func(v *time.Duration, d time.Duration) {
		if *v == 0 {
			*v = d
		}
	}
	def(&c.unitCost, assumedUnit)
	def(&c.checkCost, assumedUnit)
	over := func(rate float64) time.Duration {
		if rate == 0 {
			rate = assumedRate
		}
		return time.Duration(float64(bytes) / rate * float64(time.Second))
	}
	work := time.Duration(units)*(c.unitCost+c.checkCost) + over(c.byteRate) + over(c.checkRate)
	return swapCost + 2*c.scanCost + work*5/4
}

// Backlog is Subject.Backlog.
func (t *Tree) Backlog(ctx context.Context) (migrate.Backlog, error) {
	p := t.active()
	if p == nil {
		return t.unbuilt(), nil
	}
	var b migrate.Backlog
	b.Units = int64(p.journal.Len() + p.waiting())
	b.Unverified = max(0, p.nodes.Count()-p.verifiedCount())
	if p.verifies.Load() && b.Units > 0 {
		// Of what is dirty more may be unverified than there are units: all that one dirty
		// directory has lost. Behind the fence each object is accounted for.
		b.Unverified = min(b.Unverified, b.Units)
	}
	counted := map[uint64]bool{}
	var err error
	if b.Bytes, err = p.dirtyBytes(counted); err != nil {
		return b, err
	}
	p.counts.mu.Lock()
	b.CopyRate, b.ConsistentAsOf = p.counts.byteRate, p.counts.consistent
	p.counts.mu.Unlock()
	if b.CopyRate == 0 {
		b.CopyRate = assumedRate
	}
	b.DirtyRate = p.journal.DirtyRate() * p.meanSize()
	again, againBytes, err := p.racyBytes(counted) // read once more behind the fence
	if err != nil {
		return b, err
	}
	open, openBytes := t.openForWriting(p, counted)
	b.PredictedPause = p.pause(b.Units+int64(again)+int64(open), b.Bytes+againBytes+openBytes)
	if b.Units == 0 && p.scans.Load() {
		b.ConsistentAsOf = time.Now() // nothing was heard since the last scan found nothing
	}
	for _, f := range append(t.fileSpare(), p.fails.list()...) {
		if _, waived := t.o.Plan.Waives(f.Class); !waived || f.Firm {
			b.Blockers = append(b.Blockers, f)
		}
	}
	return b, ctx.Err()
}

// fileSpare is asked for a waiver before a cutover, not before a rehearsal.
func (t *Tree) fileSpare() []migrate.Blocker {
	file := t.o.Plan.Target.Spare.File
	if file == "" {
		return nil
	}
	return []migrate.Blocker{{Class: "file-spare", Object: file, Why: "the new volume is an image in a file: every boot depends on the volume below it",
		Hint: "fsmigrate abort " + t.o.Plan.ID + ", then run it on a device, or again with --waive file-spare=REASON if that is wanted"}}
}

// unbuilt is the backlog between a cutover and the first pass of the way back, which
// first opens the old volume and turns the node map around.
func (t *Tree) unbuilt() migrate.Backlog {
	t.pairMu.Lock()
	defer t.pairMu.Unlock()
	if t.back == nil {
		return migrate.Backlog{}
	}
	return migrate.Backlog{Units: int64(t.back.journal.Len()) + 1}
}

// waiting is what asks for a pass and is in no journal: files whose racy window is
// over, and a scan for what makes no events.
func (p *pair) waiting() int {
	n := 0
	if need, _ := p.journal.NeedRescan(); need || p.unseen() {
		n++
	}
	now := time.Now()
	p.racyMu.Lock()
	defer p.racyMu.Unlock()
	for _, after := range p.racy {
		if !now.Before(after) {
			n++
		}
	}
	return n
}

// dirtyBytes is an upper bound of the bytes that the dirty units make a pass read:
// a watch does not know ranges, so each file counts whole. Their inodes go to counted.
func (p *pair) dirtyBytes(counted map[uint64]bool) (int64, error) {
	units := p.journal.Peek(sampledUnits)
	var sum int64
	for _, u := range units {
		counted[u.Node.Ino] = true
		// A file that has only new attributes is read too, unless its stamp says that that is all.
		rec, known, err := p.nodes.Get(u.Node)
		if err != nil {
			return 0, err
		}
		if known {
			sum += p.readSize(u.Node, rec.Size)
		}
	}
	if n := p.journal.Len(); len(units) > 0 && n > len(units) {
		sum = sum / int64(len(units)) * int64(n)
	}
	return sum, nil
}

// readSize is how many bytes the copy of a file of that size reads: holes of a large one are
// not, and it may be nothing else.
func (p *pair) readSize(n Node, size int64) int64 {
	if size < 1<<30 {
		return size
	}
	fd, err := p.from.open(n, unix.O_PATH|unix.O_NOFOLLOW)
	if err != nil {
		return size
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil {
		return size
	}
	return min(size, st.Blocks*512)
}

// meanSize turns a rate of units into one of bytes.
func (p *pair) meanSize() float64 {
	if n := p.objects.Load(); n > 0 {
		return float64(p.bytes.Load()) / float64(n)
	}
	return 4096
}

// racyBytes counts the files that wait for their window to be over, and their bytes.
func (p *pair) racyBytes(counted map[uint64]bool) (files int, bytes int64, err error) {
	p.racyMu.Lock()
	nodes := slices.Collect(maps.Keys(p.racy))
	p.racyMu.Unlock()
	for i, n := range nodes {
		if counted[n.Ino] {
			continue
		}
		counted[n.Ino] = true
		files++
		if i >= sampledUnits {
			continue
		}
		rec, known, err := p.nodes.Get(n)
		if err != nil {
			return 0, 0, err
		}
		if known {
			bytes += p.readSize(n, rec.Size)
		}
	}
	return files, bytes, nil
}

// openForWriting counts the files that an application holds open for writing and
// that are neither dirty now nor counted already: each may be changed until the fence.
func (t *Tree) openForWriting(p *pair, counted map[uint64]bool) (files int, bytes int64) {
	t.open.mu.Lock()
	defer t.open.mu.Unlock()
	if time.Since(t.open.at) < openEvery || p.back {
		return t.open.files, t.open.bytes
	}
	t.open.at, t.open.files, t.open.bytes = time.Now(), 0, 0
	holders, err := blockdev.FileHolders(p.from.dev, t.o.Plan.Source.Mount)
	if err != nil {
		return 0, 0
	}
	seen := map[string]bool{}
	for _, h := range holders {
		if !h.Writes || seen[h.Path] {
			continue
		}
		seen[h.Path] = true
		var st unix.Stat_t
		if unix.Lstat(h.Path, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFREG {
			t.open.files++
			if !counted[st.Ino] {
				t.open.bytes += min(st.Size, st.Blocks*512)
			}
		}
	}
	return t.open.files, t.open.bytes
}

// lose is told of a fact of the new truth that the old format cannot hold.
func (b *wayBack) lose(path string, l formats.Loss) {
	b.set("closed", time.Now(), path+": "+l.Why+" ("+l.Class+")")
}

// Progress is migrate.Progresser's.
func (t *Tree) Progress() migrate.Progress {
	p := t.active()
	if p == nil {
		return migrate.Progress{}
	}
	objects, bytes := p.objects.Load(), p.bytes.Load()
	out := migrate.Progress{Objects: objects, Bytes: bytes, TotalObjects: t.o.Plan.Observed.Objects, TotalBytes: t.o.Plan.Observed.Bytes}
	t.rate.mu.Lock()
	defer t.rate.mu.Unlock()
	now := time.Now()
	// The way back counts from zero.
	if dt := now.Sub(t.rate.at).Seconds(); t.rate.of == p && dt > 0.05 {
		out.ObjectsPerSec = float64(objects-t.rate.objects) / dt
		out.BytesPerSec = float64(bytes-t.rate.bytes) / dt
		if left := out.TotalObjects - objects; left > 0 && out.ObjectsPerSec > 1 {
			out.ETA = time.Duration(float64(left) / out.ObjectsPerSec * float64(time.Second))
		}
	}
	t.rate.of, t.rate.at, t.rate.objects, t.rate.bytes = p, now, objects, bytes
	return out
}
