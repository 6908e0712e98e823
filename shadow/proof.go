package shadow

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fsmigrate/fsmigrate/formats"
	"github.com/fsmigrate/fsmigrate/migrate"
)

// A scan reads the attributes of every inode of `from` in one sweep (the inode table,
// bulkstat, the tree) and compares generation, ctime, size, mode and link count
// with what was recorded when the inode was copied. It needs no events, so it is
// the other witness: it finds stores through mappings, and whatever happened
// while nobody watched. Behind the fence it is the proof that nothing was missed.

const (
	scanEvery  = 2 * time.Second  // between scans, at least
	scanCommit = 15 * time.Second // the same where a scan needs a commit of the volume: btrfs
	scanShare  = 50               // and at least this many times what a scan takes
)

// scanResult is what a scan found.
type scanResult struct {
	info      formats.ScanInfo
	objects   int64
	different int64
	examples  []string
	took      time.Duration
}

// scan compares every inode in use and calls differ for those that are not as copied.
func (p *pair) scan(ctx context.Context, differ func(n Node, dir bool)) (scanResult, error) {
	began := time.Now()
	var res scanResult
	skip := p.ignoredInodes()
	var err error
	res.info, err = p.from.format.ScanBatch(ctx, formats.ScanTarget{Device: p.from.device, MountFD: p.from.fd}, 0,
		func(batch []formats.InodeRecord) error {
			for i := range batch {
				r := &batch[i]
				if r.Nlink == 0 || r.Ino == skip {
					continue
				}
				res.objects++
				if _, left := p.left.get(Node{Ino: r.Ino, Gen: r.Gen}); left {
					continue
				}
				if p.prints.Get(r.Ino) == PrintOf(r.Gen, r.CtimeSec, r.CtimeNsec, r.Size, r.Mode, r.Nlink) {
					continue
				}
				res.different++
				if len(res.examples) < 20 {
					res.examples = append(res.examples, fmt.Sprintf("inode %d: changed since it was copied", r.Ino))
				}
				differ(Node{Ino: r.Ino, Gen: r.Gen}, r.Mode&unix.S_IFMT == unix.S_IFDIR)
			}
			return ctx.Err()
		})
	res.took = time.Since(began)
	if err != nil {
		return res, fmt.Errorf("scan inodes of %s: %w", p.from.device, err)
	}
	p.counts.mu.Lock()
	p.counts.scanCost, p.counts.scanned = res.took, began
	p.counts.mu.Unlock()
	return res, nil
}

// ignoredInodes is the inode of a lost+found that only `from` has.
func (p *pair) ignoredInodes() uint64 {
	if !p.skipLostFound.Load() {
		return 0
	}
	n, err := p.from.codec.NodeAt(p.from.fd, lostFound, 0)
	if err != nil {
		return 0
	}
	return n.Ino
}

// rescan marks what a scan finds to be different. The directory that names an unknown inode has
// changed too, and copies it; but see strangers.
func (p *pair) rescan(ctx context.Context) (scanResult, error) {
	p.names.trust() // from here on events are complete again; what came before shows in the scan
	if p.scanCommits() {
		if err := p.syncFrom(); err != nil { // delayed inodes reach the tree at a commit
			return scanResult{}, err
		}
	}
	return p.scan(ctx, func(n Node, dir bool) {
		if p.strangers.again(n) {
			if _, known, err := p.get(n); err == nil && !known {
				p.allDirs.Store(true)
			}
		}
		if dir {
			p.names.allOf(n)
			p.journal.Mark(n, Entries|Attrs)
			return
		}
		p.journal.Mark(n, Data|Attrs)
	})
}

// rescanIfNeeded scans when events were lost or marks dropped, and from time to time
// for what makes no events.
func (p *pair) rescanIfNeeded(ctx context.Context) error {
	if err := p.markDirsIfAsked(); err != nil {
		return err
	}
	needed, _ := p.journal.NeedRescan()
	cut := p.interrupted.Swap(false)
	if !needed && !cut && !p.scanDue() {
		return nil
	}
	token := p.journal.RescanBegin()
	if _, err := p.rescan(ctx); err != nil {
		p.interrupted.Store(cut)
		return err
	}
	p.journal.RescanDone(token)
	return nil
}

func (p *pair) scanDue() bool {
	p.counts.mu.Lock()
	defer p.counts.mu.Unlock()
	every := scanEvery
	if p.scanCommits() {
		every = scanCommit
	}
	return p.scans.Load() && time.Since(p.counts.scanned) > max(every, scanShare*p.counts.scanCost)
}

// scanCommits says that a scan sees only what was committed: btrfs keeps changed
// inodes to itself until then. The inode table's buffers and bulkstat show the present.
func (p *pair) scanCommits() bool { return p.from.format.Name() == "btrfs" }

// unseen reports whether something was heard since the last scan began: there may be
// more that makes no events.
func (p *pair) unseen() bool {
	p.counts.mu.Lock()
	defer p.counts.mu.Unlock()
	return p.scans.Load() && p.heard.Load() > p.counts.scanned.UnixNano()
}

