package shadow

import (
	"fmt"

	"github.com/cockroachdb/pebble/v2"
)

// Batch collects changes of a NodeMap, so that a worker that copies small files pays
// one write for many. What is in it is seen by Get, From and Iterate only after Commit: of
// what other workers look up at once (directories, files with several names) use Put of the map.
// A Batch belongs to one goroutine.
type Batch struct {
	m     *NodeMap
	b     *pebble.Batch
	keep  map[Node]Node // written in this batch: → To
	gone  map[Node]bool // deleted in this batch
	delta int64
	key   []byte
	val   []byte
}

// Batch makes an empty batch.
func (m *NodeMap) Batch() *Batch {
	return &Batch{m: m, b: m.s.db.NewBatch(), keep: map[Node]Node{}, gone: map[Node]bool{}}
}

// Len is the number of objects changed since the last Commit.
func (b *Batch) Len() int { return len(b.keep) + len(b.gone) }

// Put is NodeMap.Put.
func (b *Batch) Put(n Node, r *Record) error {
	if r.To.IsZero() {
		return fmt.Errorf("write record of node %v: it has no counterpart", n)
	}
	old, had, err := b.before(n)
	if err != nil {
		return err
	}
	if had && old != r.To {
		if err := b.dropInverse(n, old); err != nil {
			return err
		}
	}
	if !had {
		b.m.seen.add(n.Ino)
		b.delta++
	}
	delete(b.gone, n)
	b.keep[n] = r.To
	b.val = appendRecord(b.val[:0], r)
	if err := b.set('n', n, b.val); err != nil {
		return err
	}
	if had && old == r.To {
		return nil
	}
	b.val = appendNode(b.val[:0], n)
	return b.set('i', r.To, b.val)
}

// Amend writes the record of n again, which exists and points to r.To already: what
// Put looks up first is known then.
func (b *Batch) Amend(n Node, r *Record) error {
	b.val = appendRecord(b.val[:0], r)
	return b.set('n', n, b.val)
}

// Delete is NodeMap.Delete.
func (b *Batch) Delete(n Node) error {
	old, had, err := b.before(n)
	if err != nil || !had {
		return err
	}
	if err := b.dropInverse(n, old); err != nil {
		return err
	}
	b.delta--
	delete(b.keep, n)
	b.gone[n] = true
	for _, kind := range []byte{'n', 'x'} {
		if err := b.del(kind, n); err != nil {
			return err
		}
	}
	return nil
}

// before is where n's record points when this batch's changes are applied.
func (b *Batch) before(n Node) (to Node, had bool, err error) {
	if to, ok := b.keep[n]; ok {
		return to, true, nil
	}
	if b.gone[n] {
		return Node{}, false, nil
	}
	var r Record
	had, err = b.m.get(n, &r)
	return r.To, had, err
}

// dropInverse deletes the way back from to, unless it leads to another than n by now.
func (b *Batch) dropInverse(n, to Node) error {
	for other, t := range b.keep {
		if t == to && other != n {
			return nil
		}
	}
	is, ok, err := b.m.inverse(to)
	if err != nil {
		return err
	}
	if _, pending := b.keep[n]; (ok && is == n) || pending {
		return b.del('i', to)
	}
	return nil
}

func (b *Batch) set(kind byte, n Node, val []byte) error {
	b.key = nodeKey(b.key, b.m.ns, kind, n)
	if err := b.b.Set(b.key, val, nil); err != nil {
		return fmt.Errorf("write node %v: %w", n, err)
	}
	return nil
}

func (b *Batch) del(kind byte, n Node) error {
	b.key = nodeKey(b.key, b.m.ns, kind, n)
	if err := b.b.Delete(b.key, nil); err != nil {
		return fmt.Errorf("forget node %v: %w", n, err)
	}
	return nil
}

// Commit applies the batch, all or nothing, and empties it. It does not sync.
func (b *Batch) Commit() error {
	if b.b.Empty() {
		return nil
	}
	if err := b.m.s.apply(b.b, false); err != nil {
		return fmt.Errorf("write %d nodes: %w", b.Len(), err)
	}
	b.m.count.Add(b.delta)
	b.delta = 0
	clear(b.keep)
	clear(b.gone)
	b.b.Reset()
	return nil
}

// Close gives up what was not committed.
func (b *Batch) Close() {
	b.m.s.release(b.b)
}
