package shadow

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"
)

// ErrJournal says that the journal's durable state cannot be read (I8).
var ErrJournal = errors.New("malformed journal")

// beginChunk bounds one write of Begin and Commit.
const beginChunk = 8192

// Begin makes durable that units may differ, and puts those that are not in the
// set into it. Call it before the other side of any of them is touched; what is marked already costs nothing. Over quota it writes one coarse mark
// instead, and says so through NeedRescan.
func (j *Journal) Begin(ctx context.Context, units []Unit) error {
	j.durable.RLock()
	defer j.durable.RUnlock()
	if j.coarse.Load() {
		return nil
	}
	if j.s.overQuota() {
		return j.beginCoarse()
	}
	b := j.s.db.NewBatch()
	defer j.s.release(b)
	var key [2 + nodeBytes]byte
	for i, u := range units {
		if w := j.toBegin(u); w != 0 {
			if err := b.Set(nodeKey(key[:], j.ns, 'd', u.Node), []byte{byte(w)}, nil); err != nil {
				return fmt.Errorf("begin unit %v: %w", u.Node, err)
			}
		}
		last := i == len(units)-1
		if (!last && b.Count() < beginChunk) || b.Empty() {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := j.s.apply(b, last); err != nil {
			return fmt.Errorf("begin %d units: %w", len(units), err)
		}
		b.Reset()
	}
	// The last unit may have needed no mark while earlier chunks were not synced.
	if err := j.syncLog(len(units) > beginChunk); err != nil {
		return fmt.Errorf("begin %d units: %w", len(units), err)
	}
	for _, u := range units {
		j.began(u)
	}
	return nil
}

// toBegin is the durable mark that u needs, 0 when it has it.
func (j *Journal) toBegin(u Unit) What {
	sh := j.shard(u.Node)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	dur := sh.units[u.Node].dur
	if dur|u.What == dur && dur != 0 {
		return 0
	}
	return dur | u.What
}

// began remembers that u has a durable mark. A unit that is not in the set (its
// mark was dropped with all others meanwhile) is put back, so that Done and Commit know it.
func (j *Journal) began(u Unit) {
	if u.What == 0 {
		return
	}
	sh := j.shard(u.Node)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	is := sh.units[u.Node]
	if is.what == 0 {
		j.dirty.Add(1)
		is.what, is.since, is.seq, is.taken = u.What, 0, u.Seq, u.Seq
	}
	if !is.firm() {
		j.firm.Add(1)
	}
	is.dur |= u.What
	if sh.units == nil {
		sh.units = make(map[Node]journalUnit)
	}
	sh.units[u.Node] = is
}

// beginCoarse writes the one mark that stands for all.
func (j *Journal) beginCoarse() error {
	b := j.s.db.NewBatch()
	defer j.s.release(b)
	err := b.Set([]byte{j.ns, 'q'}, nil, nil)
	if err == nil {
		err = j.s.apply(b, true)
	}
	if err != nil {
		return fmt.Errorf("begin with a coarse mark: %w", err)
	}
	if !j.coarse.Swap(true) {
		j.MarkAll(fmt.Sprintf("the journal takes %d bytes, more than its quota of %d", j.s.Usage(), j.s.quota))
	}
	return nil
}

// syncLog returns when all that was applied before it is on disk.
func (j *Journal) syncLog(needed bool) error {
	if !needed {
		return nil
	}
	b := j.s.db.NewBatch()
	defer j.s.release(b)
	if err := b.LogData(nil, nil); err != nil {
		return err
	}
	return j.s.apply(b, true)
}

// Commit makes durable that done are clean, but for those that were marked again,
// and that every record of epoch, or an older one, is durable. The caller has, in this order: read the
// truth and written the other side, committed its node map batches of that epoch, synced the truth,
// synced the other side. One sync.
func (j *Journal) Commit(ctx context.Context, done []Unit, epoch uint64, bootID string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	j.durable.Lock()
	defer j.durable.Unlock()
	b := j.s.db.NewBatch()
	defer j.s.release(b)
	var clean []Node
	var key [2 + nodeBytes]byte
	for _, u := range done {
		if !j.settled(u.Node) {
			continue
		}
		clean = append(clean, u.Node)
		if err := b.Delete(nodeKey(key[:], j.ns, 'd', u.Node), nil); err != nil {
			return fmt.Errorf("commit unit %v: %w", u.Node, err)
		}
		if b.Count() < beginChunk {
			continue
		}
		// Not synced and without the epoch: each deletion is true by itself.
		if err := j.s.apply(b, false); err != nil {
			return fmt.Errorf("commit %d units: %w", len(done), err)
		}
		b.Reset()
	}
	err := b.Set([]byte{j.ns, 'e'}, appendMarker(nil, epoch, bootID), nil)
	var fine bool
	if err == nil {
		fine, err = j.settleCoarse(b)
	}
	if err == nil {
		err = j.s.apply(b, true)
	}
	if err != nil {
		return fmt.Errorf("commit epoch %d: %w", epoch, err)
	}
	if fine {
		j.coarse.Store(false)
	}
	for _, n := range clean {
		j.committed(n)
	}
	j.mu.Lock()
	j.epoch, j.bootID = epoch, bootID
	j.mu.Unlock()
	return nil
}

// settled reports whether n has a durable mark and is clean in memory.
func (j *Journal) settled(n Node) bool {
	sh := j.shard(n)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	u, ok := sh.units[n]
	return ok && u.what == 0
}

// committed forgets n, or, when it was marked since it was found settled, that
// it has a durable mark.
func (j *Journal) committed(n Node) {
	sh := j.shard(n)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	u := sh.units[n]
	wasFirm := u.what != 0 && u.firm()
	u.dur = 0
	if u.what == 0 {
		delete(sh.units, n)
		return
	}
	sh.units[n] = u
	if wasFirm && !u.firm() {
		j.firm.Add(-1)
	}
}

// settleCoarse adds to b the end of the coarse mark when all that was touched under
// it is clean and synced: nothing was dirty at this Commit and at the one before, no unit was done between
// the two, and the caller synced both sides in that time.
func (j *Journal) settleCoarse(b *pebble.Batch) (settled bool, err error) {
	if !j.coarse.Load() {
		return false, nil
	}
	rescan, _ := j.NeedRescan()
	done := j.cleaned.Load() + 1
	if rescan || j.Len() != 0 || j.s.overQuota() {
		done = 0
	}
	if quiet := j.quiet; done == 0 || quiet != done {
		j.quiet = done
		return false, nil
	}
	return true, b.Delete([]byte{j.ns, 'q'}, nil)
}

// Discard takes back every claim to be clean since the last Commit, because a sync of
// the other side failed: what it left there is not known (I6). Units done since are dirty again, records
// of later epochs lose their Print and Verified, now and at the next Recover, and a rescan
// is needed. The caller loads its Prints again.
func (j *Journal) Discard(reason string) error {
	j.durable.Lock()
	defer j.durable.Unlock()
	epoch := j.DurableEpoch()
	b := j.s.db.NewBatch()
	defer j.s.release(b)
	// No boot has this id, so that the next Recover distrusts what this call did not come to.
	err := b.Set([]byte{j.ns, 'e'}, appendMarker(nil, epoch, ""), nil)
	if err == nil {
		err = j.s.apply(b, true)
	}
	if err == nil {
		_, err = j.s.Map(j.ns).Distrust(epoch)
	}
	if err != nil {
		return fmt.Errorf("discard what was not committed: %w", err)
	}
	var again []Node
	for i := range j.shards {
		sh := &j.shards[i]
		sh.mu.Lock()
		for n, u := range sh.units {
			if u.what == 0 {
				again = append(again, n)
			}
		}
		sh.mu.Unlock()
	}
	for _, n := range again {
		j.Mark(n, Object|Firm)
	}
	j.MarkAll(reason)
	return nil
}

// DurableEpoch is the epoch of the last Commit, 0 when there was none.
func (j *Journal) DurableEpoch() uint64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.epoch
}

