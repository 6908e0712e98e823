package result

import (
	"cmp"
	"slices"
	"time"
)

// Version of the JSON. It grows when a field changes its meaning.
const Version = 1

// Report is everything of one invocation.
type Report struct {
	Version   int        `json:"version"`
	At        time.Time  `json:"at"`
	TookS     float64    `json:"took_seconds"`
	Quick     bool       `json:"quick,omitempty"` // too small to judge by
	Product   string     `json:"fsmigrate"`       // its version
	Machine   Machine    `json:"machine"`
	Settings  Settings   `json:"settings"`
	Scenarios []Scenario `json:"scenarios"`
	Workloads []Workload `json:"workloads"`
	Cells     []*Cell    `json:"cells"`
	NotRun    []NotRun   `json:"not_run"`
	Scale     *Scale     `json:"scale,omitempty"`
	Notes     []string   `json:"notes"`
}

// Machine is what it ran on.
type Machine struct {
	CPU      string            `json:"cpu"`
	Cores    int               `json:"cores"`
	MemoryB  int64             `json:"memory_bytes"`
	Kernel   string            `json:"kernel"`
	System   string            `json:"system"`
	Disk     string            `json:"disk"` // below the volumes
	Volumes  string            `json:"volumes"`
	Tools    map[string]string `json:"tools"` // name to version
	LoadThen float64           `json:"load_at_the_beginning"`
}

// Settings are the options that decide over the numbers.
type Settings struct {
	Runs    int     `json:"runs"`
	BeforeS float64 `json:"before_seconds"`
	AfterS  float64 `json:"after_seconds"`
	HoldS   float64 `json:"hold_seconds"` // how long fsmigrate was left in Hold
	Policy  string  `json:"policy"`       // of fsmigrate
}

// Scenario is a volume and what becomes of it.
type Scenario struct {
	Name  string `json:"name"`
	From  string `json:"from"` // format
	To    string `json:"to"`
	Files int    `json:"files"`
	Bytes int64  `json:"bytes"`
	Says  string `json:"says"`
}

// Workload is an application.
type Workload struct {
	Name   string  `json:"name"`
	Rate   float64 `json:"rate"` // operations due a second; 0: not known
	Says   string  `json:"says"`
	Filled bool    `json:"filled,omitempty"` // has no schedule of its own: gaps are filled in
}

// NotRun is what has no numbers, and why.
type NotRun struct {
	Scenario string `json:"scenario,omitempty"`
	Workload string `json:"workload,omitempty"`
	Mover    string `json:"mover,omitempty"`
	Why      string `json:"why"`
	Failed   bool   `json:"failed,omitempty"` // it was tried, and ended with an error
}

// Phase of a run, from the application's side.
type Phase string

// The phases, in their order.
const (
	Before  Phase = "before"  // the application alone
	Copying Phase = "copying" // the mover at work, the application too
	Cutover Phase = "cutover" // the stop is asked for, until the application is ready again
	After   Phase = "after"   // on the new volume
)

// Phases lists them.
var Phases = []Phase{Before, Copying, Cutover, After}

// Cell is a mover under a workload on a scenario: all of its runs.
type Cell struct {
	Scenario string             `json:"scenario"`
	Workload string             `json:"workload"`
	Mover    string             `json:"mover"`
	Latency  map[Phase]*Latency `json:"latency"`          // over all runs
	All      *Latency           `json:"all"`              // over copying, cutover and after: what a migration costs
	Median   Totals             `json:"median"`           // of each number by itself
	Stages   []StageLatency     `json:"stages,omitempty"` // of copying, as fsmigrate says what it is at
	Compared map[string]Ratio   `json:"compared"`         // by the names of the metrics
	Runs     []Run              `json:"runs"`
	Timeline *Timeline          `json:"timeline,omitempty"` // of the run whose gap is nearest the median
}

// Latency is the distribution of latencies, in milliseconds.
type Latency struct {
	Count  int64   `json:"count"`
	Failed int64   `json:"failed,omitempty"`
	Filled int64   `json:"filled,omitempty"`
	P50    float64 `json:"p50_ms"`
	P90    float64 `json:"p90_ms"`
	P99    float64 `json:"p99_ms"`
	P999   float64 `json:"p99_9_ms"`
	P9999  float64 `json:"p99_99_ms"`
	Max    float64 `json:"max_ms"`
	PerSec float64 `json:"per_second"` // operations done in the phase, a second of it
}

// StageLatency is the distribution in one stage of copying, beside that of the baseline in
// the whole of its copying. 0: no baseline, or too few operations for that percentile.
type StageLatency struct {
	Stage string `json:"stage"`
	Latency
	P99Times  float64 `json:"p99_times_baseline,omitempty"`
	P999Times float64 `json:"p99_9_times_baseline,omitempty"`
}

