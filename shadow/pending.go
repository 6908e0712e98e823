package shadow

import "sync"

// pending are the records in the workers' batches. A batch is seen by nobody else
// before it is committed, and an object that moves while its first copy is in one must not be
// copied again by whoever meets its new name.
type pending struct {
	shards [64]struct {
		mu sync.Mutex
		m  map[Node]Record
	}
}

func (p *pending) shard(n Node) int { return int((n.Ino ^ uint64(n.Gen)) % uint64(len(p.shards))) }

func (p *pending) add(n Node, rec *Record) {
	sh := &p.shards[p.shard(n)]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if sh.m == nil {
		sh.m = map[Node]Record{}
	}
	sh.m[n] = *rec
}

func (p *pending) get(n Node) (Record, bool) {
	sh := &p.shards[p.shard(n)]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	rec, ok := sh.m[n]
	return rec, ok
}

func (p *pending) remove(n Node) {
	sh := &p.shards[p.shard(n)]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	delete(sh.m, n)
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

func (w *worker) commit(p *pair) error {
	err := w.recs.Commit()
	for _, n := range w.pend {
		p.pending.remove(n)
	}
	w.pend = w.pend[:0]
	return err
}
