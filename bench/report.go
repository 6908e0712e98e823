package bench

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"
)

// run is one measurement.
type run struct {
	Seconds float64 `json:"seconds"`
	CPU     float64 `json:"cpu_seconds,omitempty"`
	RSS     int64   `json:"peak_rss_bytes,omitempty"`
	Read    int64   `json:"device_read_bytes,omitempty"`
	Objects int64   `json:"objects_created,omitempty"`
	Load    float64 `json:"load"` // of the machine when it began
}

// series are the runs of one contender.
type series struct {
	Name string `json:"name"`
	Runs []run  `json:"runs"`
}

func (s series) by(f func(run) float64) (median, low, high float64) {
	var v []float64
	for _, r := range s.Runs {
		v = append(v, f(r))
	}
	if len(v) == 0 {
		return 0, 0, 0
	}
	slices.Sort(v)
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2, v[0], v[len(v)-1]
}

func seconds(r run) float64 { return r.Seconds }

// result is a scenario measured.
type result struct {
	Name   string   `json:"name"`
	Cache  string   `json:"cache"` // in which state the runs began
	Files  int      `json:"files"`
	Bytes  int64    `json:"bytes"`
	Base   string   `json:"base"` // the contender that is 1
	Series []series `json:"series"`
	Floor  float64  `json:"floor,omitempty"` // that fsmigrate's ratio must reach
	Goal   float64  `json:"goal,omitempty"`
	Notes  []string `json:"notes,omitempty"`
}

func (r *result) find(name string) *series {
	for i := range r.Series {
		if r.Series[i].Name == name {
			return &r.Series[i]
		}
	}
	return nil
}

// ratio is how many times faster than the base a contender is.
func (r *result) ratio(name string) float64 {
	s, base := r.find(name), r.find(r.Base)
	if s == nil || base == nil {
		return 0
	}
	a, _, _ := s.by(seconds)
	b, _, _ := base.by(seconds)
	if a == 0 {
		return 0
	}
	return b / a
}

// print writes the table of a result.
func (r *result) print(w io.Writer) {
	fmt.Fprintf(w, "\n%s: %d files, %s, %s\n", r.Name, r.Files, size(r.Bytes), r.Cache)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "\tratio\tmedian\tspread\tcpu\tdevice reads\tpeak RSS\truns\n")
	for _, row := range r.rows() {
		fmt.Fprintln(t, strings.Join(row, "\t"))
	}
	_ = t.Flush()
	r.verdict(w)
}

func (r *result) rows() [][]string {
	var rows [][]string
	for _, s := range r.Series {
		m, lo, hi := s.by(seconds)
		c, _, _ := s.by(func(r run) float64 { return r.CPU })
		d, _, _ := s.by(func(r run) float64 { return float64(r.Read) })
		rss, _, _ := s.by(func(r run) float64 { return float64(r.RSS) })
		rows = append(rows, []string{s.Name, fmt.Sprintf("%.2f", r.ratio(s.Name)), fmt.Sprintf("%.3f s", m), fmt.Sprintf("%.3f–%.3f", lo, hi),
			fmt.Sprintf("%.2f s", c), size(int64(d)), size(int64(rss)), fmt.Sprint(len(s.Runs))})
	}
	return rows
}

func (r *result) verdict(w io.Writer) {
	for _, n := range r.Notes {
		fmt.Fprintf(w, "  %s\n", n)
	}
	if r.Floor == 0 {
		return
	}
	got, says := r.ratio(ours), "below the floor"
	switch {
	case got >= r.Goal && r.Goal > 0:
		says = "the goal is reached"
	case got >= r.Floor:
		says = "the floor holds"
	}
	fmt.Fprintf(w, "  %s is %.2f times as fast as %s: %s (floor %.1f, goal %.1f)\n", ours, got, r.Base, says, r.Floor, r.Goal)
}

// report is everything of one invocation.
type report struct {
	At      time.Time `json:"at"`
	Kernel  string    `json:"kernel"`
	CPUs    int       `json:"cpus"`
	Results []*result `json:"results"`
}

func newReport() report {
	var u unix.Utsname
	_ = unix.Uname(&u)
	return report{At: time.Now().UTC(), Kernel: unix.ByteSliceToString(u.Release[:]), CPUs: runtime.NumCPU()}
}

// write puts the report into dir, for machines and for people.
func (r report) write(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	var md strings.Builder
	fmt.Fprintf(&md, "# fsmigrate beside its peers\n\n%s, Linux %s, %d processors. Ratios: how many times as fast as the first row.\n", r.At.Format(time.RFC3339), r.Kernel, r.CPUs)
	for _, res := range r.Results {
		fmt.Fprintf(&md, "\n## %s\n\n%d files, %s, %s\n\n| | ratio | median | spread | cpu | device reads | peak RSS | runs |\n|---|---|---|---|---|---|---|---|\n",
			res.Name, res.Files, size(res.Bytes), res.Cache)
		for _, row := range res.rows() {
			fmt.Fprintf(&md, "| %s |\n", strings.Join(row, " | "))
		}
		md.WriteString("\n")
		res.verdict(&md)
	}
	return errors.Join(os.WriteFile(filepath.Join(dir, "bench.json"), append(b, '\n'), 0o644),
		os.WriteFile(filepath.Join(dir, "bench.md"), []byte(md.String()), 0o644))
}

// load is the machine's one-minute load.
func load() float64 {
	var v float64
	b, err := os.ReadFile("/proc/loadavg")
	if err == nil {
		_, _ = fmt.Sscan(string(b), &v) // 0 where it cannot be read
	}
	return v
}

func size(n int64) string {
	unit, v := "B", float64(n)
	for _, u := range []string{"KiB", "MiB", "GiB"} {
		if v < 1024 {
			break
		}
		unit, v = u, v/1024
	}
	return fmt.Sprintf("%.*f %s", cmp.Or(map[string]int{"GiB": 2}[unit], 0), v, unit)
}
