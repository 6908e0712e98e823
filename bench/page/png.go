package page

import (
	"fmt"
	"image/color"
	"io"
	"math"
	"strconv"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgimg"

	"github.com/fsmigrate/fsmigrate/bench/result"
)

// drawing is a picture that a report has.
type drawing struct {
	name string
	draw func(io.Writer) error
}

// drawings are the timelines of the headline group, and the growth.
func drawings(r *result.Report) []drawing {
	var list []drawing
	scenario, workload := r.Headline()
	if cells := withTimeline(r.Group(scenario, workload)); len(cells) > 0 {
		list = append(list, drawing{"timeline.png", func(w io.Writer) error { return drawTimelines(w, cells) }})
	}
	if r.Scale != nil && len(r.Scale.Curves) > 0 {
		list = append(list, drawing{"scale.png", func(w io.Writer) error { return drawScale(w, r.Scale) }})
	}
	return list
}

func withTimeline(cells []*result.Cell) []*result.Cell {
	var list []*result.Cell
	for _, c := range cells {
		if c.Timeline != nil {
			list = append(list, c)
		}
	}
	return list
}

// rgb is a colour of the page.
func rgb(s string) color.RGBA {
	n, _ := strconv.ParseUint(s[1:], 16, 32) // constants of this package
	return color.RGBA{uint8(n >> 16), uint8(n >> 8), uint8(n), 0xff}
}

const (
	width = 32 * vg.Centimeter
	each  = 5.4 * vg.Centimeter // height of a mover's timeline
)

// drawTimelines draws the latencies of the movers below each other, on the same axes.
func drawTimelines(w io.Writer, cells []*result.Cell) error {
	height := each * vg.Length(len(cells))
	img := vgimg.NewWith(vgimg.UseWH(width, height), vgimg.UseDPI(100), vgimg.UseBackgroundColor(color.White))
	all := draw.New(img)
	a := axesOf(cells)
	for i, c := range cells {
		p, err := timelinePlot(c, a, i == len(cells)-1)
		if err != nil {
			return err
		}
		top := vg.Length(i) * each
		p.Draw(draw.Crop(all, 0.3*vg.Centimeter, -0.3*vg.Centimeter, height-top-each+0.1*vg.Centimeter, -top-0.1*vg.Centimeter))
	}
	_, err := vgimg.PngCanvas{Canvas: img}.WriteTo(w)
	return err
}

func newPlot(title string) *plot.Plot {
	p := plot.New()
	p.Title.Text = title
	p.Title.TextStyle.Font.Size = 12
	p.Title.Padding = 1 * vg.Millimeter
	for _, f := range []*font.Font{&p.Title.TextStyle.Font, &p.X.Label.TextStyle.Font, &p.Y.Label.TextStyle.Font, &p.X.Tick.Label.Font, &p.Y.Tick.Label.Font, &p.Legend.TextStyle.Font} {
		f.Variant = "Sans"
	}
	return p
}

func timelinePlot(c *result.Cell, a axes, last bool) (*plot.Plot, error) {
	p := newPlot(c.Mover + ": " + says(c))
	t := c.Timeline
	if last {
		p.X.Label.Text = "seconds (red: the longest of a slice, blue: the median)"
	}
	p.Y.Label.Text = "from due to done"
	p.X.Min, p.X.Max, p.Y.Min, p.Y.Max = 0, a.until, a.low, a.high
	p.Y.Scale, p.Y.Tick.Marker = plot.LogScale{}, plot.TickerFunc(func(low, high float64) []plot.Tick { return decades(low, high, "ms") })
	names := plotter.XYLabels{}
	for _, s := range t.Spans {
		area, err := plotter.NewPolygon(plotter.XYs{{X: s.From, Y: a.low}, {X: s.To, Y: a.low}, {X: s.To, Y: a.high}, {X: s.From, Y: a.high}})
		if err != nil {
			return nil, err
		}
		area.Color, area.LineStyle.Width = rgb(shades[s.Phase]), 0
		p.Add(area)
		if s.To-s.From > a.until*0.05 {
			names.XYs, names.Labels = append(names.XYs, plotter.XY{X: s.From + a.until*0.004, Y: a.high / 1.15}), append(names.Labels, string(s.Phase))
		}
	}
	grid := plotter.NewGrid()
	grid.Vertical.Width, grid.Horizontal.Color = 0, color.RGBA{0, 0, 0, 0x22}
	p.Add(grid)
	for _, l := range []struct {
		v     []float64
		color string
		width float64
	}{{t.Max, warm, 1}, {t.P50, ink, 1.3}} {
		var xy plotter.XYs
		for i, y := range l.v {
			if y >= 0 {
				xy = append(xy, plotter.XY{X: float64(i) * t.SliceS, Y: max(y, a.low)})
			}
		}
		if len(xy) == 0 {
			continue
		}
		line, err := plotter.NewLine(xy)
		if err != nil {
			return nil, err
		}
		line.Color, line.Width = rgb(l.color), vg.Points(l.width)
		p.Add(line)
	}
	if len(names.XYs) > 0 {
		labels, err := plotter.NewLabels(names)
		if err != nil {
			return nil, err
		}
		for i := range labels.TextStyle {
			s := &labels.TextStyle[i]
			s.Font.Variant, s.Font.Size, s.Color, s.YAlign = "Sans", 9, color.RGBA{0x55, 0x55, 0x55, 0xff}, draw.YTop
		}
		p.Add(labels)
	}
	return p, nil
}

