package page

import (
	"bytes"
	"compress/gzip"
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"slices"
	"strings"
	"sync"

	"github.com/fsmigrate/fsmigrate/bench/result"
	"github.com/fsmigrate/fsmigrate/status"
)

//go:embed page.html
var source string

//go:embed assets/echarts.common.min.js.gz
var packed []byte

var layout = template.Must(template.New("page").Parse(source))

// echarts is the script that draws, which goes into the page.
var echarts = sync.OnceValues(func() (string, error) {
	z, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return "", err
	}
	b, err := io.ReadAll(z)
	// The page has it in a script element, which this would end.
	return strings.ReplaceAll(string(b), "</script", `<\/script`), err
})

// panel is the charts of one mover.
type panel struct {
	Mover  string
	Says   string
	Charts []chart
}

// section is a group on the page.
type section struct {
	Title, Says string
	Titles      []string
	Rows        []row
	Panels      []panel
	Latency     [][]string
	Staged      bool
	Open        bool
}

// HTML writes the page.
func HTML(w io.Writer, r *result.Report) error {
	script, err := echarts()
	if err != nil {
		return fmt.Errorf("unpack the chart library: %w", err)
	}
	var sections []section
	for i, g := range groups(r) {
		s := section{Title: g.title, Says: g.says, Titles: titles(), Rows: rows(g.cells), Latency: percentiles(g.cells), Staged: staged(g.cells), Open: i == 0}
		a := axesOf(g.cells)
		for j, c := range g.cells {
			if c.Timeline == nil {
				continue
			}
			charts, err := timelines(fmt.Sprintf("t%d-%d", i, j), c, a)
			if err != nil {
				return err
			}
			s.Panels = append(s.Panels, panel{c.Mover, says(c), charts})
		}
		sections = append(sections, s)
	}
	data := map[string]any{
		"Headline": Headline(r), "Tiles": tiles(r), "Bars": bars(r), "Sections": sections, "Percentiles": percentileTitles, "Omitted": omitted(r),
		"Method": method(r), "Machine": machine(r), "Script": template.JS(script), "Warnings": warnings(r), "StagesNote": stagesNote,
	}
	if r.Scale != nil {
		charts, err := growth(r.Scale)
		if err != nil {
			return err
		}
		data["Growth"], data["GrowthRows"], data["Sizes"] = charts, scaleRows(r.Scale), sizes(r.Scale)
	}
	return layout.Execute(w, data)
}

// says is what a timeline shows, in a line.
func says(c *result.Cell) string {
	m := c.Median
	text := fmt.Sprintf("stopped %s, longest gap %s", amount(m.DownS, "s"), amount(m.GapS, "s"))
	if c.Mover != result.Baseline {
		text += ", in total " + amount(m.TotalS, "s")
	}
	if m.RefusedS > 0 {
		text += fmt.Sprintf("; the volume itself refused writes for %s", amount(m.RefusedS, "s"))
	}
	if m.Verified > 0 {
		text += fmt.Sprintf("; %s objects compared and equal", status.Count(m.Verified))
	}
	return text
}

// tile is a number that is seen first.
type tile struct{ Value, Name, Note string }

// tiles of the headline group: ours, beside the best of the others.
func tiles(r *result.Report) []tile {
	scenario, workload := r.Headline()
	ours := r.Find(scenario, workload, result.Ours)
	if ours == nil {
		return nil
	}
	var list []tile
	for _, name := range []string{"longest_wait", "stopped", "p99_copying", "total"} {
		m := result.Compared[slices.IndexFunc(result.Compared, func(m result.Metric) bool { return m.Name == name })]
		v := m.Of(ours)
		if v <= 0 {
			continue
		}
		t := tile{Value: amount(v, m.Unit), Name: m.Title}
		best := 0.0
		for _, c := range r.Group(scenario, workload) {
			if x := m.Of(c); c.Mover != result.Ours && c.Mover != result.Baseline && x > 0 && (best == 0 || x < best) {
				best, t.Note = x, fmt.Sprintf("best of the others: %s (%s)", amount(x, m.Unit), c.Mover)
			}
		}
		list = append(list, t)
	}
	return list
}

// bar is a mover's length in a comparison.
type bar struct {
	Mover, Text string
	Percent     float64 // of the longest
	Mine        bool
}

// bars are how long the service was stopped in the headline group, on a linear scale.
func bars(r *result.Report) []bar {
	scenario, workload := r.Headline()
	var list []bar
	longest := 0.0
	group := r.Group(scenario, workload)
	for _, c := range group {
		longest = max(longest, c.Median.DownS)
	}
	for _, c := range group {
		if v := c.Median.DownS; v > 0 {
			name := c.Mover
			if name == result.Baseline {
				name += " (only restarted)"
			}
			list = append(list, bar{name, amount(v, "s"), 100 * v / longest, c.Mover == result.Ours})
		}
	}
	return list
}
