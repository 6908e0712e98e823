package page

import (
	"bytes"
	"flag"
	"image/png"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/fsmigrate/fsmigrate/bench/oplog"
	"github.com/fsmigrate/fsmigrate/bench/result"
)

var update = flag.Bool("update", false, "write the golden files, and the README's table")

// sample is a report of which everything is known: an application at twenty a second that
// is stopped for half a second, or for five.
func sample() *result.Report {
	zero := time.Unix(1_700_000_000, 0).UTC()
	at := func(s float64) time.Time { return zero.Add(time.Duration(s*1000) * time.Millisecond) }
	cell := func(workload, mover string, down float64) *result.Cell {
		m := result.Moments{Begin: at(0), Copy: at(2), Cutover: at(6), Ready: at(6 + down), End: at(9 + down)}
		var ops []oplog.Op
		for due := 0.0; due < 9+down; due += 0.05 {
			end := due + 0.002
			if due >= 2 && due < 6 {
				end = due + 0.011
			}
			if due >= 6 && due < 6+down {
				end = 6 + down + 0.004
			}
			ops = append(ops, oplog.Op{Due: at(due).UnixNano(), End: at(end).UnixNano(), Bytes: 100})
		}
		c := &result.Cell{Scenario: "small", Workload: workload, Mover: mover}
		var stages []result.Stage
		if mover == result.Ours {
			stages = []result.Stage{{Name: "copy", From: at(2), To: at(4)}, {Name: "hold", From: at(4), To: at(6)}}
		}
		measured := result.Measure(ops, m, stages...)
		r := result.Run{Totals: result.Totals{CopyS: 4, DownS: down, GapS: measured.Gap.Seconds(), TotalS: 4 + down}, Round: 1, Spans: m.Spans()}
		if mover != result.Baseline {
			r.CPUS, r.PeakRSS, r.Written = 2, 90<<20, 300<<20
		}
		if mover == result.Ours {
			r.RefusedS, r.Verified = down/2, 1234
		}
		result.Sum(c, []result.Run{r}, []result.Measured{measured})
		return c
	}
	r := &result.Report{
		Version: result.Version, At: zero, TookS: 61, Product: "1.0",
		Machine:   result.Machine{CPU: "A Processor <4000>", Cores: 4, MemoryB: 8 << 30, Kernel: "Linux 6.12", System: "Debian", Disk: "ext4 on a disk", Tools: map[string]string{"rsync": "rsync 3"}},
		Settings:  result.Settings{Runs: 1, BeforeS: 2, AfterS: 3, Policy: "gentle"},
		Scenarios: []result.Scenario{{Name: "small", From: "ext4:inode_size=128", To: "xfs", Files: 1234, Bytes: 5 << 20, Says: "many small files"}},
		Workloads: []result.Workload{{Name: "mail", Rate: 20, Says: "a maildir"}, {Name: "fio", Rate: 20, Says: "fio", Filled: true}},
		Cells: []*result.Cell{cell("mail", result.Ours, .5), cell("fio", result.Baseline, .1), cell("fio", result.Ours, .5), cell("fio", "rsync two-pass", 5),
			cell("fio", "cp -a", .3)},
		NotRun: []result.NotRun{{Mover: "fpsync", Why: "not installed: fpart"}, {Scenario: "small", Workload: "fio", Mover: "btrfs-convert", Why: "exit status 1", Failed: true}},
		Notes:  []string{"a <note>"},
		Scale:  &result.Scale{Workload: "append"},
	}
	for i, n := range []int{1000, 10_000, 100_000} {
		r.Scale.Points = append(r.Scale.Points,
			result.Point{Files: n, Mover: result.Ours, Totals: result.Totals{DownS: .4 + float64(i)*.01, CopyS: float64(n) / 5000, PeakRSS: 60 << 20, PlanS: float64(n) / 1e5}},
			result.Point{Files: n, Mover: "rsync two-pass", Totals: result.Totals{DownS: float64(n) / 2e4, CopyS: float64(n) / 4000, PeakRSS: 20 << 20}})
	}
	r.Scale.Draw()
	r.Compare()
	return r
}

// The words and tables of a report, for people: compared with what was reviewed.
func TestDocument(t *testing.T) {
	var b bytes.Buffer
	if err := Document(&b, sample(), []string{"timeline.png", "scale.png"}); err != nil {
		t.Fatal(err)
	}
	b.WriteString("\n---- the README's table\n\n" + Table(sample()) + "\n---- on a terminal\n")
	Terminal(&b, sample(), []string{"index.html"})
	golden(t, "testdata/document.golden", b.Bytes())
}

