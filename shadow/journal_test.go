package shadow

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

var ctx = context.Background()

func newTestJournal(t testing.TB, o JournalOptions) *Journal {
	t.Helper()
	j, err := memStore(t, nil).OpenJournal('f', o)
	must(t, err)
	return j
}

func TestJournalMarkTakeDone(t *testing.T) {
	j := newTestJournal(t, JournalOptions{})
	a, b := Node{1, 1}, Node{2, 1}
	j.Mark(b, Data)
	j.Mark(a, Attrs)
	j.Mark(a, Entries)
	j.Mark(a, 0)
	units := j.Take(0)
	if len(units) != 2 || units[0].Node != a || units[0].What != Attrs|Entries || units[1].Node != b {
		t.Fatalf("%+v", units)
	}
	if j.Len() != 2 {
		t.Error("taking is not cleaning")
	}
	// Marked meanwhile: dirty still, but only in what was marked since.
	j.Mark(b, Attrs)
	if j.Done(units[1]) || j.Dirty(b) != Attrs {
		t.Errorf("b is %#x", j.Dirty(b))
	}
	if !j.Done(units[0]) || j.Dirty(a) != 0 || j.Len() != 1 {
		t.Errorf("a is %#x", j.Dirty(a))
	}
	if j.Done(units[0]) {
		t.Error("done twice")
	}
	if again := j.Take(0); len(again) != 1 || !j.Done(again[0]) || j.Len() != 0 {
		t.Errorf("%+v", again)
	}
}

// A unit taken twice and marked in between: finishing the first take says
// nothing of the mark that only the second one has seen.
func TestJournalDoneOfAnOlderTake(t *testing.T) {
	j := newTestJournal(t, JournalOptions{})
	n := Node{1, 1}
	j.Mark(n, Data)
	first := j.Take(0)
	j.Mark(n, Attrs)
	second := j.Take(0)
	j.Mark(n, Links)
	if j.Done(first[0]) || j.Dirty(n) != Data|Attrs|Links {
		t.Errorf("%#x", j.Dirty(n))
	}
	if j.Done(second[0]) || j.Dirty(n) != Links {
		t.Errorf("%#x", j.Dirty(n))
	}
}

func TestJournalTakeGoesRound(t *testing.T) {
	j := newTestJournal(t, JournalOptions{})
	for i := range uint64(10) {
		j.Mark(Node{i, 0}, Data)
	}
	var got []uint64
	for range 5 {
		for _, u := range j.Take(4) {
			got = append(got, u.Node.Ino)
		}
	}
	if want := []uint64{1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0}; !slices.Equal(got, want) {
		t.Errorf("%v", got)
	}
}

// Past its limit the set becomes coarse, says so once, and keeps what a scan
// would not find.
func TestJournalGetsCoarse(t *testing.T) {
	var said []string
	j := newTestJournal(t, JournalOptions{MaxUnits: 100, Coarse: func(r string) { said = append(said, r) }})
	j.Mark(Node{1000, 0}, Data|Firm)
	j.Mark(Node{1001, 0}, Data)
	begun := j.Take(0)
	must(t, j.Begin(ctx, begun[1:]))
	for i := range uint64(99) {
		j.Mark(Node{i, 0}, Data)
	}
	token := j.RescanBegin()
	if need, _ := j.NeedRescan(); need || len(said) != 0 || j.Len() != 101 {
		t.Fatalf("coarse at %d: %q", j.Len(), said)
	}
	j.Mark(Node{500, 0}, Data)
	j.Mark(Node{501, 0}, Data)
	need, why := j.NeedRescan()
	if !need || len(said) != 1 || said[0] != why || j.Len() != 2 {
		t.Fatalf("%v %q %q, %d left", need, why, said, j.Len())
	}
	if j.Dirty(Node{1000, 0}) == 0 || j.Dirty(Node{1001, 0}) == 0 {
		t.Error("a firm or begun mark was dropped")
	}
	if j.RescanDone(token) {
		t.Error("the scan began before marks were dropped")
	}
	token = j.RescanBegin()
	j.Mark(Node{502, 0}, Data)
	if !j.RescanDone(token) || j.Dirty(Node{502, 0}) != Data {
		t.Error("a mark during the scan")
	}
	if need, _ := j.NeedRescan(); need {
		t.Error("still")
	}
	if j.Done(Unit{Node: Node{3, 0}, What: Data, Seq: 1}) {
		t.Error("of a dropped mark nothing is known")
	}
	for _, u := range j.Take(0) {
		j.Done(u)
	}
	if j.Len() != 0 || j.firm.Load() != 0 {
		t.Errorf("%d dirty, %d firm", j.Len(), j.firm.Load())
	}
}

