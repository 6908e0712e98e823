package demo

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/fsmigrate/fsmigrate/migrate"
	"github.com/fsmigrate/fsmigrate/status"
)

// timeline is what the pictures show: the latency of every write against when it was
// due, and the phases. Times are seconds from the beginning of the cutover.
type timeline struct {
	Writes []point `json:"writes"`
	Bands  []band  `json:"bands"`
	Title  string  `json:"title"`
	Facts  []fact  `json:"facts"`
	// Zoom are the seconds around the cutover and around the rollback.
	Zoom [][2]float64 `json:"zoom"`
}

type point struct {
	At float64 `json:"t"` // seconds
	MS float64 `json:"ms"`
}

// band is a phase.
type band struct {
	Phase migrate.Phase `json:"phase"`
	From  float64       `json:"from"`
	To    float64       `json:"to"`
	Truth string        `json:"truth"` // the format that was in use
}

type fact struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// What the pictures show beside the phases of the migration.
const (
	before  migrate.Phase = "before"    // the application has the machine for itself
	reading migrate.Phase = "read back" // the demo stopped it, to count
)

// span is a time that the demo itself stopped the application.
type span struct{ from, to time.Time }

func newTimeline(writes []write, phases []migrate.Step, stops []span, d status.Demo) *timeline {
	t := &timeline{Title: "SQLite on a volume that becomes XFS and goes back"}
	if len(writes) == 0 || len(phases) == 0 {
		return t
	}
	var zero, end time.Time
	for _, s := range phases {
		if s.Phase == migrate.Cutover && zero.IsZero() {
			zero = s.At
		}
	}
	if zero.IsZero() {
		zero = phases[0].At
	}
	end = writes[len(writes)-1].end
	at := func(x time.Time) float64 { return x.Sub(zero).Seconds() }
	for _, w := range writes {
		t.Writes = append(t.Writes, point{at(w.due), float64(w.latency()) / float64(time.Millisecond)})
	}
	t.Bands = append(t.Bands, band{before, at(writes[0].due), at(phases[0].At), "ext4"})
	for i, s := range phases {
		to := end
		if i+1 < len(phases) {
			to = phases[i+1].At
		}
		truth := "ext4"
		if s.Phase == migrate.Reverse || s.Phase == migrate.Rollback {
			truth = "xfs"
		}
		if to.After(s.At) {
			t.Bands = append(t.Bands, band{s.Phase, at(s.At), at(to), truth})
		}
	}
	for _, s := range stops {
		t.Bands = append(t.Bands, band{reading, at(s.from), at(s.to), ""})
	}
	t.Bands = cut(t.Bands)
	for _, b := range t.Bands {
		if b.Phase == migrate.Cutover || b.Phase == migrate.Rollback {
			t.Zoom = append(t.Zoom, [2]float64{b.From - 2, b.To + 2})
		}
	}
	t.Facts = []fact{
		{"objects", status.Count(d.Report.Objects)},
		{"verified", status.Count(d.Report.Verified)},
		{"different", status.Count(d.Report.Differences)},
		{"pause", milli(d.Report.PauseMS)},
		{"application down", milli(d.Report.GapMS)},
		{"writes acknowledged", status.Count(d.Writes)},
		{"writes lost", status.Count(d.Lost)},
	}
	return t
}

// cut gives each moment to one band, a later one of the list before an earlier, and
// puts them in order.
func cut(bands []band) []band {
	var out []band
	for i, b := range bands {
		pieces := []band{b}
		for _, over := range bands[i+1:] {
			var rest []band
			for _, p := range pieces {
				left, right := p, p
				left.To, right.From = min(p.To, over.From), max(p.From, over.To)
				if over.From >= p.To || over.To <= p.From {
					rest = append(rest, p)
					continue
				}
				for _, q := range []band{left, right} {
					if q.To > q.From {
						rest = append(rest, q)
					}
				}
			}
			pieces = rest
		}
		out = append(out, pieces...)
	}
	slices.SortFunc(out, func(a, b band) int { return cmp.Compare(a.From, b.From) })
	return out
}

// row is the latency in one phase.
type row struct {
	Name              string
	N                 int
	P50, P99, Longest float64 // ms
}

// rows has a row for what a person tells apart.
func (t *timeline) rows() []row {
	groups := []struct {
		name   string
		phases []migrate.Phase
	}{
		{"before the migration", []migrate.Phase{before}},
		{"copy, catch-up, verify", []migrate.Phase{migrate.Prepare, migrate.Copy, migrate.CatchUp, migrate.Verify}},
		{"hold", []migrate.Phase{migrate.Hold}},
		{"cutover", []migrate.Phase{migrate.Cutover}},
		{"on the new volume", []migrate.Phase{migrate.Reverse}},
		{"stopped to be read back", []migrate.Phase{reading}},
		{"rollback", []migrate.Phase{migrate.Rollback}},
		{"on the old one again", []migrate.Phase{migrate.RolledBack}},
	}
	var list []row
	for _, g := range groups {
		var ms []float64
		for _, b := range t.Bands {
			if !slices.Contains(g.phases, b.Phase) {
				continue
			}
			for _, w := range t.Writes {
				if w.At >= b.From && w.At < b.To {
					ms = append(ms, w.MS)
				}
			}
		}
		if len(ms) == 0 {
			continue
		}
		slices.Sort(ms)
		q := func(p float64) float64 { return ms[min(int(p*float64(len(ms))), len(ms)-1)] }
		list = append(list, row{g.name, len(ms), q(.5), q(.99), ms[len(ms)-1]})
	}
	return list
}

func (t *timeline) table() []string {
	lines := []string{fmt.Sprintf("%-24s %8s %9s %9s %9s", "", "writes", "median", "p99", "longest")}
	for _, r := range t.rows() {
		lines = append(lines, fmt.Sprintf("%-24s %8d %9s %9s %9s", r.Name, r.N, milli(r.P50), milli(r.P99), milli(r.Longest)))
	}
	return lines
}
