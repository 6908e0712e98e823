package shadow

import (
	"encoding/binary"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"
)

// million is the size of tree that the memory budget is stated for.
const million = 1_000_000

// fillMap puts n records as two workers copying small files would.
func fillMap(b testing.TB, m *NodeMap, n uint64) {
	var wg sync.WaitGroup
	for g := range uint64(2) {
		wg.Go(func() {
			batch := m.Batch()
			defer batch.Close()
			r := Record{Type: 8, Epoch: 1, Flags: Verified}
			for i := g; i < n; i += 2 {
				r.To = Node{i + 131, uint32(i * 2654435761)}
				r.Print = PrintOf(uint32(i), int64(i), uint32(i*7919), i, 0o100644, 1)
				r.Size = int64(i % 9000)
				for k := 0; k < 32; k += 8 {
					binary.LittleEndian.PutUint64(r.Digest[k:], (i+1)*0x9e3779b97f4a7c15^uint64(k)<<33)
				}
				if err := batch.Put(Node{i + 12, uint32(i * 40503)}, &r); err != nil {
					b.Error(err)
					return
				}
				if batch.Len() >= 256 {
					if err := batch.Commit(); err != nil {
						b.Error(err)
						return
					}
				}
			}
			if err := batch.Commit(); err != nil {
				b.Error(err)
			}
		})
	}
	wg.Wait()
}

func heap() float64 {
	runtime.GC()
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return float64(s.HeapAlloc) / (1 << 20)
}

// BenchmarkNodeMapMillion is the life of a node map of 1,000,000 objects: filling,
// opening again, prints, looking up, going through it.
func BenchmarkNodeMapMillion(b *testing.B) {
	for b.Loop() {
		dir := filepath.Join(b.TempDir(), "journal")
		before := heap()
		s, err := OpenStore(dir, StoreOptions{})
		must(b, err)
		at := time.Now()
		fillMap(b, s.Map('f'), million)
		b.ReportMetric(million/time.Since(at).Seconds(), "puts/s")
		b.ReportMetric(heap()-before, "heap-filled-MiB")
		must(b, s.Close())

		s, err = OpenStore(dir, StoreOptions{})
		must(b, err)
		m, p := s.Map('f'), NewPrints()
		at = time.Now()
		must(b, m.LoadPrints(p))
		b.ReportMetric(time.Since(at).Seconds(), "s-LoadPrints")
		if m.Count() != million || p.Len() != million {
			b.Fatalf("%d records, %d prints", m.Count(), p.Len())
		}
		b.ReportMetric(heap()-before, "heap-loaded-MiB")
		b.ReportMetric(float64(s.Usage())/(1<<20), "disk-MiB")
		at = time.Now()
		const gets = 50_000
		for i := range uint64(gets) {
			k := i * 7919 % million
			if _, ok, err := m.Get(Node{k + 12, uint32(k * 40503)}); !ok || err != nil {
				b.Fatal(ok, err)
			}
		}
		b.ReportMetric(gets/time.Since(at).Seconds(), "random-gets/s")
		runtime.KeepAlive(p)
		must(b, s.Close())
	}
}

func BenchmarkPrintsSet(b *testing.B) {
	p := NewPrints()
	var i uint64
	for b.Loop() {
		p.Set(i%million, Print(i|1))
		i++
	}
}
