package shadow

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fsmigrate/fsmigrate/blockdev"
	"github.com/fsmigrate/fsmigrate/copier"
	"github.com/fsmigrate/fsmigrate/migrate"
)

const (
	passUnits     = 100_000          // of one pass
	commitEvery   = 20 * time.Second // between checkpoints, when nothing else asks for one
	commitBacklog = 50_000           // units cleaned in memory that ask for a checkpoint

	// While a long pass runs `to` is written out all the time: a new file system's small
	// files cost more processor time to write out than to create, and what is left for the end
	// is done by one thread, while nobody copies. Not by a gentle copy: while `to` is synced an
	// application's own sync waits where they share a disk, and each second is too often for that.
	flushEvery   = time.Second
	flushObjects = 2000     // fewer than these, and
	flushBytes   = 32 << 20 // less than these wait for the next time
)

// passMode says how thorough the end of a pass is.
type passMode struct {
	durable bool // checkpoint in any case
	verify  bool // read back what was copied since it was last verified
}

// pass copies the units that are dirty when it begins.
func (p *pair) pass(ctx context.Context, mode passMode) (migrate.PassResult, error) {
	began := time.Now()
	bytes := p.bytes.Load()
	var res migrate.PassResult
	n, err := p.once(ctx)
	if copier.Full(err) {
		// What waits in limbo to be removed may be the room that is missing.
		if _, sweepErr := p.sweepLimbo(ctx, false); sweepErr == nil {
			n, err = p.once(ctx)
		}
	}
	res.Units = n
	if err != nil {
		return res, err
	}
	res.Bytes = p.bytes.Load() - bytes
	p.learn(time.Since(began), &res)
	if _, err := p.sweepLimbo(ctx, false); err != nil {
		return res, err
	}
	if mode.durable || p.commitDue() {
		if err := p.checkpoint(ctx); err != nil {
			return res, err
		}
	}
	if mode.verify && p.fresh.len() > 0 {
		// What is read back must come from the device. The truth is not synced for
		// that: it would be the application that waits.
		if err := p.syncTo(); err != nil {
			return res, err
		}
		proof, err := p.readBack(ctx)
		if err != nil {
			return res, err
		}
		res.Differs = proof.Different
	}
	p.pruneGone()
	if p.journal.Len() == 0 && p.racyLen() == 0 {
		p.counts.mu.Lock()
		p.counts.consistent = began
		p.counts.mu.Unlock()
	}
	res.Took = time.Since(began)
	return res, nil
}

// once copies what is dirty now.
func (p *pair) once(ctx context.Context) (units int64, err error) {
	if err := p.rescanIfNeeded(ctx); err != nil {
		return 0, err
	}
	p.judgeLostFound()
	p.dueRacy(false)
	dirty := p.journal.Take(passUnits)
	if len(dirty) > 0 || p.undressed() > 0 {
		err = p.work(ctx, dirty)
	}
	return int64(len(dirty)), err
}

