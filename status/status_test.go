package status

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/fsmigrate/fsmigrate/migrate"
)

var update = flag.Bool("update", false, "rewrite documents and goldens that are generated")

var now = time.Date(2026, 3, 1, 3, 0, 0, 0, time.UTC)

func golden(t *testing.T, path string, got []byte) {
	t.Helper()
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs (go test ./status -update rewrites it); got:\n%s", path, got)
	}
}

func base(phase migrate.Phase) migrate.Status {
	return migrate.Status{
		ID: "data", Source: "/data", From: "ext4", To: "xfs", Phase: phase, Since: now.Add(-90 * time.Minute), Running: true,
		Policy: "manual", Truth: migrate.Source, TruthBy: "engine", Device: "/dev/sdb1", DeviceIDs: []string{"wwn:0x5000c500a1b2c3d4", "partuuid:1"},
		Proof:      migrate.Proof{Kind: "read-back", Objects: 1200000, Verified: 1199990, Waived: 10},
		DirtyUnits: 1234, DirtyBytes: 5 << 20, Trend: "falling", DirtyRate: 1 << 20, CopyRate: 80 << 20, Converging: true,
		PredictedMS: 310, BudgetMS: 2000, ETASeconds: 12,
		Reboot: "safe: the boot mounts the source, and the migration resumes", Next: "fsmigrate cutover data", Undo: "fsmigrate abort data",
	}
}

// pages are the situations in which the page is read.
func pages() map[string]migrate.Status {
	hold := base(migrate.Hold)
	full := base(migrate.CatchUp)
	full.Paused, full.Why = true, "copy: no space left\non the spare"
	busy := base(migrate.CatchUp)
	busy.Converging, busy.PredictedMS, busy.Trend = false, 9000, "rising"
	dead := base(migrate.Hold)
	dead.Running = false
	blocked := base(migrate.Hold)
	blocked.NotBefore = now.Add(time.Minute)
	for range 12 {
		blocked.Blockers = append(blocked.Blockers, migrate.Blocker{Class: "writer", Object: "/data/\x1b[2Jx", Why: "is open for writing", Hint: "stop db (pid 7)"})
	}
	reverse := base(migrate.Reverse)
	reverse.Truth, reverse.TruthSeq, reverse.Device, reverse.DeviceIDs = migrate.Shadow, 1, "/dev/vg0/new", nil
	reverse.Report.PauseMS, reverse.ConsistentAsOf = 412.5, now.Add(-2*time.Second)
	reverse.WayBack = migrate.WayBack{State: migrate.WayFull}
	reverse.Next, reverse.Undo = "fsmigrate finalize data", "fsmigrate rollback data"
	closed := reverse
	closed.WayBack = migrate.WayBack{State: migrate.WayClosed, Since: now.Add(-time.Hour), Why: "/data/x has a time past 2038, which ext4 with 128-byte inodes cannot hold"}
	closed.Undo = ""
	ended := base(migrate.Aborted)
	ended.Running, ended.Next, ended.Undo, ended.Why = false, "", "", "the spare has failed"
	lost := reverse
	lost.Running = false
	torn := base(migrate.Cutover)
	torn.Running, torn.Service, torn.Next, torn.Undo = false, "stopped", "fsmigrate wait data --for reverse", ""
	walk := base(migrate.Copy)
	walk.Proof, walk.Next = migrate.Proof{}, "fsmigrate wait data --for hold"
	walk.Progress = &migrate.Progress{Phase: migrate.Copy, Objects: 410000, TotalObjects: 1200000, Bytes: 12 << 30, TotalBytes: 40 << 30, ObjectsPerSec: 9000, BytesPerSec: 90 << 20, ETA: 88 * time.Second}
	silent := base(migrate.Hold)
	silent.Running, silent.Silent = false, "process 77"
	return map[string]migrate.Status{"walk": walk, "silent": silent, "lost": lost, "torn": torn, "hold": hold, "full": full, "busy": busy, "dead": dead, "blocked": blocked, "reverse": reverse, "closed": closed, "ended": ended}
}

func TestPages(t *testing.T) {
	old := time.Local
	time.Local = time.UTC
	t.Cleanup(func() { time.Local = old })
	var list []migrate.Status
	for name, s := range pages() {
		var b bytes.Buffer
		Page(&b, s, now)
		golden(t, "testdata/page-"+name+".txt", b.Bytes())
		if bytes.ContainsRune(b.Bytes(), '\x1b') {
			t.Errorf("%s: an escape sequence of a file name reaches the terminal", name)
		}
	}
	for _, name := range []string{"hold", "full", "dead", "reverse", "ended"} {
		list = append(list, pages()[name])
	}
	var b bytes.Buffer
	Table(&b, list, now)
	golden(t, "testdata/table.txt", b.Bytes())
}

