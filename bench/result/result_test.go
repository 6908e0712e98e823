package result

import (
	"math"
	"testing"
	"time"

	"github.com/fsmigrate/fsmigrate/bench/oplog"
)

func near(a, b float64) bool { return math.Abs(a-b) <= 1e-3*math.Abs(b)+1e-9 }

// A thousand latencies of 1 to 1000 ms have the percentiles that everybody can count.
func TestPercentiles(t *testing.T) {
	h, other := NewHistogram(), NewHistogram()
	if h.Latency() != nil {
		t.Error("nothing has a distribution")
	}
	for i := range int64(1000) {
		to := h
		if i%2 == 0 {
			to = other
		}
		to.Add(oplog.Op{Due: 1, End: 1 + (i+1)*int64(time.Millisecond), Failed: i < 3, Filled: i == 5})
	}
	h.Took(10*time.Second, 400)
	other.Took(10*time.Second, 600)
	h.Merge(other)
	l := h.Latency()
	for _, c := range []struct{ got, want float64 }{{l.P50, 500}, {l.P90, 900}, {l.P99, 990}, {l.P999, 999}, {l.P9999, 1000}, {l.Max, 1000}, {l.PerSec, 50}} {
		if !near(c.got, c.want) {
			t.Errorf("got %v, want %v", c.got, c.want)
		}
	}
	if l.Count != 1000 || l.Failed != 3 || l.Filled != 1 {
		t.Errorf("%+v", l)
	}
}

func TestPowerLaw(t *testing.T) {
	x := []float64{1e3, 1e4, 1e5, 1e6}
	for _, want := range []Fit{{Exponent: 1, Factor: 3e-5}, {Exponent: 0, Factor: 0.4}, {Exponent: 0.5, Factor: 2}} {
		var y []float64
		for _, v := range x {
			y = append(y, want.At(v))
		}
		got := PowerLaw(x, y)
		if !near(got.Exponent, want.Exponent) || !near(got.Factor, want.Factor) || !near(got.R2, 1) || got.Points != 4 {
			t.Errorf("%+v, want %+v", got, want)
		}
	}
	// By hand: (0,0), (1,2), (2,1) in logarithms have slope 1/2 and R² 1/4.
	e := math.E
	got := PowerLaw([]float64{1, e, e * e}, []float64{1, e * e, e})
	if !near(got.Exponent, .5) || !near(got.R2, .25) || !near(got.Factor, math.Exp(.5)) {
		t.Errorf("%+v", got)
	}
	if PowerLaw([]float64{5, 5}, []float64{1, 2}) != nil || PowerLaw([]float64{1, 10}, []float64{0, 2}) != nil || PowerLaw(nil, nil) != nil {
		t.Error("one size has no exponent")
	}
}

func at(s float64) time.Time {
	return time.Unix(1000, 0).Add(time.Duration(math.Round(s*1e3)) * time.Millisecond)
}

// An application at ten a second that is stopped from 4 to 6 s, with a schedule: what was
// due in the stop waits, and belongs to the cutover.
func stopped() ([]oplog.Op, Moments) {
	var ops []oplog.Op
	for i := range 100 {
		due := at(float64(i) / 10)
		end := due.Add(time.Millisecond)
		if i >= 40 && i < 60 {
			end = at(6.01)
		}
		ops = append(ops, oplog.Op{Due: due.UnixNano(), End: end.UnixNano(), Bytes: 10})
	}
	return ops, Moments{at(0), at(1), at(4), at(6), at(10)}
}

