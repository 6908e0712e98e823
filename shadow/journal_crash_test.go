package shadow

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// world is a migration of a few objects, reduced to their versions: what each
// side has in memory, and what a power cut would leave of it.
type world struct {
	rng                  *rand.Rand
	source, sourceDisk   [worldSize]uint64
	shadow, shadowDisk   [worldSize]uint64
	begun                [worldSize]bool // acknowledged by Begin, not yet given to Commit
	version              uint64
	skipBegin, skipSyncs bool // to see that the test can fail
	steps, dieStep       int64
}

var errDied = errors.New("died")

// step is an instant at which a crash may come.
func (w *world) step(j *Journal) error {
	w.change(j)
	if w.steps++; w.steps == w.dieStep {
		return errDied
	}
	return nil
}

const worldSize = 12

func worldNode(i int) Node { return Node{uint64(i + 1), 1} }

// live runs passes over the journal while the source changes, until the store
// fails or the rounds are over.
func (w *world) live(s *Store, rounds int) error {
	j, err := s.Journal('f')
	if err != nil {
		return err
	}
	m := s.Map('f')
	for epoch := uint64(1); epoch <= uint64(rounds); epoch++ {
		if err := w.step(j); err != nil {
			return err
		}
		units := j.Take(0)
		if !w.skipBegin {
			if err := j.Begin(ctx, units); err != nil {
				return err
			}
		}
		for _, u := range units {
			w.begun[u.Node.Ino-1] = !w.skipBegin
		}
		var done []Unit
		for _, u := range units {
			i := u.Node.Ino - 1
			w.shadow[i] = w.source[i]
			if err := w.step(j); err != nil {
				return err
			}
			r := &Record{To: Node{u.Node.Ino + 100, 1}, Epoch: epoch, Print: Print(w.shadow[i])}
			if err := m.Put(u.Node, r); err != nil {
				return err
			}
			if err := w.step(j); err != nil {
				return err
			}
			if j.Done(u) {
				done = append(done, u)
			}
		}
		if !w.skipSyncs {
			w.sourceDisk = w.source
			if err := w.step(j); err != nil {
				return err
			}
			w.shadowDisk = w.shadow
			if err := w.step(j); err != nil {
				return err
			}
		}
		for _, u := range done {
			w.begun[u.Node.Ino-1] = false
		}
		if err := j.Commit(ctx, done, epoch, "boot1"); err != nil {
			return err
		}
	}
	return nil
}

// change is the application at work, and the kernel writing back what it likes, when it likes.
func (w *world) change(j *Journal) {
	if w.rng.IntN(2) == 0 {
		i := w.rng.IntN(worldSize)
		w.version++
		w.source[i] = w.version
		j.Mark(worldNode(i), Data)
	}
	for i := range worldSize {
		if w.rng.IntN(16) == 0 {
			w.sourceDisk[i] = w.source[i]
		}
		if w.rng.IntN(4) == 0 {
			w.shadowDisk[i] = w.shadow[i]
		}
	}
}

// recovered opens what the crash left and returns what is known to be dirty: what
// the journal says, and what a scan of all inodes finds.
func (w *world) recovered(t *testing.T, fs vfs.FS, boot string) (dirty [worldSize]bool, j *Journal) {
	t.Helper()
	s, err := OpenStore("journal", StoreOptions{fs: fs, CacheBytes: 1 << 20})
	if err != nil {
		t.Fatalf("open after the crash: %v", err)
	}
	t.Cleanup(func() { s.Close() })
	j, err = s.Journal('f')
	must(t, err)
	_, err = j.Recover(boot)
	must(t, err)
	p := NewPrints()
	must(t, s.Map('f').LoadPrints(p))
	for i := range dirty {
		n := worldNode(i)
		dirty[i] = j.Dirty(n) != 0 || p.Get(n.Ino) != Print(w.source[i])
	}
	return dirty, j
}

