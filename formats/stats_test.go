package formats_test

import (
	"reflect"
	"testing"

	"github.com/fsmigrate/fsmigrate/formats"
)

func TestClass(t *testing.T) {
	for n, want := range map[int64]int{0: 0, 1: 1, 2: 2, 3: 3, 4: 3, 5: 4, 2048: 12, 2049: 13, 4096: 13, 4097: 14, 1 << 62: 47} {
		got := formats.Class(n)
		if got != want {
			t.Errorf("%d is in class %d, want %d", n, got, want)
		}
		if got < 47 && (n > formats.ClassMax(got) || got > 0 && n <= formats.ClassMax(got-1)) {
			t.Errorf("%d is not in (%d, %d]", n, formats.ClassMax(got-1), formats.ClassMax(got))
		}
	}
}

// A tally by name, a survey by directory and two halves added say the same.
func TestStatsAgree(t *testing.T) {
	var whole, left, right, tallied formats.TreeStats
	tally := formats.DirTally{}
	for i := range int64(400) {
		o := formats.Sample{Mode: 0o100644, Size: i * i, Allocated: (i*i + 4095) &^ 4095, Nlink: 1, Mtime: i, Atime: -i, Xattrs: int(i % 3), XattrBytes: int(i%3) * 50}
		if i%8 == 0 {
			o = formats.Sample{Mode: 0o040755, Nlink: 2, Mtime: i}
		}
		half := &left
		if i%2 == 1 {
			half = &right
		}
		for _, s := range []*formats.TreeStats{&whole, half, &tallied} {
			s.Observe(o)
		}
		tally.Name(uint64(i%10), int(i%50))
	}
	for d := range int64(50) { // ten with names, as above; the others empty
		entries, names := int64(0), int64(0)
		for i := d; i < 400 && d < 10; i += 10 {
			entries, names = entries+1, names+i%50
		}
		whole.ObserveDir(entries, names)
		left.ObserveDir(entries, names)
	}
	tally.Flush(&tallied)
	left.Add(&right)
	if !reflect.DeepEqual(whole, left) {
		t.Errorf("halves:\n%+v\nwhole:\n%+v", left, whole)
	}
	if !reflect.DeepEqual(whole, tallied) {
		t.Errorf("tallied:\n%+v\nwhole:\n%+v", tallied, whole)
	}
}
