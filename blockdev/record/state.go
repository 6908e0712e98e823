package record

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// Loss is what a cut does to the writes that no flush followed.
type Loss string

// The kinds of loss. Each image loses its own: disks do not share a cache.
const (
	LoseAll    Loss = "all"    // none of them arrived
	LoseNone   Loss = "none"   // all of them arrived
	LoseTail   Loss = "tail"   // the first of them arrived, in order
	LoseSubset Loss = "subset" // any of them arrived, later ones too
	LoseTorn   Loss = "torn"   // any 4 KiB pieces of them arrived
	LoseMixed  Loss = "mixed"  // on each image by another of these kinds: one disk may keep all, and the next nothing
)

// Losses are all kinds.
func Losses() []Loss {
	return []Loss{LoseAll, LoseNone, LoseTail, LoseSubset, LoseTorn, LoseMixed}
}

// Cut is a power cut.
type Cut struct {
	Entries int // how many entries of the log were before it
	Loss    Loss
	Seed    uint64 // chooses what arrived
}

func (c Cut) String() string { return fmt.Sprintf("%d/%s/%d", c.Entries, c.Loss, c.Seed) }

// ParseCut is the inverse of String.
func ParseCut(s string) (Cut, error) {
	f := strings.Split(s, "/")
	if len(f) != 3 {
		return Cut{}, fmt.Errorf("cut %q is not ENTRIES/LOSS/SEED", s)
	}
	n, err := strconv.Atoi(f[0])
	seed, serr := strconv.ParseUint(f[2], 10, 64)
	if err = errors.Join(err, serr); err != nil {
		return Cut{}, fmt.Errorf("cut %q: %w", s, err)
	}
	return Cut{Entries: n, Loss: Loss(f[1]), Seed: seed}, nil
}

// page is the unit in which writes are torn, and the overlay's.
const page = 4096

// State is what the images hold after a cut. What is written to it stays in memory.
type State struct {
	log    *Log
	tables []table
	disks  []*overlay
}

// State makes the state after a cut. It can be made as often as wanted, also of
// one that was written to: each begins anew.
func (l *Log) State(c Cut) (*State, error) {
	if c.Entries < 0 || c.Entries > len(l.Entries) {
		return nil, fmt.Errorf("cut after %d entries: the log has %d", c.Entries, len(l.Entries))
	}
	if !slices.Contains(Losses(), c.Loss) {
		return nil, fmt.Errorf("cut with loss %q: it is one of %v", c.Loss, Losses())
	}
	s := &State{log: l}
	for i, img := range l.Images {
		t := make(table, img.Sectors)
		l.fill(t, i, c)
		s.tables = append(s.tables, t)
		s.disks = append(s.disks, &overlay{log: l, table: t, pages: map[int64]*[page]byte{}})
	}
	return s, nil
}

// fill writes into t what the medium of an image holds after the cut.
func (l *Log) fill(t table, image int, c Cut) {
	flushed, pending := 0, 0
	for n, e := range l.Entries[:c.Entries] {
		switch {
		case e.Image != image:
		case e.Has(FlagFlush):
			flushed, pending = n, 0
		}
		if e.Image == image && e.Sectors > 0 && !e.Has(FlagFUA) {
			pending++
		}
	}
	rng := rand.New(rand.NewPCG(c.Seed, uint64(image)+0x5eed))
	if c.Loss == LoseMixed {
		kinds := Losses()
		c.Loss = kinds[rng.IntN(len(kinds)-1)]
	}
	arrive := pending
	switch c.Loss {
	case LoseAll:
		arrive = 0
	case LoseTail:
		arrive = rng.IntN(pending + 1)
	}
	base := l.Images[image].Base
	for n, e := range l.Entries[:c.Entries] {
		if e.Image != image || e.Sectors == 0 {
			continue
		}
		// A write that is itself a flush flushes what is before it, not itself.
		durable := n < flushed || e.Has(FlagFUA)
		if !durable {
			if arrive == 0 {
				continue
			}
			arrive--
			if c.Loss == LoseSubset && rng.IntN(2) == 0 {
				continue
			}
		}
		apply(t, e, base, func() bool { return durable || c.Loss != LoseTorn || rng.IntN(2) == 0 })
	}
}

