package blockdev

import (
	"math/rand/v2"
	"slices"
	"sync"
)

// Crash is a device that a power cut can hit: it keeps the writes since the last
// Sync apart and can say what the medium might hold if it happened now.
type Crash struct {
	mu      sync.Mutex
	durable *Mem // what the medium certainly holds
	now     *Mem // what a reader sees
	pending []write
}

type write struct {
	off  int64
	data []byte
}

// NewCrash makes a device of size bytes, all zero and durable.
func NewCrash(size int64) *Crash { return NewCrashFrom(NewMem(size)) }

// NewCrashFrom makes a device that durably holds what m does: a crashed image is
// started again with it.
func NewCrashFrom(m *Mem) *Crash { return &Crash{durable: m.Clone(), now: m.Clone()} }

// Size is the device's size.
func (c *Crash) Size() int64 { return c.now.Size() }

// ReadAt reads what was last written, synced or not.
func (c *Crash) ReadAt(p []byte, off int64) (int, error) { return c.now.ReadAt(p, off) }

// WriteAt writes; a power cut before the next Sync may lose it, or parts of it.
func (c *Crash) WriteAt(p []byte, off int64) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n, err := c.now.WriteAt(p, off)
	if err == nil {
		c.pending = append(c.pending, write{off: off, data: slices.Clone(p)})
	}
	return n, err
}

// Sync makes everything written so far durable.
func (c *Crash) Sync() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, w := range c.pending {
		if _, err := c.durable.WriteAt(w.data, w.off); err != nil {
			return err
		}
	}
	c.pending = nil
	return nil
}

// Pending is the number of writes that a power cut could lose.
func (c *Crash) Pending() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.pending)
}

// Loss is a way in which a power cut treats the writes that weren't synced.
type Loss string

// The ways. Torn cuts each write at multiples of 4 KiB of the device.
const (
	LoseAll    Loss = "all"
	LoseNone   Loss = "none"
	LoseTail   Loss = "tail"   // a prefix of them arrived, in order
	LoseSubset Loss = "subset" // any of them arrived, later ones too
	LoseTorn   Loss = "torn"   // any 4 KiB pieces of them arrived
)

var losses = []Loss{LoseAll, LoseNone, LoseTail, LoseSubset, LoseTorn}

// Crash is the medium after a power cut now, in a way that seed chooses. The
// device itself goes on undisturbed: every seed can be tried at the same moment.
func (c *Crash) Crash(seed uint64) *Mem {
	return c.CrashWith(losses[int(seed%uint64(len(losses)))], seed)
}

// CrashWith is Crash in the given way; seed chooses what arrived.
func (c *Crash) CrashWith(how Loss, seed uint64) *Mem {
	c.mu.Lock()
	defer c.mu.Unlock()
	rng := rand.New(rand.NewPCG(seed, 0x5eed))
	m := c.durable.Clone()
	pending := c.pending
	switch how {
	case LoseAll:
		pending = nil
	case LoseTail:
		pending = pending[:rng.IntN(len(pending)+1)]
	}
	for _, w := range pending {
		for _, piece := range pieces(w, how == LoseTorn) {
			if (how == LoseSubset || how == LoseTorn) && rng.IntN(2) == 0 {
				continue
			}
			m.WriteAt(piece.data, piece.off) // it fitted before
		}
	}
	return m
}

// pieces cuts w at the boundaries of the device's pages.
func pieces(w write, cut bool) []write {
	if !cut {
		return []write{w}
	}
	var list []write
	for len(w.data) > 0 {
		n := min(int64(len(w.data)), page-w.off%page)
		list = append(list, write{off: w.off, data: w.data[:n]})
		w.off, w.data = w.off+n, w.data[n:]
	}
	return list
}