// markDirsIfAsked has all directories compared after an object lost its counterpart: which
// of them name it is not known.
func (p *pair) markDirsIfAsked() error {
	if !p.allDirs.Swap(false) {
		return nil
	}
	err := p.markAllDirs()
	if err != nil {
		p.allDirs.Store(true)
	}
	return err
}

// markAllDirs has every directory's entries compared: for what can only be found by its name.
func (p *pair) markAllDirs() error {
	return p.nodes.Iterate(func(n Node, r *Record) error {
		if r.Type == unix.S_IFDIR>>12 {
			p.journal.Mark(n, Entries|Attrs|Firm) // and a firm mark is one of all names
		}
		return nil
	})
}

// maxRounds bounds how often what a proof finds is copied behind the fence: nobody
// changes the truth there, so twice is enough, and more means a fault.
const maxRounds = 4

// maxDrains bounds how often the journal is emptied: what a unit marks in turn (the
// parent of what moved) ends with the depth of the tree.
const maxDrains = 1000

// drain copies the last units behind the fence and proves that nothing was missed.
func (p *pair) drain(ctx context.Context) (migrate.Proof, error) {
	p.fenced = true
	p.dueRacy(true)
	for _, n := range p.left.nodes() {
		p.retry(n)
	}
	var res scanResult
	for round := 1; ; round++ {
		if err := p.drainJournal(ctx); err != nil {
			return migrate.Proof{}, err
		}
		left, err := p.sweepLimbo(ctx, true)
		if err != nil {
			return migrate.Proof{}, err
		}
		p.pruneGone()
		if res, err = p.rescan(ctx); err != nil {
			return migrate.Proof{}, err
		}
		if left > 0 {
			p.allDirs.Store(true) // something is in limbo whose object lives: its name was missed
		}
		if err := p.markDirsIfAsked(); err != nil {
			return migrate.Proof{}, err
		}
		if res.different == 0 && left == 0 && p.journal.Len() == 0 { // limbo's sweep may have marked something
			break
		}
		if round == maxRounds {
			return p.proof(res), fmt.Errorf("%d objects still differ and %d have no name after %d rounds behind the fence",
				res.different, left, round)
		}
	}
	if err := p.checkpoint(ctx); err != nil {
		return p.proof(res), err
	}
	back, err := p.readBack(ctx)
	if err != nil {
		return p.proof(res), err
	}
	// One record too many could make up for an object that was not verified.
	if _, none := p.left.len(); p.nodes.Count() > res.objects-none {
		if err := p.dropStale(ctx); err != nil {
			return p.proof(res), err
		}
	}
	proof := p.proof(res)
	proof.Different += back.Different
	proof.Examples = append(proof.Examples, back.Examples...)
	return proof, nil
}

// dropStale forgets records whose object is on neither side any more: a crash between
// the removal of the one and of the other leaves such.
func (p *pair) dropStale(ctx context.Context) error {
	var stale []Node
	err := p.nodes.Iterate(func(n Node, _ *Record) error {
		fd, err := p.from.open(n, unix.O_PATH|unix.O_NOFOLLOW)
		if vanished(err) {
			stale = append(stale, n)
			return ctx.Err()
		}
		if err == nil {
			unix.Close(fd)
		}
		return err
	})
	for i := 0; err == nil && i < len(stale); i++ {
		err = p.drop(stale[i])
	}
	return err
}

func (p *pair) drainJournal(ctx context.Context) error {
	for round := 0; p.journal.Len() > 0 || p.undressed() > 0; round++ {
		units := p.journal.Take(passUnits)
		if round >= maxDrains && len(units) > 0 {
			return fmt.Errorf("%d units are still dirty after %d rounds behind the fence, among them %s (%v)",
				len(units), round, p.from.nodePath(units[0].Node), units[0].What)
		}
		if err := p.work(ctx, units); err != nil {
			return err
		}
	}
	return nil
}

func (p *pair) proof(res scanResult) migrate.Proof {
	waived, _ := p.left.len()
	return migrate.Proof{Kind: res.info.Kind, Objects: res.objects, Verified: p.verifiedCount(), Waived: waived,
		Different: res.different, Examples: res.examples, Took: res.took}
}

// baseline takes the fingerprints of `from` as it is, for objects that are as the witness of
// the swap saw them; all others are marked.
func (p *pair) baseline(ctx context.Context) error {
	was, err := p.store.witness()
	if err != nil {
		return err
	}
	_, err = p.from.format.ScanBatch(ctx, formats.ScanTarget{Device: p.from.device, MountFD: p.from.fd}, 0,
		func(batch []formats.InodeRecord) error {
			for i := range batch {
				r := &batch[i]
				if r.Nlink == 0 {
					continue
				}
				now := PrintOf(r.Gen, r.CtimeSec, r.CtimeNsec, r.Size, r.Mode, r.Nlink)
				if was.Get(r.Ino) == now {
					p.prints.Set(r.Ino, now)
					continue
				}
				n := Node{Ino: r.Ino, Gen: r.Gen}
				p.names.allOf(n)
				p.journal.Mark(n, Data|Attrs|Entries)
			}
			return ctx.Err()
		})
	if err != nil {
		return fmt.Errorf("scan inodes of %s: %w", p.from.device, err)
	}
	return nil
}