// decades are the marks of a logarithmic scale.
func decades(low, high float64, unit string) []plot.Tick {
	var list []plot.Tick
	for v := math.Pow(10, math.Floor(math.Log10(low))); v <= high*1.001; v *= 10 {
		list = append(list, plot.Tick{Value: v, Label: mark(v, unit)})
		for k := 2.0; k < 10 && v*k <= high; k++ {
			list = append(list, plot.Tick{Value: v * k})
		}
	}
	return list
}

func mark(v float64, unit string) string {
	switch {
	case unit == "ms" && v >= 999:
		return fmt.Sprintf("%g s", math.Round(v)/1000)
	case unit == "s" && v < 0.999:
		return fmt.Sprintf("%g ms", math.Round(v*1e6)/1000)
	case unit == "" && v >= 999_999:
		return fmt.Sprintf("%gM", math.Round(v)/1e6)
	case unit == "" && v >= 999:
		return fmt.Sprintf("%gk", math.Round(v)/1e3)
	}
	return fmt.Sprintf("%.4g %s", v, unit)
}

// drawScale draws the metrics of a scale, two in a row.
func drawScale(w io.Writer, s *result.Scale) error {
	var plots []*plot.Plot
	for _, m := range result.Metrics {
		p, err := scalePlot(s, m.Name, m.Unit)
		if err != nil {
			return err
		}
		if p != nil {
			plots = append(plots, p)
		}
	}
	const tall = 9 * vg.Centimeter
	rows := (len(plots) + 1) / 2
	height := tall * vg.Length(rows)
	img := vgimg.NewWith(vgimg.UseWH(width, height), vgimg.UseDPI(100), vgimg.UseBackgroundColor(color.White))
	all := draw.New(img)
	for i, p := range plots {
		left, top := width/2*vg.Length(i%2), tall*vg.Length(i/2)
		p.Draw(draw.Crop(all, left+0.4*vg.Centimeter, left-width/2-0.4*vg.Centimeter, height-top-tall+0.2*vg.Centimeter, -top-0.2*vg.Centimeter))
	}
	_, err := vgimg.PngCanvas{Canvas: img}.WriteTo(w)
	return err
}

// scalePlot is one metric; nil where nothing was measured.
func scalePlot(s *result.Scale, metric, unit string) (*plot.Plot, error) {
	p := newPlot(metric)
	p.X.Label.Text = "files"
	low, high, from, to := math.Inf(1), 0.0, math.Inf(1), 0.0
	n := 0
	for _, c := range s.Curves {
		if c.Metric != metric {
			continue
		}
		var xy plotter.XYs
		for i := range c.Files {
			xy = append(xy, plotter.XY{X: c.Files[i], Y: c.Values[i]})
			low, high, from, to = min(low, c.Values[i]), max(high, c.Values[i]), min(from, c.Files[i]), max(to, c.Files[i])
		}
		line, dots, err := plotter.NewLinePoints(xy)
		if err != nil {
			return nil, err
		}
		colour := rgb(palette[n%len(palette)])
		line.Color, line.Width, dots.Color, dots.Shape, dots.Radius = colour, vg.Points(1.6), colour, draw.CircleGlyph{}, vg.Points(3)
		p.Add(line, dots)
		name := c.Mover
		if c.Fit != nil {
			name = fmt.Sprintf("%s: files^%.2f", c.Mover, c.Fit.Exponent)
		}
		p.Legend.Add(name, line, dots)
		n++
	}
	if n == 0 {
		return nil, nil
	}
	low, high = math.Pow(10, math.Floor(math.Log10(low))), math.Pow(10, math.Ceil(math.Log10(high*1.01)))
	p.X.Min, p.X.Max, p.Y.Min, p.Y.Max = from/1.3, to*1.3, low, high
	p.X.Scale, p.Y.Scale = plot.LogScale{}, plot.LogScale{}
	p.X.Tick.Marker = plot.TickerFunc(func(low, high float64) []plot.Tick { return decades(low, high, "") })
	p.Y.Tick.Marker = plot.TickerFunc(func(low, high float64) []plot.Tick { return decades(low, high, unit) })
	grid := plotter.NewGrid()
	grid.Vertical.Color, grid.Horizontal.Color = color.RGBA{0, 0, 0, 0x11}, color.RGBA{0, 0, 0, 0x22}
	p.Add(grid)
	p.Legend.Top, p.Legend.Left = true, true
	return p, nil
}