// Totals are the numbers of a run.
type Totals struct {
	CopyS     float64 `json:"copy_seconds"`               // the mover began → ready to cut over, and told to
	DownS     float64 `json:"down_seconds"`               // the stop was asked for → the application ready again
	RefusedS  float64 `json:"writes_refused_seconds"`     // the volume took no write; a part of DownS
	GapS      float64 `json:"longest_gap_seconds"`        // no operation was done
	TotalS    float64 `json:"total_seconds"`              // the mover began → the application ready again
	CatchUpS  float64 `json:"backlog_seconds"`            // after that, until what had waited was done
	CPUS      float64 `json:"cpu_seconds"`                // of the mover
	PeakRSS   int64   `json:"peak_rss_bytes"`             // of the mover's processes together
	Written   int64   `json:"written_bytes"`              // on all devices, the application's writes too
	OwnBytes  int64   `json:"written_by_app_bytes"`       // as the application counts, while the mover was at work
	ReadBytes int64   `json:"read_bytes"`                 // from all devices
	PlanS     float64 `json:"plan_seconds,omitempty"`     // looking, before it began
	Objects   int64   `json:"objects,omitempty"`          // that it says it has moved
	Verified  int64   `json:"verified_objects,omitempty"` // of them, proven equal
}

// Run is one measurement.
type Run struct {
	Totals
	Round   int     `json:"round"`
	Load    float64 `json:"load"`   // of the machine when it began
	Others  float64 `json:"others"` // share of the processors that other programs used meanwhile, 0 to 1
	Spans   []Span  `json:"phases"`
	Failed  int64   `json:"failed_operations"`
	Dropped int64   `json:"dropped_operations,omitempty"` // longer than a histogram holds
}

// Span is a phase in time, in seconds from the beginning of the run.
type Span struct {
	Phase Phase   `json:"phase"`
	From  float64 `json:"from"`
	To    float64 `json:"to"`
}

// Timeline is a run in slices of equal length, by when operations were due; Done is by
// when they ended.
type Timeline struct {
	SliceS float64   `json:"slice_seconds"`
	Spans  []Span    `json:"phases"`
	P50    []float64 `json:"p50_ms"` // -1: nothing was due
	P99    []float64 `json:"p99_ms"`
	Max    []float64 `json:"max_ms"`
	Done   []float64 `json:"done_per_second"`
}

// Find is the cell of a combination, or nil.
func (r *Report) Find(scenario, workload, mover string) *Cell {
	for _, c := range r.Cells {
		if c.Scenario == scenario && c.Workload == workload && c.Mover == mover {
			return c
		}
	}
	return nil
}

// Group are the cells of a scenario under a workload.
func (r *Report) Group(scenario, workload string) []*Cell {
	var list []*Cell
	for _, c := range r.Cells {
		if c.Scenario == scenario && c.Workload == workload {
			list = append(list, c)
		}
	}
	return list
}

// Names of movers that reports know by name.
const (
	Ours     = "fsmigrate watch"
	Baseline = "none"
)

// Headline is the group that the page begins with: the first one with our own mover, the
// baseline and a peer, or else the one with our own and the most others.
func (r *Report) Headline() (scenario, workload string) {
	best := 0
	for _, c := range r.Cells {
		if c.Mover != Ours {
			continue
		}
		n := len(r.Group(c.Scenario, c.Workload))
		if n > 2 && r.Find(c.Scenario, c.Workload, Baseline) != nil {
			return c.Scenario, c.Workload
		}
		if n > best {
			best, scenario, workload = n, c.Scenario, c.Workload
		}
	}
	return scenario, workload
}

// Others is the share of the processors that other programs used beside the benchmark, 0
// to 1: the mean over all runs.
func (r *Report) Others() float64 {
	sum, n := 0.0, 0
	for _, c := range r.Cells {
		for _, run := range c.Runs {
			sum, n = sum+run.Others, n+1
		}
	}
	return sum / float64(max(n, 1))
}

// Failures are what was tried and failed.
func (r *Report) Failures() []NotRun {
	return slices.DeleteFunc(slices.Clone(r.NotRun), func(n NotRun) bool { return !n.Failed })
}

// Sort puts cells into the order of the scenarios, workloads and movers given.
func (r *Report) Sort(movers []string) {
	scenario := func(c *Cell) int {
		return slices.IndexFunc(r.Scenarios, func(s Scenario) bool { return s.Name == c.Scenario })
	}
	workload := func(c *Cell) int {
		return slices.IndexFunc(r.Workloads, func(w Workload) bool { return w.Name == c.Workload })
	}
	slices.SortStableFunc(r.Cells, func(a, b *Cell) int {
		return cmp.Or(cmp.Compare(scenario(a), scenario(b)), cmp.Compare(workload(a), workload(b)),
			cmp.Compare(slices.Index(movers, a.Mover), slices.Index(movers, b.Mover)))
	})
}