// journalDiesAt runs a world whose store fails at its k-th write (or that dies at its own
// dieStep), crashes it, and checks both sides of the oracle. ran is false when there
// were fewer writes, or steps.
func journalDiesAt(t *testing.T, seed uint64, k int64, once, power bool, w *world) (ran bool, bad error) {
	t.Helper()
	w.rng = rand.New(rand.NewPCG(seed, uint64(k+w.dieStep)))
	mem := vfs.NewCrashableMem()
	var writes atomic.Int64
	fs := errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
		// Not the sync of a directory: the clone keeps and loses its entries at random, but
		// Pebble's marker trusts a file system to keep them in order, as journals do.
		if op.Kind.ReadOrWrite() != errorfs.OpIsWrite || op.Kind == errorfs.OpFileSync && !strings.Contains(op.Path, "0") {
			return nil
		}
		if n := writes.Add(1); n == k || (n > k && !once) {
			return errorfs.ErrInjected
		}
		return nil
	}))
	s, err := OpenStore("journal", StoreOptions{fs: fs, CacheBytes: 1 << 20})
	if err == nil {
		err = w.live(s, 12)
		if err != nil && errors.Is(err, ErrStore) {
			// I6: nothing is retried into success.
			if again := s.SetMeta("x", nil, true); !errors.Is(again, ErrStore) {
				return true, fmt.Errorf("after %v the store took a write: %v", err, again)
			}
		}
	}
	ran = writes.Load() >= k || errors.Is(err, errDied)
	crashed := mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: int(seed*37+uint64(k+w.dieStep)) % 101, RNG: w.rng})
	if s != nil {
		s.Close()
	}
	boot := "boot1"
	if power {
		w.source, w.shadow, boot = w.sourceDisk, w.shadowDisk, "boot2"
	}
	dirty, j := w.recovered(t, crashed, boot)
	for i := range dirty {
		switch {
		case w.source[i] != w.shadow[i] && !dirty[i]:
			return ran, fmt.Errorf("object %d: source %d, shadow %d, and nobody knows", i, w.source[i], w.shadow[i])
		case w.begun[i] && j.Dirty(worldNode(i)) == 0:
			return ran, fmt.Errorf("object %d: an acknowledged durable mark is lost", i)
		}
	}
	return ran, nil
}

// never is a write that no run comes to.
const never = 1 << 40

// Die at the k-th write of the store, for every k, by a kill and by a power cut.
func TestJournalDiesAtEveryWrite(t *testing.T) {
	for _, power := range []bool{false, true} {
		for _, once := range []bool{false, true} {
			t.Run(fmt.Sprintf("power=%v once=%v", power, once), func(t *testing.T) {
				untilThrough(t, 3, 20, func(seed uint64, k int64) (bool, error) {
					return journalDiesAt(t, seed, k, once, power, &world{})
				})
			})
		}
	}
}

// Die between any two steps of a pass.
func TestJournalDiesAtEveryStep(t *testing.T) {
	for _, power := range []bool{false, true} {
		t.Run(fmt.Sprintf("power=%v", power), func(t *testing.T) {
			untilThrough(t, 3, 30, func(seed uint64, k int64) (bool, error) {
				return journalDiesAt(t, seed, never, false, power, &world{dieStep: k})
			})
		})
	}
}

func untilThrough(t *testing.T, seeds uint64, least int64, fn func(seed uint64, k int64) (bool, error)) {
	t.Helper()
	for seed := range seeds {
		for k := int64(1); ; k++ {
			ran, err := fn(seed, k)
			if err != nil {
				t.Fatalf("seed %d, k %d: %v", seed, k, err)
			}
			if !ran {
				if k < least {
					t.Fatalf("through after %d", k)
				}
				break
			}
		}
	}
}

// The tests above can fail: without the durable mark before the shadow is touched, or
// without the syncs before the commit, a power cut leaves a difference that nobody knows of.
func TestJournalNeedsBeginAndSyncs(t *testing.T) {
	for name, w := range map[string]world{"begin": {skipBegin: true}, "syncs": {skipSyncs: true}} {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(20) {
				for k := int64(1); ; k++ {
					is := w
					is.dieStep = k
					ran, err := journalDiesAt(t, seed, never, false, true, &is)
					if err != nil {
						t.Logf("seed %d, step %d: %v", seed, k, err)
						return
					}
					if !ran {
						break
					}
				}
			}
			t.Error("the oracle is blind")
		})
	}
}