func TestJournalSurvivesReopening(t *testing.T) {
	fs := vfs.NewMem()
	s := memStore(t, fs)
	j, err := s.Journal('f')
	must(t, err)
	if r, err := j.Recover("boot1"); err != nil || r.Marks != 0 || r.Epoch != 0 {
		t.Fatalf("%+v %v", r, err)
	}
	if need, _ := j.NeedRescan(); need {
		t.Error("a new journal needs no rescan")
	}
	for i := range uint64(20_000) { // more than one chunk
		j.Mark(Node{i, 1}, Data)
	}
	units := j.Take(0)
	must(t, j.Begin(ctx, units))
	done := units[:15_000]
	for _, u := range done {
		j.Done(u)
	}
	j.Mark(done[7].Node, Attrs)
	must(t, j.Commit(ctx, done, 3, "boot1"))
	must(t, s.Close())

	s = memStore(t, fs)
	j, err = s.Journal('f')
	must(t, err)
	if j.DurableEpoch() != 3 {
		t.Errorf("epoch %d", j.DurableEpoch())
	}
	r, err := j.Recover("boot1")
	must(t, err)
	if r.Marks != 5001 || r.Epoch != 3 || r.Rebooted || j.Len() != 5001 || j.Dirty(done[7].Node)&Data == 0 {
		t.Errorf("%+v, %d", r, j.Len())
	}
	if need, why := j.NeedRescan(); !need || why == "" {
		t.Error("nobody watched in the meantime")
	}
}

// Over quota one mark stands for all, and after a crash all is distrusted.
func TestJournalOverQuota(t *testing.T) {
	fs := vfs.NewMem()
	s, err := OpenStore("journal", StoreOptions{fs: fs, QuotaBytes: 1})
	must(t, err)
	said := 0
	j, err := s.OpenJournal('f', JournalOptions{Coarse: func(string) { said++ }})
	must(t, err)
	must(t, s.Map('f').Put(Node{1, 1}, &Record{To: Node{2, 1}, Epoch: 1, Print: 5}))
	j.Mark(Node{1, 1}, Data)
	for range 3 {
		must(t, j.Begin(ctx, j.Take(0)))
	}
	must(t, j.Commit(ctx, nil, 1, "boot"))
	if need, _ := j.NeedRescan(); !need || said != 1 {
		t.Errorf("rescan %v, said %d times", need, said)
	}
	must(t, s.Close())
	s = memStore(t, fs)
	j, err = s.Journal('f')
	must(t, err)
	r, err := j.Recover("boot")
	if err != nil || !r.Coarse || r.Distrust != 1 {
		t.Errorf("%+v %v", r, err)
	}
	// It ends when all is clean and was synced since, which takes two commits.
	commit := func(epoch uint64, coarse bool) {
		t.Helper()
		must(t, j.Commit(ctx, nil, epoch, "boot"))
		if j.coarse.Load() != coarse {
			t.Errorf("coarse after epoch %d: %v", epoch, !coarse)
		}
	}
	commit(2, true)
	commit(3, true) // the rescan
	j.RescanDone(j.RescanBegin())
	commit(4, true)
	j.Mark(Node{1, 1}, Data)
	commit(5, true)
	j.Done(j.Take(0)[0])
	commit(6, true) // perhaps done after the syncs
	commit(7, false)
	must(t, j.Begin(ctx, []Unit{{Node: Node{1, 1}, What: Data}}))
	must(t, s.Close())
	s = memStore(t, fs)
	j, err = s.Journal('f')
	must(t, err)
	if r, err = j.Recover("boot"); err != nil || r.Coarse || r.Marks != 1 || r.Distrust != 0 {
		t.Errorf("%+v %v", r, err)
	}
}

