package shadow

import (
	"fmt"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// NodeMap says for every object of one side which object of the other side it
// became, and in which state it was copied. It lives in the store; in memory is one bit an
// inode number that was ever seen, so that looking up what is new costs nothing.
//
// Writes are not synced: they are durable once a later Journal.Commit returned. It is
// safe for concurrent use, but what is done to one Node must be serialised by the caller.
type NodeMap struct {
	s     *Store
	ns    byte
	count atomic.Int64

	loadMu sync.Mutex
	loaded atomic.Bool
	seen   inodeSet // inode numbers that may have a record; complete once loaded
}

func newNodeMap(s *Store, ns byte) *NodeMap { return &NodeMap{s: s, ns: ns} }

// Get reads the record of n, and whether there is one.
func (m *NodeMap) Get(n Node) (Record, bool, error) {
	var r Record
	ok, err := m.get(n, &r)
	return r, ok, err
}

func (m *NodeMap) get(n Node, r *Record) (bool, error) {
	if err := m.load(nil); err != nil {
		return false, err
	}
	if !m.seen.has(n.Ino) {
		return false, nil
	}
	kb := getBuf()
	defer putBuf(kb)
	kb.key = nodeKey(kb.key, m.ns, 'n', n)
	v, ok, err := m.s.get(kb.key, kb.val[:0])
	if v != nil {
		kb.val = v
	}
	if ok {
		err = decodeRecord(v, r)
	}
	if err != nil {
		return false, fmt.Errorf("read record of node %v: %w", n, err)
	}
	return ok, nil
}

// Put writes the record of n and the way back from r.To to n, in one piece.
func (m *NodeMap) Put(n Node, r *Record) error {
	b := m.Batch()
	defer b.Close()
	if err := b.Put(n, r); err != nil {
		return err
	}
	return b.Commit()
}

// Delete forgets n: its record, the way back to it, and its ranges. It is not
// an error when there is none.
func (m *NodeMap) Delete(n Node) error {
	b := m.Batch()
	defer b.Close()
	if err := b.Delete(n); err != nil {
		return err
	}
	return b.Commit()
}

// From is the way back: the Node of this side whose record says To == to.
func (m *NodeMap) From(to Node) (Node, bool, error) {
	n, ok, err := m.inverse(to)
	if !ok || err != nil {
		return Node{}, false, err
	}
	// The entry may have outlived the record: the record decides.
	var r Record
	ok, err = m.get(n, &r)
	if !ok || err != nil || r.To != to {
		return Node{}, false, err
	}
	return n, true, nil
}

func (m *NodeMap) inverse(to Node) (Node, bool, error) {
	kb := getBuf()
	defer putBuf(kb)
	kb.key = nodeKey(kb.key, m.ns, 'i', to)
	v, ok, err := m.s.get(kb.key, kb.val[:0])
	if err != nil {
		return Node{}, false, fmt.Errorf("read way back from node %v: %w", to, err)
	}
	if !ok {
		return Node{}, false, nil
	}
	kb.val = v
	n, ok := decodeNode(v)
	if !ok {
		return Node{}, false, fmt.Errorf("read way back from node %v: %w", to, ErrRecord)
	}
	return n, true, nil
}

// Ranges reads the digests of n's ranges, in the copier's encoding.
func (m *NodeMap) Ranges(n Node) ([]byte, bool, error) {
	v, ok, err := m.s.get(nodeKey(nil, m.ns, 'x', n), nil)
	if err != nil {
		return nil, false, fmt.Errorf("read ranges of node %v: %w", n, err)
	}
	return v, ok, nil
}

// PutRanges keeps the digests of n's ranges. Empty ranges are forgotten.
func (m *NodeMap) PutRanges(n Node, ranges []byte) error {
	b := m.s.db.NewBatch()
	defer m.s.release(b)
	key := nodeKey(nil, m.ns, 'x', n)
	var err error
	if len(ranges) == 0 {
		err = b.Delete(key, nil)
	} else {
		err = b.Set(key, ranges, nil)
	}
	if err == nil {
		err = m.s.apply(b, false)
	}
	if err != nil {
		return fmt.Errorf("write ranges of node %v: %w", n, err)
	}
	return nil
}

// Iterate calls fn for every record by inode number and generation, as of the
// time of the call; records still in a Batch are not among them. The Record is
// used again for the next call, its Name is not. fn may change the map.
func (m *NodeMap) Iterate(fn func(Node, *Record) error) error {
	var r Record
	err := m.s.scan([]byte{m.ns, 'n'}, func(key, val []byte) error {
		n, ok := decodeNode(key)
		if !ok {
			return fmt.Errorf("read node map: key of %d bytes: %w", len(key), ErrRecord)
		}
		if err := decodeRecord(val, &r); err != nil {
			return fmt.Errorf("read record of node %v: %w", n, err)
		}
		return fn(n, &r)
	})
	return err
}

// Count is the number of records. It is 0 when the store cannot be read.
func (m *NodeMap) Count() int64 {
	if m.load(nil) != nil {
		return 0
	}
	return m.count.Load()
}

// LoadPrints sets the Print of every record that has one to be trusted (a Racy one has not). Of two generations of
// one inode number, which an object that vanished may have left behind, the later copy counts.
func (m *NodeMap) LoadPrints(p *Prints) error { return m.load(p) }

// DirtyAfter calls mark for every object that was copied after epoch: after a power
// cut nothing is known of what became of it on either side (I3).
func (m *NodeMap) DirtyAfter(epoch uint64, mark func(Node)) error {
	return m.Iterate(func(n Node, r *Record) error {
		if r.Epoch > epoch {
			mark(n)
		}
		return nil
	})
}

// Distrust takes the Print and Verified from every record that was copied after
// epoch, so that the next scan of all inodes finds it different and it is copied again.
// It returns how many those are.
func (m *NodeMap) Distrust(epoch uint64) (int64, error) {
	var late int64
	err := m.change(func(r *Record) bool {
		if r.Epoch <= epoch {
			return false
		}
		late++
		r.Print, r.Flags = 0, r.Flags&^Verified
		return true
	})
	return late, err
}

// Doubt is what is left of the claims after a power cut. A file's inode and its content reach
// the disk by different ways: what was written last may be there, by writeback, and the ctime that
// would show it gone with the file system's log. So no file's Print says any more what it
// holds: each is Doubted until it was read again, and nothing is Verified. Records that were
// copied after epoch are distrusted too; how many those are is the result.
func (m *NodeMap) Doubt(epoch uint64) (int64, error) {
	var late int64
	err := m.change(func(r *Record) bool {
		was := *r
		r.Flags &^= Verified
		if r.Type == unix.S_IFREG>>12 && r.Size > 0 {
			r.Flags |= Doubted
		}
		if r.Epoch > epoch {
			r.Print = 0
			late++
		}
		return *r != was
	})
	return late, err
}

// change has fn change every record, and keeps those of which it says that it did.
func (m *NodeMap) change(fn func(*Record) bool) error {
	b := m.Batch()
	defer b.Close()
	err := m.Iterate(func(n Node, r *Record) error {
		if !fn(r) {
			return nil
		}
		if err := b.Put(n, r); err != nil || b.Len() < 1000 {
			return err
		}
		return b.Commit()
	})
	if err != nil {
		return err
	}
	return b.Commit()
}

// load reads the whole map once for its inode numbers, and again for the prints
// when those are asked for.
func (m *NodeMap) load(p *Prints) error {
	if p == nil && m.loaded.Load() {
		return nil
	}
	m.loadMu.Lock()
	defer m.loadMu.Unlock()
	first := !m.loaded.Load()
	if !first && p == nil {
		return nil
	}
	var count int64
	var last uint64
	var lastEpoch uint64
	err := m.Iterate(func(n Node, r *Record) error {
		count++
		if first {
			m.seen.add(n.Ino)
		}
		if p != nil && (count == 1 || n.Ino != last || r.Epoch >= lastEpoch) {
			v := r.Print
			if r.Flags&Racy != 0 {
				v = 0
			}
			p.Set(n.Ino, v)
			last, lastEpoch = n.Ino, r.Epoch
		}
		return nil
	})
	if err != nil {
		return err
	}
	if first {
		m.count.Store(count)
		m.loaded.Store(true)
	}
	return nil
}

// forget follows a Drop of the name space.
func (m *NodeMap) forget() {
	m.loadMu.Lock()
	defer m.loadMu.Unlock()
	m.seen.clear()
	m.count.Store(0)
	m.loaded.Store(true)
}

// nodeBuf is what one operation needs, kept for the next.
type nodeBuf struct{ key, val []byte }

var nodeBufs = sync.Pool{New: func() any { return &nodeBuf{make([]byte, 0, 16), make([]byte, 0, 128)} }}

func getBuf() *nodeBuf  { return nodeBufs.Get().(*nodeBuf) }
func putBuf(b *nodeBuf) { nodeBufs.Put(b) }
