package result

// Metric is a number by which movers are compared. Less is better.
type Metric struct {
	Name  string // in the JSON
	Title string // for people
	Unit  string // ms, s, bytes
	Of    func(c *Cell) float64
	// Felt by the application also without a mover: only these have a ratio to the baseline.
	Felt bool
}

// Compared are the metrics of the tables, the most telling first.
var Compared = []Metric{
	{"longest_wait", "longest wait", "ms", func(c *Cell) float64 { return c.All.max() }, true},
	{"stopped", "stopped", "s", func(c *Cell) float64 { return c.Median.DownS }, true},
	{"longest_gap", "longest gap", "s", func(c *Cell) float64 { return c.Median.GapS }, true},
	{"p99_copying", "p99 while copying", "ms", func(c *Cell) float64 { return c.Latency[Copying].p99() }, true},
	{"total", "in total", "s", func(c *Cell) float64 { return c.Median.TotalS }, false},
	{"cpu", "processor time", "s", func(c *Cell) float64 { return c.Median.CPUS }, false},
	{"memory", "memory", "bytes", func(c *Cell) float64 { return float64(c.Median.PeakRSS) }, false},
	{"written", "written", "bytes", func(c *Cell) float64 { return float64(c.Median.Written) }, false},
}

func (l *Latency) max() float64 {
	if l == nil {
		return 0
	}
	return l.Max
}

// telling is how many operations a phase must have had for its p99 to say something: a
// mover that only prepares while the application runs has none to speak of.
const telling = 20

func (l *Latency) p99() float64 {
	if l == nil || l.Count < telling {
		return 0
	}
	return l.P99
}

// Ratio is a metric of a cell beside those of the baseline and of fsmigrate, of the same
// scenario and workload. 0: that one was not measured.
type Ratio struct {
	Value      float64 `json:"value"`
	ToBaseline float64 `json:"times_baseline,omitempty"`
	ToOurs     float64 `json:"times_fsmigrate,omitempty"`
}

// Compare fills in the ratios of all cells.
func (r *Report) Compare() {
	for _, c := range r.Cells {
		c.Compared = map[string]Ratio{}
		base, ours := r.Find(c.Scenario, c.Workload, Baseline), r.Find(c.Scenario, c.Workload, Ours)
		for _, m := range Compared {
			v := m.Of(c)
			if v <= 0 || c.Mover == Baseline && !m.Felt {
				continue
			}
			x := Ratio{Value: v}
			if base != nil && m.Felt && m.Of(base) > 0 {
				x.ToBaseline = v / m.Of(base)
			}
			if ours != nil && m.Of(ours) > 0 {
				x.ToOurs = v / m.Of(ours)
			}
			c.Compared[m.Name] = x
		}
		if base != nil {
			c.beside(base.Latency[Copying])
		}
	}
}

// beside compares the stages with the baseline while the others copied. A percentile says
// something from a few operations above it on.
func (c *Cell) beside(base *Latency) {
	for i := range c.Stages {
		s := &c.Stages[i]
		s.P99Times, s.P999Times = 0, 0
		if base == nil {
			continue
		}
		least := min(s.Count, base.Count)
		if least >= 5*100 && base.P99 > 0 {
			s.P99Times = s.P99 / base.P99
		}
		if least >= 5*1000 && base.P999 > 0 {
			s.P999Times = s.P999 / base.P999
		}
	}
}