// I6: a failed sync of the other side takes back what was claimed since the last commit.
func TestJournalDiscard(t *testing.T) {
	fs := vfs.NewMem()
	s := memStore(t, fs)
	j, err := s.Journal('f')
	must(t, err)
	m := s.Map('f')
	put := func(ino, epoch uint64) {
		must(t, m.Put(Node{ino, 1}, &Record{To: Node{ino, 9}, Epoch: epoch, Print: 5, Flags: Verified}))
	}
	put(1, 1)
	must(t, j.Commit(ctx, nil, 1, "boot"))
	j.Mark(Node{2, 1}, Data)
	units := j.Take(0)
	must(t, j.Begin(ctx, units))
	put(2, 2)
	put(3, 2) // a first copy: never marked
	if !j.Done(units[0]) || j.Len() != 0 {
		t.Fatal("not done")
	}
	must(t, j.Discard("sync of the spare failed"))
	check := func(when string) {
		t.Helper()
		p := NewPrints()
		must(t, m.LoadPrints(p))
		need, _ := j.NeedRescan()
		if p.Get(1) != 5 || p.Get(2) != 0 || p.Get(3) != 0 || j.Dirty(Node{2, 1})&Object == 0 || !need {
			t.Errorf("%s: prints %d %d %d, dirty %#x, rescan %v", when, p.Get(1), p.Get(2), p.Get(3), j.Dirty(Node{2, 1}), need)
		}
	}
	check("at once")
	put(4, 2)
	must(t, s.Close())
	s = memStore(t, fs)
	j, err = s.Journal('f')
	must(t, err)
	m = s.Map('f')
	if r, err := j.Recover("boot"); err != nil || !r.Rebooted || r.Distrust != 3 {
		t.Errorf("%+v %v", r, err)
	}
	check("after a restart")
}

func TestJournalMalformed(t *testing.T) {
	s := memStore(t, nil)
	b := s.db.NewBatch()
	must(t, b.Set([]byte("fe"), []byte{9}, nil))
	must(t, b.Set([]byte("rdshort"), []byte{1}, nil))
	must(t, s.apply(b, false))
	if _, err := s.Journal('f'); !errors.Is(err, ErrJournal) {
		t.Error(err)
	}
	j, err := s.Journal('r')
	must(t, err)
	if _, err := j.Recover("b"); !errors.Is(err, ErrJournal) {
		t.Error(err)
	}
}

func TestJournalDirtyRate(t *testing.T) {
	j := newTestJournal(t, JournalOptions{})
	j.DirtyRate()
	for i := range uint64(1000) {
		j.Mark(Node{i, 0}, Data)
	}
	j.mu.Lock()
	j.samples[0].at = j.samples[0].at.Add(-2 * time.Second)
	j.mu.Unlock()
	if r := j.DirtyRate(); r < 400 || r > 500 {
		t.Errorf("%v units/s", r)
	}
}

