package page

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/fsmigrate/fsmigrate/bench/result"
	"github.com/fsmigrate/fsmigrate/status"
)

// cell is a number in a table, and its ratios.
type cell struct {
	Text string
	Ours string // times fsmigrate
	Base string // times the baseline
	Bad  bool   // more than fsmigrate
	Good bool   // less
}

// row is a mover.
type row struct {
	Mover string
	Mine  bool
	Base  bool
	Cells []cell
}

// rows are the movers of a group with the metrics of result.Compared.
func rows(group []*result.Cell) []row {
	var list []row
	for _, c := range group {
		r := row{Mover: c.Mover, Mine: c.Mover == result.Ours, Base: c.Mover == result.Baseline}
		for _, m := range result.Compared {
			x, ok := c.Compared[m.Name]
			if !ok {
				r.Cells = append(r.Cells, cell{Text: "–"})
				continue
			}
			e := cell{Text: amount(x.Value, m.Unit)}
			if !r.Mine {
				e.Ours = times(x.ToOurs)
				e.Bad, e.Good = x.ToOurs > 1.1 && !r.Base, x.ToOurs < 0.9 && x.ToOurs > 0 && !r.Base
			}
			if !r.Base {
				e.Base = times(x.ToBaseline)
			}
			r.Cells = append(r.Cells, e)
		}
		list = append(list, r)
	}
	return list
}

func titles() []string {
	var list []string
	for _, m := range result.Compared {
		list = append(list, m.Title)
	}
	return list
}

// Table is the headline table in Markdown, as the README shows it: the first group, with
// the ratios to fsmigrate.
func Table(r *result.Report) string {
	scenario, workload := r.Headline()
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n\n", Headline(r))
	for _, note := range warnings(r) {
		fmt.Fprintf(&b, "**%s**\n\n", note)
	}
	markdown(&b, r.Group(scenario, workload))
	fmt.Fprintf(&b, "\nIn brackets: times fsmigrate. Workload %s; %s, %d cores, %s; %s.\n", workload, r.Machine.CPU, r.Machine.Cores, r.Machine.Kernel, r.At.Format("2006-01-02"))
	return b.String()
}

func markdown(w io.Writer, group []*result.Cell) {
	fmt.Fprintf(w, "| | %s |\n|---|%s\n", strings.Join(titles(), " | "), strings.Repeat("---:|", len(result.Compared)))
	for _, r := range rows(group) {
		line := []string{r.Mover}
		if r.Mine {
			line[0] = "**" + r.Mover + "**"
		}
		for _, c := range r.Cells {
			if c.Ours != "" {
				c.Text += " (" + c.Ours + ")"
			}
			line = append(line, c.Text)
		}
		fmt.Fprintf(w, "| %s |\n", strings.Join(line, " | "))
	}
}

// percentiles is a table of the latencies of a group, by phase.
func percentiles(group []*result.Cell) [][]string {
	var list [][]string
	for _, c := range group {
		for _, p := range result.Phases {
			l := c.Latency[p]
			if l == nil {
				continue
			}
			list = append(list, latencies(c.Mover, string(p), *l))
			if p != result.Copying {
				continue
			}
			for _, s := range c.Stages {
				line := latencies(c.Mover, "… "+s.Stage, s.Latency)
				for i, x := range map[int]float64{5: s.P99Times, 6: s.P999Times} {
					if x > 0 {
						line[i] += " (" + times(x) + ")"
					}
				}
				list = append(list, line)
			}
		}
	}
	return list
}

// latencies are a line of that table.
func latencies(mover, phase string, l result.Latency) []string {
	failed := ""
	if l.Failed > 0 {
		failed = status.Count(l.Failed)
	}
	return []string{mover, phase, status.Count(l.Count), amount(l.P50, "ms"), amount(l.P90, "ms"), amount(l.P99, "ms"),
		amount(l.P999, "ms"), amount(l.P9999, "ms"), amount(l.Max, "ms"), fmt.Sprintf("%.1f", l.PerSec), failed}
}

func staged(group []*result.Cell) bool {
	return slices.ContainsFunc(group, func(c *result.Cell) bool { return len(c.Stages) > 0 })
}

const stagesNote = "Below copying: what fsmigrate was at, in brackets times the baseline's while copying, where there were operations enough."

var percentileTitles = []string{"mover", "phase", "operations", "p50", "p90", "p99", "p99.9", "p99.99", "longest", "done a second", "failed"}

