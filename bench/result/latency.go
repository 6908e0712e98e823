package result

import (
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/fsmigrate/fsmigrate/bench/oplog"
)

// Histogram collects the latencies of a phase, over any number of runs.
type Histogram struct {
	h                       *hdrhistogram.Histogram
	failed, filled, dropped int64
	done                    int64
	seconds                 float64
}

// NewHistogram is an empty one.
func NewHistogram() *Histogram {
	return &Histogram{h: hdrhistogram.New(1, int64(24*time.Hour/time.Microsecond), 3)}
}

// Add takes in an operation.
func (h *Histogram) Add(o oplog.Op) {
	if o.Failed {
		h.failed++
	}
	if o.Filled {
		h.filled++
	}
	if h.h.RecordValue(max(1, o.Latency().Microseconds())) != nil {
		h.dropped++
	}
}

// Took adds a phase's length and the operations that ended in it.
func (h *Histogram) Took(d time.Duration, done int64) {
	h.seconds += d.Seconds()
	h.done += done
}

// Merge adds another one.
func (h *Histogram) Merge(o *Histogram) {
	h.dropped += o.dropped + h.h.Merge(o.h)
	h.failed, h.filled, h.done, h.seconds = h.failed+o.failed, h.filled+o.filled, h.done+o.done, h.seconds+o.seconds
}

// Latency is the distribution so far; nil where nothing was due.
func (h *Histogram) Latency() *Latency {
	if h.h.TotalCount() == 0 {
		return nil
	}
	ms := func(p float64) float64 { return float64(h.h.ValueAtPercentile(p)) / 1e3 }
	l := &Latency{
		Count: h.h.TotalCount(), Failed: h.failed, Filled: h.filled,
		P50: ms(50), P90: ms(90), P99: ms(99), P999: ms(99.9), P9999: ms(99.99), Max: float64(h.h.Max()) / 1e3,
	}
	if h.seconds > 0 {
		l.PerSec = float64(h.done) / h.seconds
	}
	return l
}