func TestMeasure(t *testing.T) {
	ops, m := stopped()
	got := Measure(ops, m)
	for p, want := range map[Phase]int64{Before: 10, Copying: 30, Cutover: 20, After: 40} {
		if n := got.Phases[p].Latency().Count; n != want {
			t.Errorf("%s: %d operations, want %d", p, n, want)
		}
	}
	if l := got.Phases[Cutover].Latency(); !near(l.Max, 2010) || l.PerSec != 0 {
		t.Errorf("cutover: %+v", l)
	}
	if l := got.Phases[After].Latency(); !near(l.PerSec, 15) {
		t.Errorf("after: %v a second: what had waited is done in it", l.PerSec)
	}
	if !near(got.Gap.Seconds(), 6.001-3.901) || !near(got.Backlog.Seconds(), 0.01) || got.OwnBytes != 300 {
		t.Errorf("gap %v, backlog %v, bytes %d", got.Gap, got.Backlog, got.OwnBytes)
	}
	tl := got.Timeline
	if tl.SliceS != 0.05 || len(tl.Max) != 200 || !near(tl.Max[80], 2010) || tl.Max[81] != -1 || !near(tl.Done[120], 420) {
		t.Errorf("slices of %v s, %d; at 4 s %v, done at 6 s %v", tl.SliceS, len(tl.Max), tl.Max[80:83], tl.Done[120])
	}
}

// One that never comes back has a gap until the end.
func TestGapUntilTheEnd(t *testing.T) {
	ops, m := stopped()
	if got := Measure(ops[:40], m); !near(got.Gap.Seconds(), 10-3.901) {
		t.Errorf("gap %v", got.Gap)
	}
	if got := Measure(nil, m); got.Gap != 9*time.Second || got.Phases[After].Latency() != nil {
		t.Errorf("gap %v", got.Gap)
	}
}

// What was filled in counts as waiting and not as done.
func TestFilledIsNotDone(t *testing.T) {
	_, m := stopped()
	ops := oplog.Backfill([]oplog.Op{
		{Due: at(3.9).UnixNano(), End: at(3.9).UnixNano()}, {Due: at(6.05).UnixNano(), End: at(6.1).UnixNano()}}, 100*time.Millisecond)
	got := Measure(ops, m)
	l := got.Phases[Cutover].Latency()
	if l.Count != 20 || l.Filled != 20 || !near(l.Max, 2100) || !near(got.Gap.Seconds(), 3.9) || got.Phases[After].Latency().PerSec != 0.25 {
		t.Errorf("%+v, gap %v", l, got.Gap)
	}
}

// Stages are what was due in them, as far as they lie in copying; one that was entered
// twice is one.
func TestStages(t *testing.T) {
	ops, m := stopped()
	got := Measure(ops, m, Stage{"prepare", at(0), at(1.5)}, Stage{"copy", at(1.5), at(2)}, Stage{"hold", at(2), at(2.5)}, Stage{"copy", at(2.5), at(3.5)},
		Stage{"cutover", at(4), at(9)}).Stages
	want := map[string]int64{"prepare": 5, "copy": 15, "hold": 5}
	if len(got) != len(want) || got[0].Stage != "prepare" || got[1].Stage != "copy" {
		t.Fatalf("%+v", got)
	}
	for _, s := range got {
		if l := s.Latency(); l.Count != want[s.Stage] || !near(l.PerSec, 10) || !near(l.Max, 1) {
			t.Errorf("%s: %+v", s.Stage, l)
		}
	}
}

// A stage is compared with the baseline's copying where both had operations enough.
func TestStagesBesideTheBaseline(t *testing.T) {
	base := &Cell{Scenario: "s", Workload: "w", Mover: Baseline, Latency: map[Phase]*Latency{Copying: {Count: 6000, P99: 2, P999: 10}}}
	ours := &Cell{Scenario: "s", Workload: "w", Mover: Ours, Stages: []StageLatency{
		{Stage: "copy", Latency: Latency{Count: 5000, P99: 3, P999: 25}}, {Stage: "verify", Latency: Latency{Count: 4999, P99: 4, P999: 50}}, {Stage: "hold", Latency: Latency{Count: 499, P99: 4}}}}
	r := Report{Cells: []*Cell{base, ours}}
	r.Compare()
	for i, want := range [][2]float64{{1.5, 2.5}, {2, 0}, {0, 0}} {
		if s := ours.Stages[i]; !near(s.P99Times, want[0]) || !near(s.P999Times, want[1]) {
			t.Errorf("%+v, want %v", s, want)
		}
	}
}

func TestOthers(t *testing.T) {
	r := Report{Cells: []*Cell{{Runs: []Run{{Others: .1}, {Others: .2}}}, {Runs: []Run{{Others: .6}}}}}
	if b := r.Others(); !near(b, .3) || (&Report{}).Others() != 0 {
		t.Errorf("%v", b)
	}
}

