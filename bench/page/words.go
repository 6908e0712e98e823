package page

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/fsmigrate/fsmigrate/bench/result"
	"github.com/fsmigrate/fsmigrate/status"
)

// amount is a value of a metric as a person reads it.
func amount(v float64, unit string) string {
	switch {
	case v <= 0:
		return "–"
	case unit == "bytes":
		return status.Bytes(int64(v))
	case unit == "MiB":
		return fmt.Sprintf("%.0f MiB", v)
	case unit == "ms":
		return seconds(v / 1e3)
	}
	return seconds(v)
}

// seconds with two or three digits, in ms below a second.
func seconds(s float64) string {
	switch {
	case s < 0.01:
		return fmt.Sprintf("%.1f ms", s*1e3)
	case s < 1:
		return fmt.Sprintf("%.0f ms", s*1e3)
	case s < 10:
		return fmt.Sprintf("%.2f s", s)
	case s < 600:
		return fmt.Sprintf("%.1f s", s)
	}
	return status.Span(time.Duration(s * 1e9).Round(time.Second))
}

// times is a ratio: "3.1 ×", "0.42 ×", "120 ×".
func times(x float64) string {
	switch {
	case x <= 0:
		return ""
	case x < 0.995:
		return fmt.Sprintf("%.2f ×", x)
	case x < 9.95:
		return fmt.Sprintf("%.1f ×", x)
	}
	return fmt.Sprintf("%.0f ×", x)
}

// Headline says in a few sentences what the application of the first group felt.
func Headline(r *result.Report) string {
	scenario, workload := r.Headline()
	ours := r.Find(scenario, workload, result.Ours)
	if ours == nil || ours.All == nil {
		return "fsmigrate was not measured."
	}
	var b strings.Builder
	s := r.Scenarios[slices.IndexFunc(r.Scenarios, func(s result.Scenario) bool { return s.Name == scenario })]
	fmt.Fprintf(&b, "While %s became %s, the slowest operation of %q waited %s with fsmigrate, and the service was stopped for %s.",
		tree(s), formatName(s.To), workload, amount(ours.All.Max, "ms"), amount(ours.Median.DownS, "s"))
	var peers []string
	for _, c := range r.Group(scenario, workload) {
		if c.Mover == result.Ours || c.Mover == result.Baseline || c.All == nil {
			continue
		}
		peers = append(peers, fmt.Sprintf("with %s it waited %s (%s as long)", c.Mover, amount(c.All.Max, "ms"), times(c.All.Max/ours.All.Max)))
	}
	if len(peers) > 0 {
		fmt.Fprintf(&b, " %s.", upper(strings.Join(peers, ", ")))
	}
	if none := r.Find(scenario, workload, result.Baseline); none != nil && none.All != nil {
		fmt.Fprintf(&b, " Only restarting it, with nothing moved, costs %s.", amount(none.All.Max, "ms"))
	}
	return b.String()
}

