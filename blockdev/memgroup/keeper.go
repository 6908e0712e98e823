package memgroup

import (
	"context"
	"os"
	"strconv"
	"sync"
	"time"
)

const (
	// patience is how long what was read may take to be given back: xfs frees inodes that
	// nobody needs every five seconds (fs.xfs.xfssyncd_centisecs / 6).
	patience = 6 * time.Second
	pollEach = 2 * time.Millisecond
	// inVain is how often a Keeper waits without success before it does not any more.
	inVain = 3
)

// Keeper sees to it that the groups of this process stay below their limits. The zero
// pointer is one that has nothing to do. Its methods may be called by several at a time.
type Keeper struct {
	mu      sync.Mutex
	reclaim string // writing to this file has the kernel reclaim from the group; "": it cannot be asked
	whole   bool   // version 1: what is written does not say how much
	levels  []level
	taken   int64 // bytes that the reads may have taken since the last relief, at most
	vain    int
	wait    time.Duration // patience
}

// level is one group on the way from the process's own to the root.
type level struct {
	usage, stat string   // files
	cached      []string // the lines of stat that are page cache, which needs nobody's help to go
	limit       int64
	low         int64 // what was in use but for page cache after the last relief, or less since
	due         int64 // what has to be in use for the next one
}

// begin takes the measure of a level before the first read.
func (l *level) begin() {
	l.low = l.held()
	l.due = l.limit - l.limit/4
}

// Room is to be called between reads, with how many bytes of the kernel's memory those
// since the last call took at most. It returns when there is room for more: at once as long as
// three quarters of the limit are not in use, else after the kernel gave back what
// nobody needs, or after some seconds. before, if not nil, is called before the kernel is asked.
// The only error is ctx's.
func (k *Keeper) Room(ctx context.Context, took int64, before func()) error {
	if k == nil {
		return nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.taken += took
	for i := range k.levels {
		l := &k.levels[i]
		if number(l.usage) < l.due {
			continue // not even with the page cache
		}
		held := l.held()
		l.low = min(l.low, held)
		if held < l.due {
			continue
		}
		if err := k.relieve(ctx, l, held, before); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// relieve has the kernel give back what can be, and waits for it when what the reads took is
// enough to be the reason; what others use nobody waits for.
func (k *Keeper) relieve(ctx context.Context, l *level, held int64, before func()) (err error) {
	ours := min(k.taken, held-l.low)
	if k.reclaim != "" {
		if before != nil {
			before()
		}
		k.ask(ours + l.limit/8)
	}
	if ours < l.limit/32 || k.vain >= inVain {
		held = l.held()
		l.low = min(l.low, held)
	} else {
		k.taken = 0
		held, err = k.fall(ctx, l, held-ours/2)
		l.low = held
	}
	l.due = max(l.limit-l.limit/4, min(held+l.limit/16, l.limit-l.limit/16))
	return err
}

// fall waits until no more than so many bytes are held.
func (k *Keeper) fall(ctx context.Context, l *level, to int64) (held int64, err error) {
	for end := time.Now().Add(k.wait); ; {
		if held = l.held(); held <= to {
			return held, nil
		}
		if !time.Now().Before(end) {
			k.vain++
			return held, nil
		}
		select {
		case <-ctx.Done():
			return held, ctx.Err()
		case <-time.After(pollEach):
		}
	}
}

// ask has the kernel reclaim so many bytes, page cache among them.
func (k *Keeper) ask(n int64) {
	f, err := os.OpenFile(k.reclaim, os.O_WRONLY, 0)
	if err != nil {
		k.reclaim = "" // read-only in this container, or before Linux 5.19
		return
	}
	defer f.Close()
	if k.whole {
		n = 0
	}
	// EAGAIN: it could not find that much. What counts is what is in use afterwards.
	_, _ = f.WriteString(strconv.FormatInt(n, 10))
}