// apply does what an entry did, in the pieces of a page that arrived.
func apply(t table, e Logged, base uint64, arrived func() bool) {
	const per = page / Sector
	at, left, data := e.Sector-base, e.Sectors, e.Data
	for left > 0 {
		n := min(left, per-at%per)
		if arrived() {
			if e.Has(FlagDiscard) {
				t.zero(at, n)
			} else {
				t.set(at, n, data)
			}
		}
		at, left, data = at+n, left-n, data+n
	}
}

// Disk is the i-th image.
func (s *State) Disk(i int) Disk { return s.disks[i] }

// Written is how many bytes of memory hold what was written to the state.
func (s *State) Written() (n int64) {
	for _, d := range s.disks {
		d.mu.RLock()
		n += int64(len(d.pages)) * page
		d.mu.RUnlock()
	}
	return n
}

// overlay is an image of a State: the log below, memory above.
type overlay struct {
	log   *Log
	table table

	mu    sync.RWMutex
	pages map[int64]*[page]byte
}

func (o *overlay) Size() int64 { return int64(len(o.table)) * Sector }
func (o *overlay) Sync() error { return nil }

func (o *overlay) ReadAt(p []byte, off int64) (int, error) {
	at, n, err := span(o.Size(), off, len(p))
	if err != nil {
		return 0, fmt.Errorf("read image: %w", err)
	}
	if err := readRuns(o.log.data, o.table[at:at+n], p); err != nil {
		return 0, err
	}
	o.mu.RLock()
	defer o.mu.RUnlock()
	o.each(p, off, func(number int64, at int, part []byte) error {
		if held := o.pages[number]; held != nil {
			copy(part, held[at:])
		}
		return nil
	})
	return len(p), nil
}

func (o *overlay) WriteAt(p []byte, off int64) (int, error) {
	if _, _, err := span(o.Size(), off, len(p)); err != nil {
		return 0, fmt.Errorf("write image: %w", err)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	err := o.each(p, off, func(number int64, at int, part []byte) error {
		held, err := o.hold(number, len(part) == page)
		if err == nil {
			copy(held[at:], part)
		}
		return err
	})
	if err != nil {
		return 0, err
	}
	return len(p), nil
}

func (o *overlay) Discard(off, n int64) error {
	zeros := make([]byte, min(n, 1<<20))
	for n > 0 {
		part := zeros[:min(n, int64(len(zeros)))]
		if _, err := o.WriteAt(part, off); err != nil {
			return err
		}
		off, n = off+int64(len(part)), n-int64(len(part))
	}
	return nil
}

// each calls do with the pieces of p, page by page.
func (o *overlay) each(p []byte, off int64, do func(number int64, at int, part []byte) error) error {
	for len(p) > 0 {
		at := int(off % page)
		part := p[:min(len(p), page-at)]
		if err := do(off/page, at, part); err != nil {
			return err
		}
		p, off = p[len(part):], off+int64(len(part))
	}
	return nil
}

// hold is the page in memory, with what is below it unless all of it is written anyway.
func (o *overlay) hold(number int64, whole bool) (*[page]byte, error) {
	held := o.pages[number]
	if held != nil {
		return held, nil
	}
	held = new([page]byte)
	if !whole {
		first := number * (page / Sector)
		last := min(first+page/Sector, int64(len(o.table)))
		if err := readRuns(o.log.data, o.table[first:last], held[:(last-first)*Sector]); err != nil {
			return nil, err
		}
	}
	o.pages[number] = held
	return held, nil
}
