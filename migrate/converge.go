package migrate

import (
	"context"
	"errors"
	"time"
)

// stallWindow and stallRatio: a backlog that is not below 96 % of its minimum of the
// last 40 s does not shrink.
const (
	stallWindow = 40 * time.Second
	stallRatio  = 0.96
	// unitWeight stands for the cost of a unit without data in a backlog counted in bytes.
	unitWeight = 4096
)

// slope watches how the backlog moves. Its zero value has seen nothing.
type slope struct {
	samples   []sample // of the last 40 s
	since     time.Time
	last      Backlog
	diverging bool
}

type sample struct {
	at        time.Time
	remaining float64
	predicted time.Duration
}

func remaining(b Backlog) float64 { return float64(b.Bytes) + unitWeight*float64(b.Units) }

// sample takes one observation and reports whether the backlog fell below its
// minimum of the window.
func (s *slope) sample(now time.Time, b Backlog) (falling bool) {
	if s.since.IsZero() || now.Before(s.since) {
		s.since = now
	}
	for len(s.samples) > 0 && (now.Sub(s.samples[0].at) > stallWindow || now.Before(s.samples[0].at)) {
		s.samples = s.samples[1:]
	}
	low, any := s.minimum()
	r := remaining(b)
	s.samples = append(s.samples, sample{now, r, b.PredictedPause})
	s.last = b
	return any && r < stallRatio*low || b.Units == 0
}

func (s *slope) minimum() (low float64, any bool) {
	for i, x := range s.samples {
		if i == 0 || x.remaining < low {
			low = x.remaining
		}
	}
	return low, len(s.samples) > 0
}

// converged: nothing is left, or the last two looks were both within the budget.
func (s *slope) converged(budget time.Duration) bool {
	n := len(s.samples)
	if n == 0 {
		return false
	}
	within := func(x sample) bool { return x.predicted <= budget }
	if s.last.Units == 0 && within(s.samples[n-1]) {
		return true
	}
	return n >= 2 && within(s.samples[n-1]) && within(s.samples[n-2])
}

// stalled: the window is full and what remains is not below 96 % of its minimum before.
func (s *slope) stalled() bool {
	n := len(s.samples)
	if n < 2 || s.samples[n-1].at.Sub(s.since) < stallWindow || s.last.Units == 0 {
		return false
	}
	before := slope{samples: s.samples[:n-1]}
	low, _ := before.minimum()
	return s.samples[n-1].remaining >= stallRatio*low
}

// announced begins a new window: a stall is told once in 40 s.
func (s *slope) announced(now time.Time) { s.since = now }

// trend is rising, falling or steady, over the samples of the window.
func (s *slope) trend() string {
	n := len(s.samples)
	if n < 2 {
		return "steady"
	}
	first, last := s.samples[0].remaining, s.samples[n-1].remaining
	switch {
	case last < stallRatio*first:
		return "falling"
	case last*stallRatio > first:
		return "rising"
	}
	return "steady"
}

// eta is when the backlog is empty at these rates; 0: not known, or never.
func (s *slope) eta() time.Duration {
	net := s.last.CopyRate - s.last.DirtyRate
	if s.last.Units == 0 || net <= 0 {
		return 0
	}
	return time.Duration(remaining(s.last) / net * float64(time.Second))
}

func isErrNoMirror(err error) bool { return errors.Is(err, ErrNoMirror) }

func isYieldOrEnd(ctx context.Context, err error) bool {
	return errors.Is(err, errYield) || ctx.Err() != nil
}
