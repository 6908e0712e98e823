package result

import (
	"math"
	"reflect"
	"slices"
)

// Median of values; the mean of the middle two of an even number. 0 of none.
func Median(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	v = slices.Sorted(slices.Values(v))
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}

// medians is each number of the runs by itself.
func medians(runs []Run) Totals {
	var out Totals
	to := reflect.ValueOf(&out).Elem()
	for i := range to.NumField() {
		var v []float64
		for _, r := range runs {
			f := reflect.ValueOf(r.Totals).Field(i)
			if f.CanInt() {
				v = append(v, float64(f.Int()))
			} else {
				v = append(v, f.Float())
			}
		}
		if m := Median(v); to.Field(i).CanInt() {
			to.Field(i).SetInt(int64(m))
		} else {
			to.Field(i).SetFloat(m)
		}
	}
	return out
}

// Sum makes a cell of what its runs measured.
func Sum(c *Cell, runs []Run, measured []Measured) {
	c.Runs, c.Median, c.Latency = runs, medians(runs), map[Phase]*Latency{}
	all := NewHistogram()
	for _, p := range Phases {
		h := NewHistogram()
		for _, m := range measured {
			h.Merge(m.Phases[p])
		}
		if l := h.Latency(); l != nil {
			c.Latency[p] = l
		}
		if p != Before {
			all.Merge(h)
		}
	}
	c.All = all.Latency()
	c.Stages = stagesOf(measured)
	nearest := -1
	for i := range runs {
		if nearest < 0 || math.Abs(runs[i].GapS-c.Median.GapS) < math.Abs(runs[nearest].GapS-c.Median.GapS) {
			nearest = i
		}
	}
	if nearest >= 0 {
		c.Timeline = measured[nearest].Timeline
	}
}

// stagesOf are the stages of all runs together.
func stagesOf(measured []Measured) []StageLatency {
	var sums []StageHistogram
	for _, m := range measured {
		for _, s := range m.Stages {
			i := slices.IndexFunc(sums, func(h StageHistogram) bool { return h.Stage == s.Stage })
			if i < 0 {
				i, sums = len(sums), append(sums, StageHistogram{s.Stage, NewHistogram()})
			}
			sums[i].Merge(s.Histogram)
		}
	}
	var list []StageLatency
	for _, s := range sums {
		if l := s.Latency(); l != nil {
			list = append(list, StageLatency{Stage: s.Stage, Latency: *l})
		}
	}
	return list
}

// Fit is y = Factor · x^Exponent, by least squares of the logarithms.
type Fit struct {
	Exponent float64 `json:"exponent"`
	Factor   float64 `json:"factor"`
	R2       float64 `json:"r2"` // share of the variance that it explains, 0 to 1
	Points   int     `json:"points"`
}

// PowerLaw fits the points of which both numbers are positive. Nil with fewer than two
// different x.
func PowerLaw(x, y []float64) *Fit {
	var lx, ly []float64
	for i := range min(len(x), len(y)) {
		if x[i] > 0 && y[i] > 0 {
			lx, ly = append(lx, math.Log(x[i])), append(ly, math.Log(y[i]))
		}
	}
	n := float64(len(lx))
	var mx, my float64
	for i := range lx {
		mx, my = mx+lx[i]/n, my+ly[i]/n
	}
	var sxx, sxy, syy float64
	for i := range lx {
		sxx += (lx[i] - mx) * (lx[i] - mx)
		sxy += (lx[i] - mx) * (ly[i] - my)
		syy += (ly[i] - my) * (ly[i] - my)
	}
	if sxx < 1e-9 {
		return nil
	}
	f := &Fit{Exponent: sxy / sxx, R2: 1, Points: len(lx)}
	f.Factor = math.Exp(my - f.Exponent*mx)
	if syy > 1e-12 {
		f.R2 = sxy * sxy / (sxx * syy)
	}
	return f
}

// At is what the fit says of x.
func (f Fit) At(x float64) float64 { return f.Factor * math.Pow(x, f.Exponent) }

// Scale is how cost grows with the number of files.
type Scale struct {
	Workload string  `json:"workload"`
	Points   []Point `json:"points"`
	Curves   []Curve `json:"curves"`
}

// Point is a mover at a size.
type Point struct {
	Files int    `json:"files"`
	Mover string `json:"mover"`
	Totals
}

// Curve is one number of one mover over the sizes. Values that are 0 were not measured.
type Curve struct {
	Metric string    `json:"metric"`
	Mover  string    `json:"mover"`
	Files  []float64 `json:"files"`
	Values []float64 `json:"values"`
	Fit    *Fit      `json:"fit,omitempty"`
}

// Metrics are the curves of a scale, with their units.
var Metrics = []struct {
	Name, Unit string
	Of         func(Totals) float64
}{
	{"pause", "s", func(t Totals) float64 { return t.DownS }},
	{"memory", "MiB", func(t Totals) float64 { return float64(t.PeakRSS) / (1 << 20) }},
	{"copy time", "s", func(t Totals) float64 { return t.CopyS }},
	{"plan time", "s", func(t Totals) float64 { return t.PlanS }},
}

// Draw makes the curves of the points.
func (s *Scale) Draw() {
	var movers []string
	for _, p := range s.Points {
		if !slices.Contains(movers, p.Mover) {
			movers = append(movers, p.Mover)
		}
	}
	s.Curves = nil
	for _, m := range Metrics {
		for _, mover := range movers {
			c := Curve{Metric: m.Name, Mover: mover}
			for _, p := range s.Points {
				if v := m.Of(p.Totals); p.Mover == mover && v > 0 {
					c.Files, c.Values = append(c.Files, float64(p.Files)), append(c.Values, v)
				}
			}
			if len(c.Files) > 0 {
				c.Fit = PowerLaw(c.Files, c.Values)
				s.Curves = append(s.Curves, c)
			}
		}
	}
}
