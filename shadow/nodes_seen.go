package shadow

import "sync"

// inodeSet is a set of inode numbers, a bit each in chunks of 64: 1,000,000 of
// them take about half a megabyte. It only grows. The zero set is empty.
type inodeSet struct {
	shards [printShards]struct {
		mu   sync.RWMutex
		bits map[uint64]uint64
		_    [32]byte // a cache line each
	}
}

func (s *inodeSet) add(ino uint64) {
	c, bit := ino/64, uint64(1)<<(ino%64)
	sh := &s.shards[c%printShards]
	sh.mu.Lock()
	if sh.bits == nil {
		sh.bits = map[uint64]uint64{}
	}
	sh.bits[c] |= bit
	sh.mu.Unlock()
}

func (s *inodeSet) has(ino uint64) bool {
	c, bit := ino/64, uint64(1)<<(ino%64)
	sh := &s.shards[c%printShards]
	sh.mu.RLock()
	defer sh.mu.RUnlock()
	return sh.bits[c]&bit != 0
}

func (s *inodeSet) clear() {
	for i := range s.shards {
		sh := &s.shards[i]
		sh.mu.Lock()
		sh.bits = nil
		sh.mu.Unlock()
	}
}