// Recovery is what Recover found.
type Recovery struct {
	Marks    int    // durable marks: objects that a crash interrupted
	Epoch    uint64 // last durable epoch
	Rebooted bool   // the last commit was made under another boot: unsynced changes of both sides may be gone
	Distrust int64  // records that were not durable, dirty now
	Coarse   bool   // the marks were over quota: every record is distrusted
}

// Recover is called once after opening, before LoadPrints and before anything is
// marked. It brings the durable marks back, and after a reboot distrusts every record
// that was copied after the last Commit (I3): its Print and Verified are taken away, so that a scan finds it.
// Unless the journal is new, a rescan is needed afterwards: nobody watched in the meantime.
func (j *Journal) Recover(bootID string) (Recovery, error) {
	r, err := j.recoverMarks(bootID)
	if err != nil {
		return r, fmt.Errorf("recover journal %q: %w", j.ns, err)
	}
	m := j.s.Map(j.ns)
	switch {
	case r.Coarse:
		r.Distrust, err = m.Distrust(0)
	case r.Rebooted:
		r.Distrust, err = m.Doubt(r.Epoch)
	}
	if err != nil {
		return r, fmt.Errorf("recover journal %q: %w", j.ns, err)
	}
	if r.Epoch != 0 || r.Marks != 0 || m.Count() != 0 {
		j.mu.Lock()
		j.rescan = "nobody watched the volume before this start"
		j.drops++
		j.mu.Unlock()
	}
	return r, nil
}

