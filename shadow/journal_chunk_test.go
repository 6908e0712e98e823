package shadow

import (
	"math/rand/v2"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Begin writes many marks in chunks, and one sync is for all of them: also when the last
// unit had its mark already, so that nothing is left to write with it.
func TestJournalBeginIsDurableInChunks(t *testing.T) {
	mem := vfs.NewCrashableMem()
	s, err := OpenStore("journal", StoreOptions{fs: mem, CacheBytes: 1 << 20})
	must(t, err)
	defer func() { must(t, s.Close()) }()
	j, err := s.Journal('f')
	must(t, err)
	for i := range uint64(beginChunk + 1) {
		j.Mark(Node{i + 1, 1}, Data)
	}
	units := j.Take(0)
	must(t, j.Begin(ctx, units[beginChunk:]))
	must(t, j.Begin(ctx, units))
	cut := mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 0, RNG: rand.New(rand.NewPCG(1, 1))})
	after, err := OpenStore("journal", StoreOptions{fs: cut, CacheBytes: 1 << 20})
	must(t, err)
	defer func() { must(t, after.Close()) }()
	j, err = after.Journal('f')
	must(t, err)
	if r, err := j.Recover("boot2"); err != nil || r.Marks != beginChunk+1 {
		t.Errorf("%d of %d marks outlived the power cut: %v", r.Marks, beginChunk+1, err)
	}
}

// A map of more records than one batch holds is distrusted as a whole.
func TestNodeMapDistrustsMany(t *testing.T) {
	m := memStore(t, nil).Map('f')
	const many = 2500
	for i := range uint64(many) {
		must(t, m.Put(Node{i + 1, 1}, &Record{To: Node{i + 9000, 1}, Epoch: 5, Print: 7, Flags: Verified, Type: 8}))
	}
	n, err := m.Distrust(4)
	must(t, err)
	left := 0
	must(t, m.Iterate(func(_ Node, r *Record) error {
		if r.Print != 0 || r.Flags&Verified != 0 {
			left++
		}
		return nil
	}))
	if n != many || left != 0 {
		t.Errorf("%d records are distrusted, %d still trusted", n, left)
	}
}

// A mark that an earlier process left ends like one of this process: with the commit of its copy.
func TestJournalMarksOfBeforeEnd(t *testing.T) {
	fs := vfs.NewMem()
	s := memStore(t, fs)
	j, err := s.Journal('f')
	must(t, err)
	for i := range uint64(3) {
		j.Mark(Node{i + 1, 1}, Data)
	}
	must(t, j.Begin(ctx, j.Take(0)))
	must(t, s.Close())
	for _, want := range []int{3, 0} {
		s = memStore(t, fs)
		j, err = s.Journal('f')
		must(t, err)
		r, err := j.Recover("boot1")
		if err != nil || r.Marks != want {
			t.Fatalf("%d marks, want %d: %v", r.Marks, want, err)
		}
		units := j.Take(0)
		for _, u := range units {
			j.Done(u)
		}
		must(t, j.Commit(ctx, units, 1, "boot1"))
		must(t, s.Close())
	}
}

// What is dropped is dropped on disk: after a power cut too.
func TestStoreDropIsDurable(t *testing.T) {
	mem := vfs.NewCrashableMem()
	s, err := OpenStore("journal", StoreOptions{fs: mem, CacheBytes: 1 << 20})
	must(t, err)
	defer func() { must(t, s.Close()) }()
	must(t, s.Map('r').Put(Node{1, 1}, &Record{To: Node{2, 1}, Epoch: 1, Type: 8}))
	must(t, s.Map('f').Put(Node{1, 1}, &Record{To: Node{2, 1}, Epoch: 1, Type: 8}))
	must(t, s.SetMeta("durable", []byte("1"), true))
	must(t, s.Drop('r'))
	cut := mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 0, RNG: rand.New(rand.NewPCG(1, 1))})
	after, err := OpenStore("journal", StoreOptions{fs: cut, CacheBytes: 1 << 20})
	must(t, err)
	defer func() { must(t, after.Close()) }()
	for ns, want := range map[byte]int{'r': 0, 'f': 1} {
		n := 0
		must(t, after.Map(ns).Iterate(func(Node, *Record) error { n++; return nil }))
		if n != want {
			t.Errorf("%d records of %q outlived the power cut, want %d", n, ns, want)
		}
	}
}