func TestSum(t *testing.T) {
	ops, m := stopped()
	runs := []Run{{Totals: Totals{GapS: 1, PeakRSS: 100}}, {Totals: Totals{GapS: 5, PeakRSS: 300}}, {Totals: Totals{GapS: 2, PeakRSS: 200}}}
	measured := []Measured{Measure(nil, m), Measure(nil, m), Measure(ops, m)}
	c := &Cell{}
	Sum(c, runs, measured)
	if c.Median.GapS != 2 || c.Median.PeakRSS != 200 || c.Timeline != measured[2].Timeline || c.All.Count != 90 || c.Latency[Before].Count != 10 {
		t.Errorf("%+v", c)
	}
}

func TestHeadlineHasTheMostPeers(t *testing.T) {
	r := Report{}
	for _, n := range [][2]string{{"a", Ours}, {"b", Ours}, {"b", Baseline}, {"c", "rsync"}} {
		r.Cells = append(r.Cells, &Cell{Scenario: "s", Workload: n[0], Mover: n[1]})
	}
	if s, w := r.Headline(); s != "s" || w != "b" {
		t.Errorf("%s %s", s, w)
	}
	r.Cells = append(r.Cells, &Cell{Scenario: "s", Workload: "b", Mover: "rsync"}, &Cell{Scenario: "t", Workload: "b", Mover: Ours},
		&Cell{Scenario: "t", Workload: "b", Mover: Baseline}, &Cell{Scenario: "t", Workload: "b", Mover: "cp"}, &Cell{Scenario: "t", Workload: "b", Mover: "fpsync"})
	if s, w := r.Headline(); s != "s" || w != "b" {
		t.Errorf("%s %s: the first is the one that people look at", s, w)
	}
}

func TestCompare(t *testing.T) {
	cell := func(mover string, max, down, cpu float64) *Cell {
		return &Cell{Scenario: "s", Workload: "w", Mover: mover, All: &Latency{Max: max}, Median: Totals{DownS: down, CPUS: cpu}}
	}
	r := Report{Cells: []*Cell{cell(Baseline, 10, .25, 0), cell(Ours, 40, .5, 2), cell("rsync", 400, 5, 1), {Scenario: "other", Workload: "w", Mover: "rsync", Median: Totals{DownS: 3}}}}
	r.Compare()
	for _, c := range []struct {
		cell int
		name string
		want Ratio
	}{
		{0, "longest_wait", Ratio{10, 1, .25}}, {1, "longest_wait", Ratio{40, 4, 1}}, {2, "longest_wait", Ratio{400, 40, 10}},
		{2, "stopped", Ratio{5, 20, 10}}, {2, "cpu", Ratio{1, 0, .5}}, {3, "stopped", Ratio{3, 0, 0}},
	} {
		if got := r.Cells[c.cell].Compared[c.name]; got != c.want {
			t.Errorf("%s of %d: %+v, want %+v", c.name, c.cell, got, c.want)
		}
	}
	for _, name := range []string{"memory", "p99_copying", "total"} {
		if got, ok := r.Cells[0].Compared[name]; ok {
			t.Errorf("the baseline has a %s of %+v, which nobody measured", name, got)
		}
	}
}

func TestCurves(t *testing.T) {
	s := &Scale{}
	for _, n := range []int{1000, 10000} {
		s.Points = append(s.Points, Point{n, Ours, Totals{DownS: 0.5, CopyS: float64(n) / 1000, PeakRSS: 64 << 20}}, Point{n, "rsync", Totals{DownS: float64(n) / 1e4, CopyS: 1}})
	}
	s.Draw()
	if len(s.Curves) != 5 { // no plan times, and no memory of rsync
		t.Fatalf("%d curves: %+v", len(s.Curves), s.Curves)
	}
	if c := s.Curves[0]; c.Metric != "pause" || c.Mover != Ours || !near(c.Fit.Exponent, 0) {
		t.Errorf("%+v", c)
	}
	if c := s.Curves[1]; c.Mover != "rsync" || !near(c.Fit.Exponent, 1) {
		t.Errorf("%+v", c)
	}
}