func TestUnits(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", -2048: "-2.0 KiB", 1<<20 - 1: "1.0 MiB", 1 << 62: "4.0 EiB"} {
		if got := Bytes(n); got != want {
			t.Errorf("Bytes(%d) = %q, want %q", n, got, want)
		}
	}
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1,000", -1234567: "-1,234,567", -100: "-100"} {
		if got := Count(n); got != want {
			t.Errorf("Count(%d) = %q, want %q", n, got, want)
		}
	}
	for d, want := range map[time.Duration]string{0: "0s", 1500 * time.Microsecond: "1.5ms", 1234 * time.Millisecond: "1.23s", 310 * time.Second: "5m 10s", 90 * time.Minute: "1h 30m", 50 * time.Hour: "2d 2h", -time.Minute: "-1m 0s"} {
		if got := Span(d); got != want {
			t.Errorf("Span(%d) = %q, want %q", d, got, want)
		}
	}
	for s, want := range map[string]string{"/data/ä b": "/data/ä b", "a\nb": `"a\nb"`, "\xff": `"\xff"`, "\x1b[0m": `"\x1b[0m"`} {
		if got := Safe(s); got != want {
			t.Errorf("Safe(%q) = %s, want %s", s, got, want)
		}
	}
}

// everything calls each of the engine's events once.
func everything(e migrate.Events) {
	e.Phase(migrate.Copy, migrate.CatchUp, "walked")
	e.Checked(migrate.Check{Name: "spare", Found: "a\nb", Need: "nothing", Verdict: migrate.Warning})
	e.Progress(migrate.Progress{Phase: migrate.Copy, Objects: 10, Bytes: 2048, TotalObjects: 100, TotalBytes: 1 << 20, ObjectsPerSec: 5, BytesPerSec: 1024, ETA: time.Minute})
	e.PassDone(migrate.PassResult{Units: 3, Bytes: 4096, Took: time.Second}, migrate.Backlog{Units: 1, PredictedPause: 20 * time.Millisecond})
	e.Verified(migrate.Proof{Kind: "read-back", Objects: 5, Verified: 4, Different: 1, Examples: []string{"a\x1bb: data"}})
	e.Cutover("fence", 20*time.Millisecond, nil)
	e.Hook("stop", time.Second, errors.New("exit status 1"))
	e.Blocked([]migrate.Blocker{{Class: "writer", Object: "/x", Why: "open"}})
	e.Blocked(nil)
	e.Warning("what", "why", "hint")
	e.Converges(false, 2<<20, 1<<20)
	e.Converges(true, 0, 0)
}

func TestLines(t *testing.T) {
	var b bytes.Buffer
	everything(Listen(func(e Event) { b.WriteString(Line(e) + "\n") }))
	golden(t, "testdata/lines.txt", b.Bytes())
}

func TestDisplays(t *testing.T) {
	for name, form := range map[string][2]bool{"json": {true, false}, "lines": {false, false}, "terminal": {false, true}} {
		var b bytes.Buffer
		d := NewDisplay(&b, form[0], form[1])
		everything(Listen(d.Event))
		d.Say("what next")
		d.Close()
		if !strings.Contains(b.String(), "what next") || !strings.Contains(b.String(), "fence") {
			t.Errorf("%s: %q", name, b.String())
		}
		if name != "json" {
			continue
		}
		for line := range strings.Lines(b.String()) {
			var e Event
			if err := json.Unmarshal([]byte(line), &e); err != nil || e.Event == "" || e.At.IsZero() {
				t.Errorf("%s: %v", line, err)
			}
		}
	}
}

