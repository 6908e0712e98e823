package demo

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"html/template"
	"io"
)

//go:embed page.html
var pageSource string

var page = template.Must(template.New("page").Parse(pageSource))

// html writes the timeline as one page that needs nothing else, not even a network.
func (t *timeline) html(path string) error {
	type shaded struct {
		band
		Color string `json:"color"`
	}
	var bands []shaded
	for _, b := range t.Bands {
		c := shade(b.Phase)
		bands = append(bands, shaded{b, fmt.Sprintf("#%02x%02x%02x", c.R, c.G, c.B)})
	}
	low, high := t.latencies()
	data, err := json.Marshal(map[string]any{"writes": t.Writes, "bands": bands, "zoom": t.Zoom, "low": low, "high": high})
	if err != nil {
		return err
	}
	type cells struct{ Name, N, P50, P99, Longest string }
	var rows []cells
	for _, r := range t.rows() {
		rows = append(rows, cells{r.Name, fmt.Sprint(r.N), milli(r.P50), milli(r.P99), milli(r.Longest)})
	}
	return save(path, func(w io.Writer) error {
		return page.Execute(w, map[string]any{"Title": t.Title, "Facts": t.Facts, "Rows": rows, "Data": template.JS(data)})
	})
}