func (j *Journal) recoverMarks(bootID string) (Recovery, error) {
	j.mu.Lock()
	r := Recovery{Epoch: j.epoch, Rebooted: j.bootID != bootID}
	j.mu.Unlock()
	r.Coarse = j.coarse.Load()
	err := j.s.scan([]byte{j.ns, 'd'}, func(key, val []byte) error {
		n, ok := decodeNode(key)
		if !ok || len(val) != 1 || val[0] == 0 {
			return ErrJournal
		}
		r.Marks++
		// What was interrupted may be half written: all of it is copied again.
		j.began(Unit{Node: n, What: What(val[0])})
		j.Mark(n, What(val[0])|Object)
		return nil
	})
	return r, err
}

// loadMarker reads the durable epoch and the coarse mark.
func (j *Journal) loadMarker() error {
	v, ok, err := j.s.get([]byte{j.ns, 'e'}, nil)
	if err != nil {
		return err
	}
	if ok {
		if j.epoch, j.bootID, ok = cutMarker(v); !ok {
			return ErrJournal
		}
	}
	_, coarse, err := j.s.get([]byte{j.ns, 'q'}, nil)
	j.coarse.Store(coarse)
	return err
}

// committedUnder is the boot id of the last Commit of a journal; "" when there was none.
func (s *Store) committedUnder(ns byte) (string, error) {
	j, err := s.Journal(ns)
	if err != nil {
		return "", fmt.Errorf("open journal: %w", err)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.bootID, nil
}

// A marker's bytes: version 1, epoch (uvarint), boot id up to the end.
func appendMarker(b []byte, epoch uint64, bootID string) []byte {
	b = append(b, 1)
	b = binary.AppendUvarint(b, epoch)
	return append(b, bootID...)
}

func cutMarker(b []byte) (epoch uint64, bootID string, ok bool) {
	if len(b) == 0 || b[0] != 1 {
		return 0, "", false
	}
	b = b[1:]
	if !cutUvarint(&b, &epoch) {
		return 0, "", false
	}
	return epoch, string(b), true
}

// forget follows a Drop of the name space.
func (j *Journal) forget() {
	for i := range j.shards {
		sh := &j.shards[i]
		sh.mu.Lock()
		sh.units = nil
		sh.mu.Unlock()
	}
	j.dirty.Store(0)
	j.firm.Store(0)
	j.coarse.Store(false)
	j.mu.Lock()
	defer j.mu.Unlock()
	j.epoch, j.bootID, j.rescan = 0, "", ""
}
