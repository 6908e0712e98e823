package shadow

import (
	"sync"
	"testing"

	"pgregory.net/rapid"
)

func TestPrintsAgainstAMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p, want := NewPrints(), map[uint64]Print{}
		ino := rapid.OneOf(rapid.Uint64Range(0, 300), rapid.Uint64())
		for range rapid.IntRange(1, 200).Draw(t, "ops") {
			i := ino.Draw(t, "ino")
			if rapid.Bool().Draw(t, "set") {
				v := Print(rapid.Uint64Range(0, 3).Draw(t, "print"))
				p.Set(i, v)
				if want[i] = v; v == 0 {
					delete(want, i)
				}
			} else {
				p.Delete(i)
				delete(want, i)
			}
			if p.Get(i) != want[i] || p.Len() != len(want) {
				t.Fatalf("ino %d: %d, want %d; %d of %d", i, p.Get(i), want[i], p.Len(), len(want))
			}
		}
		p.Range(func(i uint64, v Print) bool {
			if want[i] != v {
				t.Fatalf("range: ino %d: %d, want %d", i, v, want[i])
			}
			delete(want, i)
			return true
		})
		if len(want) != 0 {
			t.Fatalf("range missed %v", want)
		}
	})
}

func TestPrintsConcurrently(t *testing.T) {
	p := NewPrints()
	var wg sync.WaitGroup
	for g := range uint64(4) {
		wg.Go(func() {
			for i := range uint64(5000) {
				p.Set(i*4+g, 1)
				p.Get(i)
			}
		})
	}
	wg.Wait()
	if p.Len() != 20000 {
		t.Errorf("%d", p.Len())
	}
	p.Clear()
	if p.Len() != 0 {
		t.Error("not cleared")
	}
}

// Every field counts, and the values are on disk: they must not change.
func TestPrintOf(t *testing.T) {
	base := PrintOf(1, 2, 3, 4, 5, 6)
	for i, p := range []Print{
		PrintOf(9, 2, 3, 4, 5, 6), PrintOf(1, 9, 3, 4, 5, 6), PrintOf(1, 2, 9, 4, 5, 6),
		PrintOf(1, 2, 3, 9, 5, 6), PrintOf(1, 2, 3, 4, 9, 6), PrintOf(1, 2, 3, 4, 5, 9),
	} {
		if p == base || p == 0 {
			t.Errorf("field %d does not count", i)
		}
	}
	if base != 0xf74c00c85ed88f54 {
		t.Errorf("PrintOf changed: %#x", uint64(base))
	}
}
