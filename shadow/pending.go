package shadow

import (
	"errors"
	"sync"
)

// pending are the records in the workers' batches. A batch is seen by nobody else
// before it is committed, and an object that moves while its first copy is in one must not be
// copied again by whoever meets its new name. Whoever changes or drops such a record says so
// here: the batch's owner does the same after its commit, which would else bring the old one back.
type pending struct {
	shards [64]struct {
		mu sync.Mutex
		m  map[Node]pendingRecord
	}
}

// pendingRecord is what holds of an object, whatever its batch says.
type pendingRecord struct {
	rec     Record
	amended bool // not what the batch has
	gone    bool // dropped
}

func (p *pending) shard(n Node) int { return int((n.Ino ^ uint64(n.Gen)) % uint64(len(p.shards))) }

func (p *pending) add(n Node, rec *Record) {
	sh := &p.shards[p.shard(n)]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if sh.m == nil {
		sh.m = map[Node]pendingRecord{}
	}
	sh.m[n] = pendingRecord{rec: *rec}
}

// amend replaces the record of n, or with nil drops it, where one is in a batch, and
// reports whether one is.
func (p *pending) amend(n Node, rec *Record) bool {
	sh := &p.shards[p.shard(n)]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if _, waits := sh.m[n]; !waits {
		return false
	}
	if rec == nil {
		sh.m[n] = pendingRecord{gone: true}
	} else {
		sh.m[n] = pendingRecord{rec: *rec, amended: true}
	}
	return true
}

func (p *pending) get(n Node) (Record, bool) {
	sh := &p.shards[p.shard(n)]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	r, ok := sh.m[n]
	return r.rec, ok && !r.gone
}

// settle ends the wait of n, whose batch was committed, with what was said of it meanwhile.
func (p *pending) settle(n Node, nodes *NodeMap) error {
	sh := &p.shards[p.shard(n)]
	sh.mu.Lock()
	defer sh.mu.Unlock() // held over the write: an amendment comes before it, or finds none that waits
	r := sh.m[n]
	delete(sh.m, n)
	switch {
	case r.gone:
		return nodes.Delete(n)
	case r.amended:
		return nodes.Put(n, &r.rec)
	}
	return nil
}

// get is the record of n, also where it is in a batch yet.
func (p *pair) get(n Node) (rec Record, known bool, err error) {
	if rec, ok := p.pending.get(n); ok {
		return rec, true, nil
	}
	return p.nodes.Get(n)
}

// batchSize is how many records a worker collects.
const batchSize = 512

// put collects a record; commit makes it seen in the node map.
func (w *worker) put(p *pair, n Node, rec *Record) error {
	if p.pending.amend(n, rec) {
		return nil
	}
	p.pending.add(n, rec)
	w.pend = append(w.pend, n)
	if err := w.recs.Put(n, rec); err != nil {
		return err
	}
	if len(w.pend) < batchSize {
		return nil
	}
	return w.commit(p)
}

// amend writes a record again whose object is copied by nobody meanwhile.
func (w *worker) amend(p *pair, n Node, rec *Record) error {
	if err := w.recs.Amend(n, rec); err != nil {
		return err
	}
	if w.amended++; w.amended < batchSize {
		return nil
	}
	return w.commit(p)
}

func (w *worker) commit(p *pair) error {
	w.amended = 0
	err := w.recs.Commit()
	for _, n := range w.pend {
		err = errors.Join(err, p.pending.settle(n, p.nodes))
	}
	w.pend = w.pend[:0]
	return err
}