// Document is the report as Markdown.
func Document(w io.Writer, r *result.Report, pictures []string) error {
	var b strings.Builder
	fmt.Fprintf(&b, "# What the application felt\n\n%s\n\nThe whole report, with timelines to look into: [index.html](index.html), which needs no network; the numbers: [bench.json](bench.json).\n", Headline(r))
	for _, note := range warnings(r) {
		fmt.Fprintf(&b, "\n**%s**\n", note)
	}
	for _, p := range pictures {
		if strings.HasPrefix(p, "timeline") {
			fmt.Fprintf(&b, "\n![latency and throughput, phases shaded](%s)\n", p)
		}
	}
	for _, g := range groups(r) {
		fmt.Fprintf(&b, "\n## %s\n\n%s\n\n", g.title, g.says)
		markdown(&b, g.cells)
		fmt.Fprintf(&b, "\nIn brackets: times fsmigrate.\n\n| %s |\n|---|---|%s\n", strings.Join(percentileTitles, " | "), strings.Repeat("---:|", len(percentileTitles)-2))
		for _, line := range percentiles(g.cells) {
			fmt.Fprintf(&b, "| %s |\n", strings.Join(line, " | "))
		}
		if staged(g.cells) {
			fmt.Fprintf(&b, "\n%s\n", stagesNote)
		}
	}
	if r.Scale != nil {
		fmt.Fprintf(&b, "\n## Growth with the number of files\n\n")
		for _, p := range pictures {
			if strings.HasPrefix(p, "scale") {
				fmt.Fprintf(&b, "![growth](%s)\n\n", p)
			}
		}
		scaleTable(&b, r.Scale)
	}
	fmt.Fprintf(&b, "\n## Not run\n\n")
	if len(r.NotRun) == 0 {
		fmt.Fprintf(&b, "- nothing was left out\n")
	}
	for _, line := range omitted(r) {
		fmt.Fprintf(&b, "- %s\n", line)
	}
	fmt.Fprintf(&b, "\n## How it was measured\n\n")
	for _, line := range method(r) {
		fmt.Fprintf(&b, "- %s\n", line)
	}
	fmt.Fprintf(&b, "\n## The machine\n\n| | |\n|---|---|\n")
	for _, l := range machine(r) {
		fmt.Fprintf(&b, "| %s | %s |\n", l[0], strings.ReplaceAll(l[1], "|", "/"))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func scaleTable(w io.Writer, s *result.Scale) {
	fmt.Fprintf(w, "| | mover | %s | fit |\n|---|---|%s---|\n", strings.Join(sizes(s), " | "), strings.Repeat("---:|", len(sizes(s))))
	for _, line := range scaleRows(s) {
		fmt.Fprintf(w, "| %s |\n", strings.Join(line, " | "))
	}
}

// group is what is compared.
type group struct {
	title, says string
	workload    string
	cells       []*result.Cell
}

// groups are all of a report, the headline's first.
func groups(r *result.Report) []group {
	var list []group
	hs, hw := r.Headline()
	for _, s := range r.Scenarios {
		for _, w := range r.Workloads {
			cells := r.Group(s.Name, w.Name)
			if len(cells) == 0 {
				continue
			}
			g := group{fmt.Sprintf("%s, %s", s.Name, w.Name), fmt.Sprintf("%s: %s. %s: %s, %g a second.", upper(s.Name), s.Says, upper(w.Name), w.Says, w.Rate), w.Name, cells}
			if w.Rate == 0 {
				g.says = fmt.Sprintf("%s: %s. %s: %s.", upper(s.Name), s.Says, upper(w.Name), w.Says)
			}
			if s.Name == hs && w.Name == hw {
				list = append([]group{g}, list...)
			} else {
				list = append(list, g)
			}
		}
	}
	return list
}

// sizes are the titles of a scale's columns.
func sizes(s *result.Scale) []string {
	var list []string
	for _, n := range scaleFiles(s) {
		list = append(list, status.Count(int64(n)))
	}
	return list
}

func scaleFiles(s *result.Scale) []int {
	var list []int
	for _, p := range s.Points {
		if len(list) == 0 || list[len(list)-1] != p.Files {
			list = append(list, p.Files)
		}
	}
	return list
}

// scaleRows are the curves as lines of a table.
func scaleRows(s *result.Scale) [][]string {
	var list [][]string
	for _, c := range s.Curves {
		unit := ""
		for _, m := range result.Metrics {
			if m.Name == c.Metric {
				unit = m.Unit
			}
		}
		line := []string{c.Metric, c.Mover}
		for _, n := range scaleFiles(s) {
			text := "–"
			for i, f := range c.Files {
				if int(f) == n {
					text = amount(c.Values[i], unit)
				}
			}
			line = append(line, text)
		}
		list = append(list, append(line, fitted(c)))
	}
	return list
}

// Terminal prints what a person wants to see at once, and where the rest is.
func Terminal(w io.Writer, r *result.Report, files []string) {
	for _, g := range groups(r) {
		fmt.Fprintf(w, "\n%s\n", g.title)
		t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		fmt.Fprintf(t, "\t%s\n", strings.Join(titles(), "\t"))
		for _, r := range rows(g.cells) {
			line := []string{r.Mover}
			for _, c := range r.Cells {
				if c.Ours != "" {
					c.Text += " (" + c.Ours + ")"
				}
				line = append(line, c.Text)
			}
			fmt.Fprintln(t, strings.Join(line, "\t"))
		}
		_ = t.Flush() // the caller's writer is a buffer
	}
	if r.Scale != nil {
		fmt.Fprintf(w, "\ngrowth with the number of files\n")
		t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		fmt.Fprintf(t, "\t\t%s\n", strings.Join(sizes(r.Scale), "\t"))
		for _, line := range scaleRows(r.Scale) {
			fmt.Fprintln(t, strings.Join(line, "\t"))
		}
		_ = t.Flush()
	}
	for _, line := range omitted(r) {
		fmt.Fprintf(w, "\n%s", line)
	}
	fmt.Fprintf(w, "\n%s\n(in brackets: times fsmigrate)\n", Headline(r))
	for _, note := range warnings(r) {
		fmt.Fprintln(w, note)
	}
	if len(files) > 0 {
		fmt.Fprintf(w, "\n%s\n", files[0])
	}
}
