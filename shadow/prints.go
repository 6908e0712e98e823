package shadow

import (
	"encoding/binary"
	"sync"

	"github.com/cespare/xxhash/v2"
)

// Print is a fingerprint of an inode's state when it was last copied: two states
// of one inode with the same Print are, but for 1 in 2⁶⁴, the same state. 0 is
// "never copied, or not to be trusted". It is in memory and in the node map, so its
// computation must not change.
type Print uint64

// PrintOf is the Print of an inode, never 0. mode is the whole st_mode.
func PrintOf(gen uint32, ctimeSec int64, ctimeNsec uint32, size uint64, mode, nlink uint32) Print {
	var b [32]byte
	binary.LittleEndian.PutUint64(b[0:], uint64(ctimeSec))
	binary.LittleEndian.PutUint64(b[8:], size)
	binary.LittleEndian.PutUint32(b[16:], gen)
	binary.LittleEndian.PutUint32(b[20:], ctimeNsec)
	binary.LittleEndian.PutUint32(b[24:], mode)
	binary.LittleEndian.PutUint32(b[28:], nlink)
	if p := xxhash.Sum64(b[:]); p != 0 {
		return Print(p)
	}
	return 1
}

const (
	printChunk  = 64 // inodes a chunk: what xfs allocates at a time
	printShards = 64
)

// Prints holds the Print of every inode of one side: about 8.5 bytes an inode
// where inode numbers come in runs of 64 (ext, xfs, btrfs). It is safe for
// concurrent use. The zero Prints is empty.
type Prints struct {
	shards [printShards]printsShard
}

type printsShard struct {
	mu     sync.RWMutex
	chunks map[uint64]*[printChunk]Print
	n      int
	_      [24]byte // a cache line each
}

func (p *Prints) shard(chunk uint64) *printsShard {
	return &p.shards[chunk%printShards]
}

// Set keeps the Print of ino. Setting 0 deletes it.
func (p *Prints) Set(ino uint64, v Print) {
	c := ino / printChunk
	s := p.shard(c)
	s.mu.Lock()
	defer s.mu.Unlock()
	ch := s.chunks[c]
	if ch == nil {
		if v == 0 {
			return
		}
		if s.chunks == nil {
			s.chunks = make(map[uint64]*[printChunk]Print)
		}
		ch = new([printChunk]Print)
		s.chunks[c] = ch
	}
	old := ch[ino%printChunk]
	ch[ino%printChunk] = v
	switch {
	case old == 0 && v != 0:
		s.n++
	case old != 0 && v == 0:
		s.n--
		if *ch == ([printChunk]Print{}) {
			delete(s.chunks, c)
		}
	}
}

// Get is the Print of ino, 0 when there is none.
func (p *Prints) Get(ino uint64) Print {
	c := ino / printChunk
	s := p.shard(c)
	s.mu.RLock()
	defer s.mu.RUnlock()
	if ch := s.chunks[c]; ch != nil {
		return ch[ino%printChunk]
	}
	return 0
}

// Delete forgets the Print of ino.
func (p *Prints) Delete(ino uint64) { p.Set(ino, 0) }

// Len is the number of inodes that have a Print.
func (p *Prints) Len() int {
	n := 0
	for i := range p.shards {
		s := &p.shards[i]
		s.mu.RLock()
		n += s.n
		s.mu.RUnlock()
	}
	return n
}

// Range calls fn for every Print, in no order, until it returns false. fn may
// call any method of p. A Print set meanwhile may be seen or not.
func (p *Prints) Range(fn func(ino uint64, v Print) bool) {
	for i := range p.shards {
		s := &p.shards[i]
		s.mu.RLock()
		keys := make([]uint64, 0, len(s.chunks))
		for c := range s.chunks {
			keys = append(keys, c)
		}
		s.mu.RUnlock()
		for _, c := range keys {
			s.mu.RLock()
			var ch [printChunk]Print
			if live := s.chunks[c]; live != nil {
				ch = *live
			}
			s.mu.RUnlock()
			for k, v := range ch {
				if v != 0 && !fn(c*printChunk+uint64(k), v) {
					return
				}
			}
		}
	}
}

// chunks calls fn for every run of inodes that has a Print, in no order, until it fails.
// Nobody may change p meanwhile.
func (p *Prints) chunks(fn func(chunk uint64, v *[printChunk]Print) error) error {
	for i := range p.shards {
		for c, v := range p.shards[i].chunks {
			if err := fn(c, v); err != nil {
				return err
			}
		}
	}
	return nil
}

// Clear forgets everything.
func (p *Prints) Clear() {
	for i := range p.shards {
		s := &p.shards[i]
		s.mu.Lock()
		s.chunks, s.n = nil, 0
		s.mu.Unlock()
	}
}

// NewPrints makes an empty set.
func NewPrints() *Prints { return new(Prints) }
