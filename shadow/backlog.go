package shadow

import (
	"context"
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
	const weight = 0.3
	if res.Bytes > 4<<20 && took > 0 {
		rate := float64(res.Bytes) / took.Seconds()
		if p.counts.byteRate == 0 {
			p.counts.byteRate = rate
		}
		p.counts.byteRate += weight * (rate - p.counts.byteRate)
	} else if res.Units >= 16 {
		cost := took / time.Duration(res.Units)
		if p.counts.unitCost == 0 {
			p.counts.unitCost = cost
		}
		p.counts.unitCost += time.Duration(weight * float64(cost-p.counts.unitCost))
	}
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
	if p.verifies && b.Units > 0 {
		// Of what is dirty more may be unverified than there are units: all that one dirty
		// directory has lost. Behind the fence each object is accounted for.
		b.Unverified = min(b.Unverified, b.Units)
	}
	sizes, err := p.dirtyBytes()
	if err != nil {
		return b, err
	}
	b.Bytes = sizes
	p.counts.mu.Lock()
	unit, rate, scan, committed := p.counts.unitCost, p.counts.byteRate, p.counts.scanCost, p.counts.consistent
	p.counts.mu.Unlock()
	if unit == 0 {
		unit = assumedUnit
	}
	if rate == 0 {
		rate = assumedRate
	}
	b.CopyRate = rate
	b.DirtyRate = p.journal.DirtyRate() * p.meanSize()
	b.ConsistentAsOf = committed
	again := p.racyLen() // read once more behind the fence
	open, openBytes := t.openForWriting(p)
	b.PredictedPause = swapCost + 2*scan + time.Duration(b.Units+int64(again)+int64(open))*unit +
		time.Duration(float64(b.Bytes+openBytes)/rate*float64(time.Second))
	if b.Units == 0 && p.scans {
		b.ConsistentAsOf = time.Now() // nothing was heard since the last scan found nothing
	}
	for _, f := range append(t.fileSpare(), p.fails.list()...) {
		if _, waived := t.o.Plan.Waives(f.Class); !waived {
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
		Hint: "--waive file-spare=REASON if that is wanted; else use a device"}}
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
// a watch does not know ranges, so each file counts whole.
func (p *pair) dirtyBytes() (int64, error) {
	units := p.journal.Peek(sampledUnits)
	var sum int64
	for _, u := range units {
		// A file that has only new attributes is read too, unless its stamp says that that is all.
		rec, known, err := p.nodes.Get(u.Node)
		if err != nil {
			return 0, err
		}
		if known {
			sum += rec.Size
		}
	}
	if n := p.journal.Len(); len(units) > 0 && n > len(units) {
		sum = sum / int64(len(units)) * int64(n)
	}
	return sum, nil
}

// meanSize turns a rate of units into one of bytes.
func (p *pair) meanSize() float64 {
	if n := p.objects.Load(); n > 0 {
		return float64(p.bytes.Load()) / float64(n)
	}
	return 4096
}

// openForWriting counts the files that an application holds open for writing and
// that are not dirty now: each may be changed until the fence.
func (t *Tree) openForWriting(p *pair) (files int, bytes int64) {
	t.open.mu.Lock()
	defer t.open.mu.Unlock()
	if time.Since(t.open.at) < openEvery || p.back {
		return t.open.files, t.open.bytes
	}
	t.open.at, t.open.files, t.open.bytes = time.Now(), 0, 0
	var st unix.Stat_t
	if unix.Fstat(p.from.fd, &st) != nil {
		return 0, 0
	}
	holders, err := blockdev.FileHolders(st.Dev, t.o.Plan.Source.Mount)
	if err != nil {
		return 0, 0
	}
	seen := map[string]bool{}
	for _, h := range holders {
		if !h.Writes || seen[h.Path] {
			continue
		}
		seen[h.Path] = true
		if unix.Lstat(h.Path, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFREG {
			t.open.files++
			if p.journal.Dirty(Node{Ino: st.Ino}) == 0 {
				t.open.bytes += st.Size
			}
		}
	}
	return t.open.files, t.open.bytes
}

// waivedFailures counts the objects that are left behind with the plan's consent.
func (t *Tree) waivedFailures(p *pair) (n int64, any bool) {
	for _, f := range p.fails.list() {
		if _, waived := t.o.Plan.Waives(f.Class); waived {
			n++
		}
	}
	return n, n > 0
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
	if dt := now.Sub(t.rate.at).Seconds(); !t.rate.at.IsZero() && dt > 0.05 {
		out.ObjectsPerSec = float64(objects-t.rate.objects) / dt
		out.BytesPerSec = float64(bytes-t.rate.bytes) / dt
		if left := out.TotalObjects - objects; left > 0 && out.ObjectsPerSec > 1 {
			out.ETA = time.Duration(float64(left) / out.ObjectsPerSec * float64(time.Second))
		}
	}
	t.rate.at, t.rate.objects, t.rate.bytes = now, objects, bytes
	return out
}