// work copies units: structure and content by tasks, then the directories' attributes,
// which anything done to their entries would have changed.
func (p *pair) work(ctx context.Context, units []Unit) error {
	// The marks are durable before the other side is touched: after a power cut that
	// takes the source's last changes, what the shadow kept of them is copied again (I3).
	if err := p.journal.Begin(ctx, units); err != nil {
		return err
	}
	tasks := make([]task, 0, len(units)/chunk+1)
	size := max(1, min(chunk, len(units)/(2*p.workers))) // few units keep all workers busy too
	for len(units) > 0 {
		part := units[:min(size, len(units))]
		units = units[len(part):]
		tasks = append(tasks, func(ctx context.Context, w *worker) error {
			for i := range part {
				if err := ctx.Err(); err != nil {
					return err
				}
				if err := p.process(ctx, w, part[i]); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := p.run(ctx, tasks); err != nil {
		p.interrupted.Store(true) // new directories that wait to be filled are in no journal
		return err
	}
	return p.dressDirs(ctx)
}

func (p *pair) run(ctx context.Context, tasks []task) error {
	return runTasks(ctx, p.workers, p, tasks)
}

func (p *pair) process(ctx context.Context, w *worker, u Unit) error {
	if _, fresh := p.pending.get(u.Node); fresh {
		return nil // copied in this pass; what changed since is for the next one
	}
	rec, known, err := p.nodes.Get(u.Node)
	if err != nil {
		return err
	}
	switch {
	case !known:
		// New: its directory is marked too, and its comparison copies it.
		if !p.retry(u.Node) {
			p.strangers.meet(u.Node)
		}
	case rec.Type == unix.S_IFDIR>>12:
		if u.What&(Firm|Object) != 0 {
			p.names.allOf(u.Node)
		}
		if o, waits := p.left.place(u.Node); waits && !o.record {
			p.retry(u.Node) // it found no place
		}
		err = p.reconcile(ctx, w, u.Node)
	default:
		err = p.update(ctx, w, u.Node, u.What)
	}
	if err != nil {
		return err
	}
	p.cleaned(u)
	return nil
}

// dirState is a directory of `from` whose counterpart is to be dressed at the end of a
// pass. listed says that its entries were compared as of print.
type dirState struct {
	listed bool
	print  Print
	racy   bool
	at     time.Time
}

// dressLater has the attributes of directory n of `from` put on its counterpart
// at the end of the pass: whatever changes its entries on `to` changes its times.
func (p *pair) dressLater(n Node) {
	p.dirsMu.Lock()
	defer p.dirsMu.Unlock()
	if _, known := p.dirs[n]; !known {
		p.dirs[n] = dirState{}
	}
}

// settleDir is dressLater for a directory whose entries are equal as of s.
func (p *pair) settleDir(n Node, s dirState) {
	s.listed = true
	p.dirsMu.Lock()
	p.dirs[n] = s
	p.dirsMu.Unlock()
}

// statDir is the state of directory n before its entries are looked at.
func (p *pair) statDir(fd int, n Node) (dirState, error) {
	at := time.Now()
	a, err := copier.ReadStat(fd)
	if err != nil {
		return dirState{}, err
	}
	return dirState{print: p.printOf(n, &a), at: at, racy: p.isRacy(a.Ctime.Sec, a.Ctime.Nsec, at)}, nil
}

// dressDirs dresses the directories that this pass touched. Their records say clean
// only now, when entries and attributes both are.
func (p *pair) dressDirs(ctx context.Context) error {
	p.dirsMu.Lock()
	dirs := p.dirs
	p.dirs = map[Node]dirState{}
	p.dirsMu.Unlock()
	var tasks []task
	nodes := make([]Node, 0, len(dirs))
	for n := range dirs {
		nodes = append(nodes, n)
	}
	for len(nodes) > 0 {
		part := nodes[:min(chunk, len(nodes))]
		nodes = nodes[len(part):]
		tasks = append(tasks, func(ctx context.Context, w *worker) error {
			for _, n := range part {
				if err := p.dressDir(w, n, dirs[n]); err != nil {
					return err
				}
			}
			return nil
		})
	}
	err := p.run(ctx, tasks)
	if err != nil {
		p.dirsMu.Lock()
		for n := range dirs {
			if _, known := p.dirs[n]; !known {
				p.dirs[n] = dirState{} // still to be dressed; its entries count as unproven
			}
			p.names.allOf(n)
			p.journal.Mark(n, Entries|Attrs)
		}
		p.dirsMu.Unlock()
	}
	return err
}

// undressed is how many directories wait to be dressed: those of a pass that was interrupted.
func (p *pair) undressed() int {
	p.dirsMu.Lock()
	defer p.dirsMu.Unlock()
	return len(p.dirs)
}

func (p *pair) dressDir(w *worker, n Node, s dirState) error {
	l := p.lock(n)
	l.Lock()
	defer l.Unlock()
	rec, known, err := p.nodes.Get(n)
	if err != nil || !known {
		return err
	}
	src, err := p.from.open(n, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOATIME)
	if vanished(err) {
		return nil
	}
	if errors.Is(err, unix.ENOTDIR) {
		return p.remake(n)
	}
	if err != nil {
		return p.sourceFailed(n, "open", err)
	}
	defer unix.Close(src)
	attr, err := copier.ReadAttr(src, w.bufs)
	if err != nil {
		return p.sourceFailed(n, "read attributes of", err)
	}
	want, ok := p.fitted(n, fdName{fd: src}, &attr)
	if !ok {
		return nil
	}
	dst, err := p.to.open(rec.To, unix.O_RDONLY|unix.O_DIRECTORY)
	if vanished(err) {
		return p.lostTarget(n, src)
	}
	if err != nil {
		return &copier.TargetError{Op: "open directory", Off: -1, Err: err}
	}
	defer unix.Close(dst)
	if err := p.dress(w, dst, &want); err != nil {
		return err
	}
	if p.printOf(n, &attr) != s.print && s.listed {
		p.journal.Mark(n, Entries|Attrs) // it changed since its entries were listed
	}
	p.fresh.add(n)
	rec.Epoch = p.epoch.Load()
	p.unverify(&rec)
	if !s.listed {
		// Only we touched it, on the other side: what its print says of the
		// entries stays as true as it was.
		return p.nodes.Put(n, &rec)
	}
	rec.Print, rec.Flags = s.print, rec.Flags&^Racy
	if s.racy {
		rec.Print, rec.Flags = 0, rec.Flags|Racy
		p.markRacy(n, s.at)
	}
	if s.racy && !p.fenced {
		p.prints.Set(n.Ino, 0)
	} else {
		p.prints.Set(n.Ino, s.print)
	}
	return p.nodes.Put(n, &rec)
}

// recordPlace remembers where directory n stands on `to`.
func (p *pair) recordPlace(n Node, parent int, name string) error {
	above, err := p.to.codec.NodeAt(parent, "", unix.AT_EMPTY_PATH)
	if err != nil {
		return &copier.TargetError{Op: "identify parent of " + name, Off: -1, Err: err}
	}
	rec, known, err := p.nodes.Get(n)
	if err != nil || !known {
		return err
	}
	rec.Parent, rec.Name = above, name
	return p.nodes.Put(n, &rec)
}

func (p *pair) commitDue() bool {
	p.doneMu.Lock()
	n := len(p.done)
	p.doneMu.Unlock()
	return n > commitBacklog || time.Since(p.lastCommit()) > commitEvery
}

// checkpointsDuring makes checkpoints while a long pass runs under the context it returns, so
// that a crash costs the copy of a few seconds. One that fails ends the pass at once: what
// is copied after it could not become durable either. stop ends them, and says which error counts.
func (p *pair) checkpointsDuring(ctx context.Context) (during context.Context, stop func(error) error) {
	during, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() {
		commit, flush := time.NewTicker(p.commitEvery), time.NewTicker(flushEvery)
		defer commit.Stop()
		defer flush.Stop()
		objects, bytes := p.objects.Load(), p.bytes.Load()
		for {
			var err error
			select {
			case <-during.Done():
				done <- nil
				return
			case <-commit.C:
				err = p.checkpoint(during)
			case <-flush.C:
				o, b := p.objects.Load(), p.bytes.Load()
				if p.setup == nil && (o-objects >= flushObjects || b-bytes >= flushBytes) {
					objects, bytes = o, b
					err = p.syncTo()
				}
			}
			if err != nil && (during.Err() == nil || !errors.Is(err, during.Err())) {
				done <- err
				cancel()
				return
			}
		}
	}()
	return during, func(err error) error {
		cancel()
		if failed := <-done; failed != nil {
			return failed
		}
		return err
	}
}

// checkpoint makes what was cleaned so far durable, in I3's order: what was read
// was read before; now `from` is synced, so that it has no future that the other side
// knows and it could lose; then `to`; then the journal says so.
func (p *pair) checkpoint(ctx context.Context) (err error) {
	p.doneMu.Lock()
	done := p.done
	p.done = nil
	p.doneMu.Unlock()
	defer func() {
		if err != nil { // what is clean in memory stays to be made durable
			p.doneMu.Lock()
			p.done = append(p.done, done...)
			p.doneMu.Unlock()
		}
	}()
	// A record takes its epoch after its object was written, so every record of
	// this epoch or an older one is covered by the syncs that follow.
	epoch := p.epoch.Add(1) - 1
	if err := p.syncFrom(); err != nil {
		return err
	}
	if err := p.syncTo(); err != nil {
		return err
	}
	now := time.Now()
	p.counts.mu.Lock()
	p.counts.committed = now
	p.counts.mu.Unlock()
	return p.journal.Commit(ctx, done, epoch, p.bootID)
}

// syncTo syncs the other side.
func (p *pair) syncTo() error {
	if err := blockdev.Syncfs(p.to.fd); err != nil {
		return errors.Join(&copier.TargetError{Op: "sync", Off: -1, Err: err}, p.disclaim())
	}
	return nil
}

// disclaim takes back every claim to be clean that no sync covered, after a sync of
// `to` failed: it is never retried into success (I6).
func (p *pair) disclaim() error {
	if err := p.journal.Discard("the other side could not be synced"); err != nil {
		return err
	}
	p.prints.Clear()
	if err := p.nodes.LoadPrints(p.prints); err != nil {
		return err
	}
	_, err := p.recount()
	return err
}

// recount takes the number of verified objects from the node map, after records lost the claim.
func (p *pair) recount() (objects int64, err error) {
	var verified int64
	err = p.nodes.Iterate(func(_ Node, r *Record) error {
		objects++
		if r.Flags&Verified != 0 {
			verified++
		}
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("read node map: %w", err)
	}
	p.verified.Store(verified)
	if verified < objects {
		p.fresh.unknown()
	}
	return objects, nil
}

// syncFrom syncs the truth. A failure is not ours but the application's, whose
// own fsync may not hear of it any more (I6): recorded for good.
func (p *pair) syncFrom() error {
	if p.syncFailed.Load() {
		return errSourceSync
	}
	err := blockdev.Syncfs(p.from.fd)
	if err == nil {
		return nil
	}
	return p.lostSync(err)
}

// lostSync records that a sync of the truth failed.
func (p *pair) lostSync(err error) error {
	p.syncFailed.Store(true)
	return errors.Join(errSourceSync, p.lostData(p.from.device, "writing its data back failed: "+err.Error()))
}

// lostData records, durably, that we were told of a failed write in the application's place:
// another process would hear of nothing any more, and cut over (I6).
func (p *pair) lostData(object, why string) error {
	p.fails.add(migrate.Blocker{Class: syncError, Object: object, Why: why,
		Hint: "an application's write may be lost although its fsync succeeds now: check the kernel log, and the application's data"})
	key := p.lostKey()
	old, _, err := p.store.Meta(key)
	if err != nil {
		return err
	}
	line, err := json.Marshal([2]string{object, why})
	if err != nil || len(old) > maxLost || bytes.Contains(old, line) {
		return err
	}
	return p.store.SetMeta(key, append(append(old, line...), '\n'), true)
}

const (
	syncError = "source-sync-error"
	maxLost   = 64 << 10 // bytes of names that are kept: one is enough to block
)

func (p *pair) lostKey() string { return "sync-failed-" + string(p.space) }

// recallLost brings back what lostData recorded in an earlier process.
func (p *pair) recallLost() error {
	b, _, err := p.store.Meta(p.lostKey())
	if err != nil {
		return err
	}
	for line := range bytes.Lines(b) {
		var l [2]string
		if err := json.Unmarshal(line, &l); err != nil {
			return fmt.Errorf("read what could not be synced: %w", err)
		}
		if err := p.lostData(l[0], l[1]); err != nil {
			return err
		}
	}
	return nil
}

// errSourceSync says that nothing of the truth can be claimed to be durable any more.
var errSourceSync = errors.New("the source could not be synced")

func (p *pair) lastCommit() time.Time {
	p.counts.mu.Lock()
	defer p.counts.mu.Unlock()
	return p.counts.committed
}