func upper(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

func tree(s result.Scenario) string {
	text := fmt.Sprintf("a volume with %s files", status.Count(int64(s.Files)))
	if s.Bytes > 0 {
		text += " (" + status.Bytes(s.Bytes) + ")"
	}
	return text
}

// formatName is a format as people write it.
func formatName(spec string) string {
	name, _, _ := strings.Cut(spec, ":")
	if name == "xfs" {
		return "XFS"
	}
	return name
}

// machine describes what it ran on, in lines of a name and a value.
func machine(r *result.Report) [][2]string {
	m := r.Machine
	var tools []string
	for _, name := range slices.Sorted(maps.Keys(m.Tools)) {
		tools = append(tools, m.Tools[name])
	}
	list := [][2]string{
		{"measured", r.At.Format("2006-01-02 15:04 UTC") + fmt.Sprintf(", in %s", status.Span(time.Duration(r.TookS*1e9).Round(time.Second)))},
		{"fsmigrate", r.Product + ", policy " + r.Settings.Policy},
		{"processor", fmt.Sprintf("%s, %d cores", m.CPU, m.Cores)},
		{"memory", status.Bytes(m.MemoryB)},
		{"system", m.System + ", " + m.Kernel},
		{"disk", m.Disk},
		{"volumes", m.Volumes},
		{"load before", fmt.Sprintf("%.1f", m.LoadThen)},
		{"tools", strings.Join(tools, "; ")},
	}
	return slices.DeleteFunc(list, func(l [2]string) bool { return l[1] == "" })
}

// method says how it was measured: what a sceptical reader asks.
func method(r *result.Report) []string {
	s := r.Settings
	filled := []string{}
	for _, w := range r.Workloads {
		if w.Filled {
			filled = append(filled, w.Name)
		}
	}
	list := []string{
		"Latency is counted from when an operation was due, at a fixed rate, until it was done; the schedule goes on while the application is stopped, and what was due then is done afterwards. So nothing is left out that would have been slow (no coordinated omission), and an operation belongs to the phase in which it was due.",
		fmt.Sprintf("Phases: before (%s, the application alone), copying (the mover at work, mkfs included), cutover (from when the application is told to stop until it says that it is ready again), after (%s on the new volume, and until what had waited is done). fsmigrate goes on following in the other direction then; the others do not. Between caught up and cutover fsmigrate was left in Hold for %s, which is in the latencies of copying and in no duration.", seconds(s.BeforeS), seconds(s.AfterS), seconds(s.HoldS)),
		"Longest wait, longest gap (no operation done) and the timelines are from the mover's beginning to the end. Stopped is the cutover phase. The baseline \"none\" moves nothing and restarts the application once.",
		"Cache: the source is filled, unmounted, the machine's caches dropped, and mounted again before each run; then the application runs alone for the time said. What it touched is warm, the rest is cold, for every mover alike.",
		"Every run has a fresh source and a blank target. The peers' target is made with the mkfs options that fsmigrate uses.",
		"Processor time and memory are the mover's: all of its processes, memory at the moment when they had the most together. Bytes written are from the counters of the devices, from the mover's beginning until the application is ready again, so the application's own writes, and fsmigrate's state on a volume of its own, are in them.",
		fmt.Sprintf("%s; each number is the median of them, percentiles are over all of them together. The movers take turns, and each round begins with another one.", runs(s.Runs)),
		"fsmigrate compares every object before it lets a cutover happen, and keeps a way back afterwards. The others do neither.",
	}
	if len(filled) > 0 {
		list = append(list, fmt.Sprintf("%s cannot be restarted on a running schedule: operations that they did not begin while they were stopped or waited are filled in at their rate, each done when the next real one was.", strings.Join(filled, ", ")))
	}
	return append(append(warnings(r), list...), r.Notes...)
}

// warnings are what a reader must know before any number: that it was a quick run, that the
// machine had other work.
func warnings(r *result.Report) []string {
	var list []string
	if r.Quick {
		list = append(list, quickNote)
	}
	if x := r.Others(); x > tooBusy {
		list = append(list, fmt.Sprintf("Other programs used %.0f %% of the processors meanwhile: under such noise the numbers, and their ratios, say little.", 100*x))
	}
	return list
}

// tooBusy is the share of the processors in use by others from which on it is said.
const tooBusy = 0.03

const quickNote = "This was a quick run, with few files and short phases: it shows that the benchmark works, and not how fast anything is."

func runs(n int) string {
	if n == 1 {
		return "One run of each combination"
	}
	return fmt.Sprintf("%d runs of each combination", n)
}

// omitted are the lines of what was not run.
func omitted(r *result.Report) []string {
	var list []string
	for _, n := range r.NotRun {
		var what []string
		for _, s := range []string{n.Mover, n.Workload, n.Scenario} {
			if s != "" {
				what = append(what, s)
			}
		}
		verb := "not run"
		if n.Failed {
			verb = "FAILED"
		}
		list = append(list, fmt.Sprintf("%s: %s: %s", strings.Join(what, ", "), verb, n.Why))
	}
	return list
}

// fitted says how a curve grows.
func fitted(c result.Curve) string {
	if c.Fit == nil {
		return ""
	}
	e := c.Fit.Exponent
	if math.Abs(e) < 0.005 {
		e = 0
	}
	if c.Fit.Points < 3 {
		return fmt.Sprintf("files^%.2f between two sizes, which is no law", e)
	}
	return fmt.Sprintf("grows with files^%.2f (R² %.2f, %d sizes)", e, c.Fit.R2, c.Fit.Points)
}
