package result

import (
	"slices"
	"time"

	"github.com/fsmigrate/fsmigrate/bench/oplog"
)

// Moments are when the phases of a run began, and when it ended. A phase that did not
// take place begins with the next.
type Moments struct{ Begin, Copy, Cutover, Ready, End time.Time }

// At is the phase of a moment.
func (m Moments) At(t int64) Phase {
	switch {
	case t < m.Copy.UnixNano():
		return Before
	case t < m.Cutover.UnixNano():
		return Copying
	case t < m.Ready.UnixNano():
		return Cutover
	}
	return After
}

// Spans are the phases in seconds from the beginning, without those that did not take place.
func (m Moments) Spans() []Span {
	at := func(t time.Time) float64 { return t.Sub(m.Begin).Seconds() }
	var list []Span
	for _, s := range []Span{{Before, 0, at(m.Copy)}, {Copying, at(m.Copy), at(m.Cutover)}, {Cutover, at(m.Cutover), at(m.Ready)}, {After, at(m.Ready), at(m.End)}} {
		if s.To > s.From {
			list = append(list, s)
		}
	}
	return list
}

// Stage is what fsmigrate was at, from one moment to another.
type Stage struct {
	Name     string
	From, To time.Time
}

// Measured is what the operations of one run say.
type Measured struct {
	Phases   map[Phase]*Histogram
	Stages   []StageHistogram // of what was due while the mover was copying
	Gap      time.Duration    // the longest with no operation done, from the mover's beginning on
	Backlog  time.Duration    // from when the application was ready, until what had waited was done
	Failed   int64
	OwnBytes int64 // written by the application while the mover was at work
	Timeline *Timeline
}

// StageHistogram is that of a stage.
type StageHistogram struct {
	Stage string
	*Histogram
}

// staged counts what was due in each stage, as far as that lies in copying. A stage that
// was entered several times is one; they are in the order of their first time.
func staged(ops []oplog.Op, m Moments, stages []Stage) []StageHistogram {
	var list []StageHistogram
	for _, s := range stages {
		from, to := max(s.From.UnixNano(), m.Copy.UnixNano()), min(s.To.UnixNano(), m.Cutover.UnixNano())
		if from >= to {
			continue
		}
		i := slices.IndexFunc(list, func(h StageHistogram) bool { return h.Stage == s.Name })
		if i < 0 {
			i, list = len(list), append(list, StageHistogram{s.Name, NewHistogram()})
		}
		done := int64(0)
		for _, o := range ops {
			if o.Due >= from && o.Due < to {
				list[i].Add(o)
			}
			if o.End >= from && o.End < to && !o.Failed && !o.Filled {
				done++
			}
		}
		list[i].Took(time.Duration(to-from), done)
	}
	return list
}

// Measure counts the operations of a run. What was due before its beginning or after its
// end is left out.
func Measure(ops []oplog.Op, m Moments, stages ...Stage) Measured {
	out := Measured{Phases: map[Phase]*Histogram{}}
	for _, p := range Phases {
		out.Phases[p] = NewHistogram()
	}
	done := map[Phase]int64{}
	var ends []int64
	late := m.Ready
	for _, o := range ops {
		if o.Due < m.Begin.UnixNano() || o.Due >= m.End.UnixNano() {
			continue
		}
		out.Phases[m.At(o.Due)].Add(o)
		if o.Failed {
			out.Failed++
			continue
		}
		if o.Filled {
			continue // it was never done
		}
		done[m.At(o.End)]++
		ends = append(ends, o.End)
		if o.End >= m.Copy.UnixNano() && o.End < m.Ready.UnixNano() {
			out.OwnBytes += o.Bytes
		}
		if o.Due < m.Ready.UnixNano() && o.End > late.UnixNano() {
			late = time.Unix(0, o.End)
		}
	}
	out.Backlog = late.Sub(m.Ready)
	for _, s := range m.Spans() {
		out.Phases[s.Phase].Took(time.Duration((s.To-s.From)*1e9), done[s.Phase])
	}
	out.Gap = gap(ends, m)
	out.Stages = staged(ops, m, stages)
	out.Timeline = timeline(ops, m)
	return out
}

// gap is the longest time between two ends from the mover's beginning on. The ends of the
// run count: an application that never does anything again has a gap until then.
func gap(ends []int64, m Moments) time.Duration {
	slices.Sort(ends)
	last, longest := m.Copy.UnixNano(), int64(0)
	for _, e := range ends {
		if e < m.Copy.UnixNano() {
			continue
		}
		if e > m.End.UnixNano() {
			break
		}
		longest = max(longest, e-last)
		last = e
	}
	return time.Duration(max(longest, m.End.UnixNano()-last))
}

// slices of a timeline: so many that a picture shows each, of a length that a person reads.
var lengths = []time.Duration{50 * time.Millisecond, 100 * time.Millisecond, 200 * time.Millisecond, 500 * time.Millisecond,
	time.Second, 2 * time.Second, 5 * time.Second, 10 * time.Second, 30 * time.Second, time.Minute, 10 * time.Minute, time.Hour}

const maxSlices = 600

func timeline(ops []oplog.Op, m Moments) *Timeline {
	whole := m.End.Sub(m.Begin)
	length := lengths[len(lengths)-1]
	for _, l := range lengths {
		if whole/l <= maxSlices {
			length = l
			break
		}
	}
	n := int((whole + length - 1) / length)
	if n <= 0 || n > 10*maxSlices {
		return nil
	}
	ms := make([][]float64, n)
	t := &Timeline{SliceS: length.Seconds(), Spans: m.Spans(), Done: make([]float64, n)}
	slot := func(at int64) int { return int((at - m.Begin.UnixNano()) / int64(length)) }
	for _, o := range ops {
		if o.Due < m.Begin.UnixNano() || o.Due >= m.End.UnixNano() {
			continue
		}
		i := slot(o.Due)
		ms[i] = append(ms[i], float64(o.Latency().Microseconds())/1e3)
		if j := slot(o.End); j < n && !o.Failed && !o.Filled {
			t.Done[j] += 1 / length.Seconds()
		}
	}
	for _, v := range ms {
		if len(v) == 0 {
			t.P50, t.P99, t.Max = append(t.P50, -1), append(t.P99, -1), append(t.Max, -1)
			continue
		}
		slices.Sort(v)
		rank := func(p float64) float64 { return v[min(int(p*float64(len(v))), len(v)-1)] }
		t.P50, t.P99, t.Max = append(t.P50, rank(.5)), append(t.P99, rank(.99)), append(t.Max, v[len(v)-1])
	}
	return t
}
