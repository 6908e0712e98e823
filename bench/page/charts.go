package page

import (
	"encoding/json"
	"fmt"
	"math"

	"github.com/go-echarts/go-echarts/v2/charts"
	"github.com/go-echarts/go-echarts/v2/opts"

	"github.com/fsmigrate/fsmigrate/bench/result"
)

// colours of the phases, the same in the pictures.
var shades = map[result.Phase]string{result.Before: "#f6f6f6", result.Copying: "#d3e4f7", result.Cutover: "#f9cfc9", result.After: "#fdf1cf"}

const (
	ink  = "#1f3a5f"
	warm = "#c0504d"
)

// scaleOf are the limits of a group's axes: the same for every mover, to be compared.
type axes struct{ until, low, high, done float64 }

func axesOf(cells []*result.Cell) axes {
	a := axes{low: math.Inf(1), high: 10, done: 1}
	var usual []float64
	for _, c := range cells {
		t := c.Timeline
		if t == nil {
			continue
		}
		if n := len(t.Spans); n > 0 {
			a.until = max(a.until, t.Spans[n-1].To)
		}
		for i := range t.Max {
			if t.Max[i] > 0 {
				a.high = max(a.high, t.Max[i])
			}
			if t.P50[i] > 0 {
				a.low = min(a.low, t.P50[i])
			}
			if t.Done[i] > 0 {
				usual = append(usual, t.Done[i])
			}
		}
	}
	// What had waited is done in a burst, which would flatten everything else.
	a.done = math.Ceil(max(a.done, 3*result.Median(usual)))
	a.until = math.Ceil(a.until)
	a.low = math.Pow(10, math.Floor(math.Log10(max(0.01, min(a.low, 1)))))
	a.high = math.Pow(10, math.Ceil(math.Log10(a.high*1.05)))
	return a
}

// points are the slices of a timeline that have a value.
func points(t *result.Timeline, v []float64, low float64) []opts.LineData {
	var list []opts.LineData
	for i, y := range v {
		if y < 0 {
			continue
		}
		list = append(list, opts.LineData{Value: []float64{round(float64(i) * t.SliceS), round(max(y, low))}, Symbol: "none"})
	}
	return list
}

func round(v float64) float64 {
	if v == 0 {
		return 0
	}
	scale := math.Pow(10, 4-math.Ceil(math.Log10(math.Abs(v))))
	return math.Round(v*scale) / scale
}

// shaded marks the phases in a chart.
func shaded(t *result.Timeline, low, high float64) charts.SeriesOpts {
	var areas []opts.MarkAreaNameCoordItem
	for _, s := range t.Spans {
		areas = append(areas, opts.MarkAreaNameCoordItem{
			Name: string(s.Phase), Coordinate0: []any{round(s.From), low}, Coordinate1: []any{round(s.To), high},
			ItemStyle: &opts.ItemStyle{Color: shades[s.Phase]},
		})
	}
	return charts.WithMarkAreaNameCoordItemOpts(areas...)
}

// chart is what the page draws: an element and ECharts' options for it.
type chart struct {
	ID     string
	Height int
	Option string // JSON
}

func option(l *charts.Line) (string, error) {
	l.Validate()
	b, err := json.Marshal(l.JSON())
	if err != nil {
		return "", fmt.Errorf("draw a chart: %w", err)
	}
	return string(b), nil
}

// line is a chart with numeric axes and no animation.
func line(x opts.XAxis, y opts.YAxis) *charts.Line {
	l := charts.NewLine()
	x.Type = "value"
	l.SetGlobalOptions(
		charts.WithAnimation(false),
		charts.WithXAxisOpts(x), charts.WithYAxisOpts(y),
		charts.WithGridOpts(opts.Grid{Left: "64", Right: "24", Top: "34", Bottom: "34"}),
		charts.WithTooltipOpts(opts.Tooltip{Show: opts.Bool(true), Trigger: "axis"}),
		charts.WithLegendOpts(opts.Legend{Show: opts.Bool(true), Right: "24", Top: "0"}),
	)
	return l
}

// timelines are the two charts of a cell: latency and throughput.
func timelines(id string, c *result.Cell, a axes) ([]chart, error) {
	t := c.Timeline
	x := opts.XAxis{Min: 0, Max: round(a.until), Name: "s", NameGap: 6}
	lat := line(x, opts.YAxis{Type: "log", Min: a.low, Max: a.high, Name: "ms, from due to done", NameGap: 10})
	lat.AddSeries("longest", points(t, t.Max, a.low), style(warm, 1.2), shaded(t, a.low, a.high)).
		AddSeries("median", points(t, t.P50, a.low), style(ink, 1.5))
	done := line(x, opts.YAxis{Type: "value", Min: 0, Max: round(a.done), Name: "done a second", NameGap: 10, SplitNumber: 3})
	done.AddSeries("done a second", points(t, t.Done, 0), style(ink, 1.5), shaded(t, 0, a.done))
	var list []chart
	for i, l := range []*charts.Line{lat, done} {
		o, err := option(l)
		if err != nil {
			return nil, err
		}
		list = append(list, chart{fmt.Sprintf("%s-%d", id, i), []int{230, 130}[i], o})
	}
	return list, nil
}

func style(color string, width float32) charts.SeriesOpts {
	return func(s *charts.SingleSeries) {
		charts.WithLineStyleOpts(opts.LineStyle{Color: color, Width: width})(s)
		charts.WithItemStyleOpts(opts.ItemStyle{Color: color})(s)
		charts.WithLineChartOpts(opts.LineChart{ShowSymbol: opts.Bool(false)})(s)
	}
}

var palette = []string{ink, warm, "#6a994e", "#e09f3e", "#7b5ea7"}

// growth are the charts of a scale, one a metric, with the fits as thin lines.
func growth(s *result.Scale) ([]chart, error) {
	var list []chart
	for i, m := range result.Metrics {
		l := line(opts.XAxis{Name: "files", NameGap: 6}, opts.YAxis{Type: "log", Name: m.Name + ", " + m.Unit, NameGap: 10})
		l.XAxisList[0].Type = "log"
		n := 0
		for _, c := range s.Curves {
			if c.Metric != m.Name {
				continue
			}
			var data, fit []opts.LineData
			for j := range c.Files {
				data = append(data, opts.LineData{Value: []float64{c.Files[j], round(c.Values[j])}})
				if c.Fit != nil {
					fit = append(fit, opts.LineData{Value: []float64{c.Files[j], round(c.Fit.At(c.Files[j]))}, Symbol: "none"})
				}
			}
			colour := palette[n%len(palette)]
			l.AddSeries(c.Mover, data, charts.WithLineStyleOpts(opts.LineStyle{Color: colour, Width: 2}), charts.WithItemStyleOpts(opts.ItemStyle{Color: colour}),
				charts.WithLineChartOpts(opts.LineChart{SymbolSize: 8}))
			if len(fit) > 1 {
				l.AddSeries(fmt.Sprintf("%s ~ files^%.2f", c.Mover, c.Fit.Exponent), fit, charts.WithLineStyleOpts(opts.LineStyle{Color: colour, Width: 1, Type: "dashed"}),
					charts.WithItemStyleOpts(opts.ItemStyle{Color: colour}))
			}
			n++
		}
		if n == 0 {
			continue
		}
		o, err := option(l)
		if err != nil {
			return nil, err
		}
		list = append(list, chart{fmt.Sprintf("scale-%d", i), 280, o})
	}
	return list, nil
}
