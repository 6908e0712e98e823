package bench

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestRatiosAreOfMedians(t *testing.T) {
	of := func(name string, seconds ...float64) series {
		s := series{Name: name}
		for _, v := range seconds {
			s.Runs = append(s.Runs, run{Seconds: v})
		}
		return s
	}
	r := &result{Name: "n", Base: "rsync", Floor: 1.5, Goal: 2.4, Series: []series{of("rsync", 9, 3, 3), of(ours, 1, 2, 3, 0.5)}}
	if got := r.ratio(ours); got != 2 {
		t.Errorf("ratio %v, want 2: the median of four is between the middle ones", got)
	}
	if got := r.ratio("nobody"); got != 0 {
		t.Errorf("ratio of nobody: %v", got)
	}
	dir := t.TempDir()
	rep := newReport()
	rep.Results = []*result{r}
	if err := rep.write(dir); err != nil {
		t.Fatal(err)
	}
	md, err := os.ReadFile(filepath.Join(dir, "bench.md"))
	if err != nil || !strings.Contains(string(md), "2.00 times as fast as rsync: the floor holds") {
		t.Errorf("%s %v", md, err)
	}
}

func TestSmallFilesAreTheSameEveryTime(t *testing.T) {
	var total [2]int64
	for i := range total {
		dir := t.TempDir()
		n, err := SmallFiles(t.Context(), dir, 500)
		if err != nil {
			t.Fatal(err)
		}
		total[i] = n
		if err := touch(dir, 500, 100, 1); err != nil {
			t.Fatal(err)
		}
	}
	if mean := total[0] / 500; total[0] != total[1] || mean < 3500 || mean > 4700 {
		t.Errorf("%v bytes in 500 files", total)
	}
}