// Marks from everywhere while passes run: nothing that was marked after its last
// copy is clean at the end, and the counters agree with the set.
func TestJournalConcurrently(t *testing.T) {
	j := newTestJournal(t, JournalOptions{MaxUnits: 3000})
	const objects = 5000
	var source, target [objects]struct {
		sync.Mutex
		v int
	}
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 20_000 {
				k := (i*7919 + g*31) % objects
				source[k].Lock()
				source[k].v++
				source[k].Unlock()
				j.Mark(Node{uint64(k), 0}, Data)
			}
		})
	}
	stop := make(chan struct{})
	pass := func(epoch uint64) {
		if need, _ := j.NeedRescan(); need {
			token := j.RescanBegin()
			for k := range source {
				source[k].Lock()
				target[k].Lock()
				if source[k].v != target[k].v {
					j.Mark(Node{uint64(k), 0}, Data)
				}
				target[k].Unlock()
				source[k].Unlock()
			}
			j.RescanDone(token)
		}
		units := j.Take(0)
		var done []Unit
		for chunk := range slices.Chunk(units, 500) {
			must(t, j.Begin(ctx, chunk))
			for _, u := range chunk {
				k := u.Node.Ino
				source[k].Lock()
				v := source[k].v
				source[k].Unlock()
				target[k].Lock()
				target[k].v = v
				target[k].Unlock()
				if j.Done(u) {
					done = append(done, u)
				}
			}
		}
		must(t, j.Commit(ctx, done, epoch, "boot"))
	}
	var passes sync.WaitGroup
	passes.Go(func() {
		for e := uint64(1); ; e++ {
			select {
			case <-stop:
				return
			default:
				pass(e)
			}
		}
	})
	wg.Wait()
	close(stop)
	passes.Wait()
	for e := uint64(1 << 20); ; e++ {
		need, _ := j.NeedRescan()
		if j.Len() == 0 && !need {
			break
		}
		pass(e)
	}
	for k := range source {
		if source[k].v != target[k].v {
			t.Fatalf("object %d: %d, and %d copied", k, source[k].v, target[k].v)
		}
	}
	left := 0
	must(t, j.s.scan([]byte{'f', 'd'}, func([]byte, []byte) error { left++; return nil }))
	if left != 0 || j.firm.Load() != 0 {
		t.Errorf("%d durable marks and %d firm ones left over", left, j.firm.Load())
	}
}

func BenchmarkJournalMark(b *testing.B) {
	j := newTestJournal(b, JournalOptions{})
	b.ReportAllocs()
	var i uint64
	for b.Loop() {
		i++
		j.Mark(Node{i * 2654435761 % 300_000, 1}, Data)
	}

}

// BenchmarkJournalFull is a full set: its memory, one Take, and its durable marks.
func BenchmarkJournalFull(b *testing.B) {
	for b.Loop() {
		s, err := OpenStore(b.TempDir()+"/journal", StoreOptions{})
		must(b, err)
		j, err := s.Journal('f')
		must(b, err)
		before := heap()
		at := time.Now()
		const n = 400_000
		for i := range uint64(n) {
			j.Mark(Node{i, 1}, Data)
		}
		b.ReportMetric(n/time.Since(at).Seconds(), "marks/s")
		b.ReportMetric(heap()-before, "heap-MiB")
		at = time.Now()
		units := j.Take(0)
		b.ReportMetric(time.Since(at).Seconds(), "s-Take")
		at = time.Now()
		must(b, j.Begin(ctx, units))
		b.ReportMetric(time.Since(at).Seconds(), "s-Begin")
		for _, u := range units {
			j.Done(u)
		}
		at = time.Now()
		must(b, j.Commit(ctx, units, 1, "boot"))
		b.ReportMetric(time.Since(at).Seconds(), "s-Commit")
		at = time.Now()
		const one = 50
		for i := range uint64(one) {
			j.Mark(Node{i, 2}, Data)
			u := j.Take(1)
			must(b, j.Begin(ctx, u))
			j.Done(u[0])
			must(b, j.Commit(ctx, u, 2+i, "boot"))
		}
		b.ReportMetric(time.Since(at).Seconds()*1e6/one, "us-Begin+Commit")
		must(b, s.Close())
	}
}