func golden(t *testing.T, path string, got []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s is not what is rendered (go test ./bench/page -update, and look at the difference):\n%s", path, got)
	}
}

// The page is one file: nothing in it makes a browser ask the network for anything.
func TestPageNeedsNothing(t *testing.T) {
	var b bytes.Buffer
	if err := HTML(&b, sample()); err != nil {
		t.Fatal(err)
	}
	html := b.String()
	for _, loads := range []string{`<script[^>]+src`, `<link`, `<img`, `<iframe`, `@import`, `url\(`, `="https?:`} {
		if m := regexp.MustCompile(loads).FindString(before(html)); m != "" {
			t.Errorf("it loads something: %s", m)
		}
	}
	if n := strings.Count(html, "</script>"); n != 2 {
		t.Errorf("%d ends of scripts, want 2", n)
	}
	for _, want := range []string{Headline(sample())[:40], `id="t0-1-0"`, `id="scale-0"`, "coordinated omission", "not installed: fpart", "A Processor &lt;4000&gt;", "a &lt;note&gt;", "echarts.init"} {
		if !strings.Contains(html, want) {
			t.Errorf("it lacks %q", want)
		}
	}
	if strings.Contains(html, "NaN") && strings.Contains(before(html), "NaN") {
		t.Error("a number is none")
	}
}

// before is the page without the chart library.
func before(html string) string {
	head, _, _ := strings.Cut(html, "<script>")
	return head
}

// A report is read back as it was written, its pictures are pictures, and those of an
// earlier report are gone.
func TestWrite(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "timeline-old.png"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	files, err := Write(dir, sample())
	if err != nil {
		t.Fatal(err)
	}
	if filepath.Base(files[0]) != "index.html" {
		t.Errorf("%v", files)
	}
	r, err := Read(filepath.Join(dir, "bench.json"))
	if err != nil {
		t.Fatal(err)
	}
	if Table(r) != Table(sample()) || len(r.Cells) != 5 || r.Cells[0].Timeline == nil {
		t.Error("what is read back says something else")
	}
	for _, name := range []string{"timeline.png", "scale.png"} {
		f, err := os.Open(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		picture, err := png.Decode(f)
		_ = f.Close()
		if err != nil || picture.Bounds().Dx() < 800 {
			t.Errorf("%s: %v", name, err)
		}
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 5 {
		t.Errorf("left %v, %v", left, err)
	}
}

// Without our own mover, or with nothing at all, there is still a page.
func TestPoorReports(t *testing.T) {
	r := sample()
	r.Cells = r.Cells[:2]
	r.Scale = nil
	for _, cells := range [][]*result.Cell{r.Cells, r.Cells[1:], nil} {
		r.Cells = cells
		if _, err := Write(t.TempDir(), r); err != nil {
			t.Errorf("%d cells: %v", len(cells), err)
		}
		if Table(r) == "" {
			t.Error("no words")
		}
	}
}

const (
	marker = "<!-- bench: made by make bench from docs/bench/bench.json -->\n"
	closed = "<!-- /bench -->"
)

// The README's table and the documents are those of docs/bench/bench.json; -update writes them.
func TestReadmeTable(t *testing.T) {
	const path = "../../README.md"
	r, err := Read("../../docs/bench/bench.json")
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if _, err := Write("../../docs/bench", r); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, ok1 := strings.Cut(string(b), marker)
	_, tail, ok2 := strings.Cut(rest, closed)
	if !ok1 || !ok2 {
		t.Fatalf("%s has no %s … %s", path, strings.TrimSpace(marker), closed)
	}
	want := head + marker + Table(r) + closed + tail
	if *update {
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if string(b) != want {
		t.Errorf("the table in %s is not that of docs/bench: go test ./bench/page -run TestReadmeTable -update", path)
	}
	var doc bytes.Buffer
	if err := Document(&doc, r, pictures(t)); err != nil {
		t.Fatal(err)
	}
	if have, err := os.ReadFile("../../docs/bench/README.md"); err != nil || !bytes.Equal(have, doc.Bytes()) {
		t.Errorf("docs/bench/README.md is not that of its bench.json: %v", err)
	}
}

func pictures(t *testing.T) []string {
	t.Helper()
	found, err := filepath.Glob("../../docs/bench/*.png")
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, want := range []string{"timeline.png", "scale.png"} {
		for _, f := range found {
			if filepath.Base(f) == want {
				list = append(list, want)
			}
		}
	}
	return list
}