// The text format: a HELP and a TYPE before each family, then its samples.
func TestMetrics(t *testing.T) {
	sample := regexp.MustCompile(`^(fsmigrate_[a-z_]+)\{id="data"(,[a-z]+="[a-z-]+")?\} [-+0-9.eInfNa]+$`)
	documented := MetricsDoc()
	for name, s := range pages() {
		family := ""
		for line := range strings.Lines(string(Metrics(s, 1<<40, now))) {
			line = strings.TrimSuffix(line, "\n")
			if after, ok := strings.CutPrefix(line, "# HELP "); ok {
				family, _, _ = strings.Cut(after, " ")
				continue
			}
			if strings.HasPrefix(line, "# TYPE "+family+" ") {
				continue
			}
			m := sample.FindStringSubmatch(line)
			if m == nil || m[1] != family {
				t.Errorf("%s: bad line %q after %q", name, line, family)
			} else if !strings.Contains(documented, "| `"+family+"` |") {
				t.Errorf("%s is not documented", family)
			}
		}
	}
	text := string(Metrics(pages()["reverse"], 5, now))
	for _, want := range []string{
		`fsmigrate_truth{id="data",side="shadow"} 1`, `fsmigrate_truth{id="data",side="source"} 0`, `fsmigrate_phase{id="data",phase="reverse"} 1`,
		`fsmigrate_phase_age_seconds{id="data"} 5400`, `fsmigrate_way_back_lag_seconds{id="data"} 2`, `fsmigrate_way_back_open{id="data"} 1`,
		`fsmigrate_pause_seconds{id="data"} 0.4125`, `fsmigrate_copied_bytes_total{id="data"} 5`, `fsmigrate_dirty_units{id="data"} 1234`,
	} {
		if !strings.Contains(text, want+"\n") {
			t.Errorf("no %s in\n%s", want, text)
		}
	}
	if text := string(Metrics(pages()["hold"], 0, now)); strings.Contains(text, "way_back_lag") {
		t.Error("a lag of the way back before the cutover")
	}
}

func TestMetricsDocIsCurrent(t *testing.T) { golden(t, "../docs/metrics.md", []byte(MetricsDoc())) }

func TestWriteMetrics(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "m.prom")
	for _, content := range []string{"a 1\n", "a 2\n"} {
		if err := WriteMetrics(path, []byte(content)); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(path)
		if err != nil || string(got) != content {
			t.Errorf("%q, %v", got, err)
		}
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o644 {
		t.Errorf("%v, %v", info, err)
	}
	if err := WriteMetrics(filepath.Join(dir, "none", "m.prom"), nil); err == nil {
		t.Error("written into a directory that is not there")
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}

func TestProposalPage(t *testing.T) {
	p := Proposal{
		Plan: migrate.Plan{
			ID: "data", Category: "5: update affects data on the disk", Tracker: "watch",
			Source:  migrate.SourceSpec{Mount: "/data", Format: "ext4", Device: migrate.DeviceSpec{Path: "/dev/sdb1", Bytes: 100 << 30, IDs: []string{"wwn:1"}}},
			Target:  migrate.TargetSpec{Format: "ext4", Options: map[string]string{"inode_size": "256", "64bit": "1"}, Wipe: true, Spare: migrate.DeviceSpec{File: "/srv/new.img", Size: 20 << 30}},
			Service: migrate.ServiceSpec{Unit: "db.service", Health: "curl -f localhost"},
			Cutover: migrate.CutoverSpec{Policy: "window:02:00-04:00", Finalize: true},
			Copy:    migrate.CopySpec{Rate: 50 << 20, Threads: 3},
			Persist: migrate.PersistSpec{NoSuper: true},
			Waive:   []migrate.Waiver{{Class: "xattr-size", Reason: "backup labels, not needed"}},
			Observed: migrate.Observed{Objects: 1200000, Bytes: 40 << 30, Fit: []migrate.Fit{
				{Class: "identity", Count: -1, Why: "inode numbers, ctime", Always: true},
				{Class: "xattr-size", Count: 2, Why: "4 KiB at most", Samples: []string{"/data/a\nb", "/data/c"}},
				{Class: "name-length", Count: 1, Why: "255 bytes at most", Samples: []string{"/data/long"}},
			}},
		}.WithDefaults(),
		Checks: []migrate.Check{
			{Name: "spare", Found: "an xfs signature", Need: "nothing, or --wipe", Verdict: migrate.Refused, Remedy: "plan with --wipe"},
			{Name: "stack", Found: "no redundancy", Need: "as the source", Verdict: migrate.Refused, Waivable: true},
			{Name: "memory", Found: "200 MiB", Need: "256 MiB", Verdict: migrate.Warning, Remedy: "stop something"},
			{Name: "kernel", Found: "6.18", Need: "5.17", Verdict: migrate.OK},
		},
		Forecast: Forecast{Bytes: 41 << 30, MarginBytes: 2 << 30, Copy: 7 * time.Minute, Verify: 3 * time.Minute, Pause: 300 * time.Millisecond},
	}
	var b bytes.Buffer
	ProposalPage(&b, p)
	golden(t, "testdata/proposal.txt", b.Bytes())
	if got := p.Refused(); len(got) != 2 {
		t.Errorf("%d refused", len(got))
	}
}
