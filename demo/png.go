package demo

import (
	"fmt"
	"image/color"
	"io"
	"math"
	"os"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgimg"

	"github.com/fsmigrate/fsmigrate/migrate"
)

// shade is the colour of a phase in both pictures.
func shade(p migrate.Phase) color.RGBA {
	switch p {
	case migrate.Preflight, migrate.Prepare:
		return color.RGBA{0xee, 0xf3, 0xfa, 0xff}
	case migrate.Copy:
		return color.RGBA{0xd3, 0xe4, 0xf7, 0xff}
	case migrate.CatchUp:
		return color.RGBA{0xe4, 0xee, 0xfa, 0xff}
	case migrate.Verify:
		return color.RGBA{0xd5, 0xe0, 0xf0, 0xff}
	case migrate.Hold:
		return color.RGBA{0xe2, 0xf4, 0xdf, 0xff}
	case migrate.Cutover, migrate.Rollback:
		return color.RGBA{0xf9, 0xcf, 0xc9, 0xff}
	case migrate.Reverse:
		return color.RGBA{0xfd, 0xf1, 0xcf, 0xff}
	case reading:
		return color.RGBA{0xdd, 0xdd, 0xdd, 0xff}
	}
	return color.RGBA{0xfb, 0xfb, 0xfb, 0xff}
}

var ink = color.RGBA{0x1f, 0x3a, 0x5f, 0xff}

// latencies is a scale that both ends fit and a person can read.
func (t *timeline) latencies() (low, high float64) {
	low, high = 1, 100
	for _, w := range t.Writes {
		low, high = min(low, w.MS), max(high, w.MS)
	}
	return math.Pow(10, math.Floor(math.Log10(max(low, 0.01)))), high * 1.6
}

// png draws the whole run, and below it the two swaps from near.
func (t *timeline) png(path string) error {
	const width, height, foot = 34 * vg.Centimeter, 21 * vg.Centimeter, 1.2 * vg.Centimeter
	img := vgimg.NewWith(vgimg.UseWH(width, height), vgimg.UseDPI(110), vgimg.UseBackgroundColor(color.White))
	all := draw.New(img)
	var from, to float64
	if len(t.Bands) > 0 {
		from, to = t.Bands[0].From, t.Bands[len(t.Bands)-1].To
	}
	whole, err := t.plot(t.Title+": latency of every write", from, to)
	if err != nil {
		return err
	}
	lower := (height - foot) * 0.48
	whole.Draw(draw.Crop(all, 0.3*vg.Centimeter, -0.3*vg.Centimeter, lower+foot, -0.3*vg.Centimeter))
	for i, z := range t.Zoom {
		name := "the cutover from near"
		if i == 1 {
			name = "the rollback from near"
		}
		p, err := t.plot(name, z[0], z[1])
		if err != nil {
			return err
		}
		n := vg.Length(len(t.Zoom))
		part := (width - 0.9*vg.Centimeter) / n
		left := 0.3*vg.Centimeter + part*vg.Length(i)
		p.Draw(draw.Crop(all, left, left+part-width-0.6*vg.Centimeter, foot, -(height - foot - lower)))
	}
	var facts []string
	for _, f := range t.Facts {
		facts = append(facts, f.Name+" "+f.Value)
	}
	small := font.From(plot.DefaultFont, 11)
	small.Variant = "Sans"
	style := draw.TextStyle{Color: ink, Font: small, Handler: plot.DefaultTextHandler}
	all.FillText(style, vg.Point{X: 0.8 * vg.Centimeter, Y: 0.5 * vg.Centimeter}, strings.Join(facts, "   ·   "))
	return save(path, func(w io.Writer) error {
		_, err := vgimg.PngCanvas{Canvas: img}.WriteTo(w)
		return err
	})
}

// plot is the part of the timeline between two moments.
func (t *timeline) plot(title string, from, to float64) (*plot.Plot, error) {
	p := plot.New()
	p.Title.Text = title
	p.Title.Padding = 1 * vg.Millimeter
	p.Title.TextStyle.Font.Size = 13
	for _, f := range []*font.Font{&p.Title.TextStyle.Font, &p.X.Label.TextStyle.Font, &p.Y.Label.TextStyle.Font, &p.X.Tick.Label.Font, &p.Y.Tick.Label.Font} {
		f.Variant = "Sans"
	}
	p.X.Label.Text = "seconds from the cutover"
	p.Y.Label.Text = "due until on disk"
	low, high := t.latencies()
	p.X.Min, p.X.Max, p.Y.Min, p.Y.Max = from, to, low, high
	p.Y.Scale, p.Y.Tick.Marker = plot.LogScale{}, plot.TickerFunc(decades)
	var labels plotter.XYLabels
	for _, b := range t.Bands {
		x0, x1 := max(b.From, from), min(b.To, to)
		if x1 <= x0 {
			continue
		}
		area, err := plotter.NewPolygon(plotter.XYs{{X: x0, Y: low}, {X: x1, Y: low}, {X: x1, Y: high}, {X: x0, Y: high}})
		if err != nil {
			return nil, err
		}
		area.Color, area.LineStyle.Width = shade(b.Phase), 0
		p.Add(area)
		if x1-x0 >= (to-from)*0.012 || b.Phase == migrate.Cutover || b.Phase == migrate.Rollback {
			labels.XYs = append(labels.XYs, plotter.XY{X: (x0 + x1) / 2, Y: high / 1.15})
			labels.Labels = append(labels.Labels, string(b.Phase))
		}
	}
	grid := plotter.NewGrid()
	grid.Vertical.Width = 0
	grid.Horizontal.Color = color.RGBA{0, 0, 0, 0x22}
	p.Add(grid)
	var near plotter.XYs
	for _, w := range t.Writes {
		if w.At >= from && w.At <= to {
			near = append(near, plotter.XY{X: w.At, Y: max(w.MS, low)})
		}
	}
	if len(near) > 0 {
		dots, err := plotter.NewScatter(near)
		if err != nil {
			return nil, err
		}
		dots.GlyphStyle = draw.GlyphStyle{Color: ink, Radius: vg.Points(1.3), Shape: draw.CircleGlyph{}}
		p.Add(dots)
	}
	if len(labels.XYs) > 0 {
		names, err := plotter.NewLabels(labels)
		if err != nil {
			return nil, err
		}
		for i := range names.TextStyle {
			s := &names.TextStyle[i]
			s.Font.Variant = "Sans"
			s.Color, s.Font.Size = color.RGBA{0x44, 0x44, 0x44, 0xff}, 9
			s.Rotation, s.XAlign, s.YAlign = math.Pi/2, draw.XRight, draw.YCenter
		}
		p.Add(names)
	}
	return p, nil
}

// decades are the marks of a logarithmic scale of milliseconds.
func decades(low, high float64) []plot.Tick {
	var list []plot.Tick
	for v := low; v <= high*1.001; v *= 10 {
		list = append(list, plot.Tick{Value: v, Label: readable(v)})
		for k := 2.0; k < 10 && v*k <= high; k++ {
			list = append(list, plot.Tick{Value: v * k})
		}
	}
	return list
}

func readable(ms float64) string {
	if ms >= 1000 {
		return fmt.Sprintf("%g s", math.Round(ms)/1000)
	}
	return fmt.Sprintf("%.3g ms", ms)
}

// save writes a whole file or none.
func save(path string, write func(io.Writer) error) error {
	f, err := os.Create(path + ".new")
	if err != nil {
		return err
	}
	err = write(f)
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name()) // what is left of a failure
	}
	return err
}
