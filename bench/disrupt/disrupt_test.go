package disrupt

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fsmigrate/fsmigrate/bench/page"
	"github.com/fsmigrate/fsmigrate/bench/result"
	"github.com/fsmigrate/fsmigrate/blockdev"
	"github.com/fsmigrate/fsmigrate/e2e/vol"
	"github.com/fsmigrate/fsmigrate/migrate"
)

// binary is the command under test, built once: the benchmark starts it as the mover and
// as the application.
var binary string

func TestMain(m *testing.M) {
	code := 1
	dir, err := os.MkdirTemp("", "fsmigrate-disrupt-")
	if err == nil {
		binary = filepath.Join(dir, "fsmigrate")
		var out []byte
		if out, err = exec.Command("go", "build", "-o", binary, "github.com/fsmigrate/fsmigrate/cmd/fsmigrate").CombinedOutput(); err != nil {
			err = fmt.Errorf("%w: %s", err, out)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "disrupt: build the program:", err)
	} else {
		code = m.Run()
	}
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// started is a benchmark under way, in a process group of its own as under a shell.
type started struct {
	lab      *vol.Lab
	cmd      *exec.Cmd
	out, err bytes.Buffer
	report   string
}

func start(t *testing.T, args ...string) *started {
	t.Helper()
	s := &started{lab: vol.New(t)}
	s.report = filepath.Join(t.TempDir(), "report")
	s.cmd = exec.Command(binary, append([]string{"bench", "--quick", "--dir", s.lab.Dir, "--out", s.report}, args...)...)
	s.cmd.Stdout, s.cmd.Stderr = &s.out, &s.err
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return s
}

// ended waits for the end and fails the test for what is left.
func (s *started) ended(t *testing.T) (code int) {
	t.Helper()
	err := s.cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	left := []string{"?"}
	if !vol.Eventually(5*time.Second, func() bool { left = vol.Leftovers(s.lab.Dir); return len(left) == 0 }) {
		t.Errorf("left behind: %s", strings.Join(left, "; "))
	}
	if files, err := os.ReadDir(s.lab.Dir); err != nil || len(files) > 0 {
		t.Errorf("files are left: %v, %v", files, err)
	}
	return s.cmd.ProcessState.ExitCode()
}

// One workload, three movers, on real volumes: the numbers are there, hold together, and
// are told in every form.
func TestEndToEnd(t *testing.T) {
	s := start(t, "--scenario", "small", "--files", "300", "--workload", "mixed", "--mover", "none", "--mover", "fsmigrate watch", "--mover", "rsync two-pass",
		"--scale-files", "100", "--scale-files", "400")
	if code := s.ended(t); code != 0 {
		t.Fatalf("exit %d: %s\n%s", code, s.err.String(), s.out.String())
	}
	r, err := page.Read(filepath.Join(s.report, "bench.json"))
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Cells) != 3 || len(r.NotRun) != 0 || !r.Quick {
		t.Fatalf("%d cells, not run: %v", len(r.Cells), r.NotRun)
	}
	for _, c := range r.Cells {
		for _, p := range result.Phases {
			if l := c.Latency[p]; l == nil && p != result.Cutover || l != nil && (l.Count == 0 || l.Max < l.P50) {
				t.Errorf("%s, %s: %+v", c.Mover, p, l)
			}
		}
		m := c.Median
		if m.DownS <= 0 || m.GapS <= 0 || m.TotalS < m.CopyS+m.DownS-1e-6 || c.All.Failed > 0 {
			t.Errorf("%s: %+v", c.Mover, m)
		}
		// What was due while it was stopped waited for its end.
		if c.All.Max < m.DownS*1e3*0.5 {
			t.Errorf("%s was stopped for %v s, and nothing waited longer than %v ms", c.Mover, m.DownS, c.All.Max)
		}
	}
	ours, rsync := r.Find("small", "mixed", result.Ours), r.Find("small", "mixed", "rsync two-pass")
	for _, c := range []*result.Cell{ours, rsync} {
		if m := c.Median; m.Written < 300*1024 || m.CPUS <= 0 || m.PeakRSS < 1<<20 {
			t.Errorf("%s: %+v", c.Mover, m)
		}
	}
	var stages []string
	for _, s := range ours.Stages {
		stages = append(stages, s.Stage)
	}
	for _, want := range []string{"copy", "verify", "hold"} {
		if !slices.Contains(stages, want) {
			t.Errorf("fsmigrate was at %v", stages)
		}
	}
	if m := ours.Median; m.RefusedS <= 0 || m.RefusedS > m.DownS || m.Verified < 300 {
		t.Errorf("fsmigrate: %+v", m)
	}
	if len(r.Scale.Points) != 4 || len(r.Scale.Curves) < 6 || r.Scale.Curves[0].Fit == nil {
		t.Errorf("scale: %+v", r.Scale)
	}
	for _, name := range []string{"index.html", "README.md", "timeline.png", "scale.png"} {
		if info, err := os.Stat(filepath.Join(s.report, name)); err != nil || info.Size() < 1000 {
			t.Errorf("%s: %v", name, err)
		}
	}
	if !strings.Contains(s.out.String(), "rsync two-pass") || !strings.Contains(s.out.String(), "times fsmigrate") {
		t.Errorf("said: %s", s.out.String())
	}
}

// Told to stop at any point, it leaves nothing and reports nothing.
func TestInterrupted(t *testing.T) {
	for _, c := range []struct {
		name  string
		group bool // Ctrl-C, which all processes get; else only the command is told
		when  func(dir string) bool
	}{
		{"while the volume is filled", true, func(dir string) bool { return exists(dir, "fsmigrate-bench.*/source.img") }},
		{"while it copies", true, func(dir string) bool { return exists(dir, "fsmigrate-bench.*/hook") }},
		{"while it copies, the command alone", false, func(dir string) bool { return exists(dir, "fsmigrate-bench.*/hook") }},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := start(t, "--scenario", "small", "--files", "3000", "--workload", "sqlite", "--mover", "fsmigrate watch")
			if !vol.Eventually(60*time.Second, func() bool { return c.when(s.lab.Dir) }) {
				t.Errorf("it did not come so far: %s", s.out.String())
			}
			pid, sig := s.cmd.Process.Pid, syscall.SIGTERM
			if c.group {
				pid, sig = -pid, syscall.SIGINT
			}
			if err := syscall.Kill(pid, sig); err != nil {
				t.Error(err)
			}
			if code := s.ended(t); code != 1 || !strings.Contains(s.err.String(), "interrupted") {
				t.Errorf("exit %d: %s", code, s.err.String())
			}
			if _, err := os.Stat(s.report); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("it reported something: %v", err)
			}
		})
	}
}

func exists(dir, pattern string) bool {
	found, err := filepath.Glob(filepath.Join(dir, pattern))
	return err == nil && len(found) > 0
}

// A workload that dies ends the run with what it said.
func TestWorkloadThatDies(t *testing.T) {
	for command, want := range map[string][]string{
		`echo ready; sleep 0.5; echo "out of patience" >&2; exit 7`:                           {"exit status 7", "out of patience"},
		`echo "no such database" >&2; exit 3`:                                                 {"before it was ready", "exit status 3", "no such database"},
		`echo ready; echo "12 ms"; sleep 60`:                                                  {"docs/bench.md", "12 ms"},
		`trap 'echo "cannot stop" >&2; exit 9' TERM; echo ready; while :; do sleep 0.1; done`: {"exit status 9", "cannot stop"},
	} {
		s := start(t, "--scenario", "small", "--files", "10", "--command", command, "--mover", "none")
		if code := s.ended(t); code != 1 {
			t.Errorf("%s: exit %d", command, code)
		}
		for _, w := range want {
			if !strings.Contains(s.err.String(), w) {
				t.Errorf("%s: it does not say %q: %s", command, w, s.err.String())
			}
		}
		if _, err := os.Stat(s.report); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: it reported something: %v", command, err)
		}
	}
}

// A command of the user's is a workload, also one that knows no schedule.
func TestOwnCommand(t *testing.T) {
	s := start(t, "--scenario", "small", "--files", "10", "--rate", "20", "--mover", "none", "--json",
		"--command", `echo ready; while :; do echo x >> "$FSMIGRATE_BENCH_DIR/own"; echo lat 150 2; sleep 0.05; done`)
	if code := s.ended(t); code != 0 {
		t.Fatalf("exit %d: %s", code, s.err.String())
	}
	var r result.Report
	if err := json.Unmarshal(s.out.Bytes(), &r); err != nil {
		t.Fatal(err)
	}
	c := r.Find("small", Own, result.Baseline)
	if c == nil || c.Latency[result.Before].Count < 5 || c.Latency[result.Before].P50 > 50 || !r.Workloads[0].Filled {
		t.Errorf("%+v", c)
	}
}

// What cannot work is said before anything is made.
func TestRefusedBeforeAnythingIsMade(t *testing.T) {
	lab := vol.New(t)
	used, blank := lab.Device(3000), lab.Device(3000)
	vol.Mkfs(t, "ext4", used)
	for _, c := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"--scenario", "large", "--large", "500P"}, 3, "scenario large needs up to"},
		{[]string{"--source-device", blank, "--spare-device", used}, 3, "is not blank"},
		{[]string{"--source-device", lab.Path("file"), "--spare-device", blank}, 3, "not a block device"},
		{[]string{"--source-device", blank}, 2, "one side only"},
		{[]string{"--dir", "/dev/shm"}, 3, "in memory"},
		{[]string{"--mover", "scp"}, 2, "there is no"},
		{[]string{"--workload", "nothing"}, 2, "there is no"},
		{[]string{"--policy", "fast"}, 2, "policy"},
		{[]string{"--runs", "0", "--files", "-1"}, 2, "out of range"},
	} {
		s := start(t, c.args...)
		if code := s.ended(t); code != c.code || !strings.Contains(s.err.String(), c.says) || !strings.Contains(s.err.String(), "hint: ") {
			t.Errorf("%v: exit %d: %s", c.args, code, s.err.String())
		}
	}
	if found, err := blockdev.Signatures(used); err != nil || len(found) == 0 {
		t.Errorf("the device that was refused has lost its file system: %v", err)
	}
}

// Two devices of the user's take the place of the images, and are as blank as before.
func TestOnDevices(t *testing.T) {
	lab := vol.New(t)
	a, b := lab.Device(2600), lab.Device(2600)
	s := start(t, "--scenario", "small", "--files", "50", "--workload", "append", "--mover", "cp -a", "--source-device", a, "--spare-device", b)
	if code := s.ended(t); code != 0 {
		t.Fatalf("exit %d: %s", code, s.err.String())
	}
	for _, d := range []string{a, b} {
		if found, err := blockdev.Signatures(d); err != nil || len(found) > 0 {
			t.Errorf("%s: %v, %v", d, found, err)
		}
	}
}

// What is not installed is listed, and has no number.
func TestNotInstalledIsNotRun(t *testing.T) {
	t.Setenv("PATH", "")
	b := &bench{o: Options{}.withDefaults(), rep: &result.Report{}}
	for _, g := range b.plan() {
		for _, m := range g.movers {
			if slices.Contains([]string{"rsync two-pass", "fpsync"}, m.name) {
				t.Errorf("%s would run without its program", m.name)
			}
		}
		if g.workload.Name == "fio" {
			t.Error("fio would run without its program")
		}
	}
	for _, want := range []result.NotRun{{Mover: "rsync two-pass", Why: "not installed: rsync"}, {Workload: "fio", Why: "not installed: fio"}} {
		if !slices.Contains(b.rep.NotRun, want) {
			t.Errorf("%v does not list %v", b.rep.NotRun, want)
		}
	}
}

// The most telling comes first: with little time, each scenario is measured once before
// the first of them is measured again.
func TestEveryScenarioBeforeMoreWorkloads(t *testing.T) {
	b := &bench{o: Options{}.withDefaults(), rep: &result.Report{}}
	var got []string
	for _, g := range b.plan() {
		got = append(got, g.scenario.Name+" "+g.workload.Name)
	}
	if len(got) < 5 || !slices.Equal(got[:4], []string{"small mixed", "large mixed", "btrfs mixed", "small sqlite"}) {
		t.Errorf("%v", got)
	}
}

// How long a size will take is guessed from those before it.
func TestExpected(t *testing.T) {
	for _, c := range []struct {
		had  []sized
		n    int
		want time.Duration
	}{
		{nil, 1000, 0},
		{[]sized{{1000, 10 * time.Second}}, 11_000, 20 * time.Second},
		{[]sized{{1000, time.Second}, {10_000, 10 * time.Second}, {20_000, 18 * time.Second}}, 120_000, 118 * time.Second},
		{[]sized{{1000, 9 * time.Second}, {10_000, 8 * time.Second}}, 100_000, 8 * time.Second},
	} {
		if got := expected(c.had, c.n); got != c.want {
			t.Errorf("%v, %d files: %v, want %v", c.had, c.n, got, c.want)
		}
	}
}

// What the budget does not allow is listed, too.
func TestBudgetIsKept(t *testing.T) {
	b := &bench{o: Options{Budget: time.Minute}, rep: &result.Report{}, begun: time.Now().Add(-50 * time.Second), runs: 2, spent: 40 * time.Second}
	g := group{scenario: Scenarios[0], movers: catalog[:1]}
	if err := b.try(t.Context(), nil, g, g.movers[0], &tally{}, 0); err != nil || len(b.rep.NotRun) != 1 || !strings.Contains(b.rep.NotRun[0].Why, "--budget 1m0s") {
		t.Errorf("%v, %v", err, b.rep.NotRun)
	}
}

// What fsmigrate is at is read from the events it prints, however they are cut.
func TestStagesAreHeard(t *testing.T) {
	var s stages
	said := `{"event":"plan","proposal":{}}
{"event":"phase","at":"2026-01-02T03:04:05Z","phase":"copy"}
{"event":"progress","at":"2026-01-02T03:04:06Z","phase":"copy"}
no event
{"event":"phase","at":"2026-01-02T03:04:07Z","from":"copy","phase":"hold"}
{"event":"phase"`
	for i := range len(said) {
		if n, err := s.Write([]byte(said[i : i+1])); n != 1 || err != nil {
			t.Fatal(n, err)
		}
	}
	zero := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	want := []result.Stage{{Name: "copy", From: zero, To: zero.Add(2 * time.Second)}, {Name: "hold", From: zero.Add(2 * time.Second), To: zero.Add(time.Minute)}}
	if got := s.until(zero.Add(time.Minute)); !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// The meter sees a child's child, in time and in memory.
func TestMeterSeesTheWholeTree(t *testing.T) {
	m := newMeter()
	defer m.close()
	err := m.run(t.Context(), []int{3}, "sh", "-c", `head -c 60000000 /dev/zero | sh -c 'x=$(tr "\0" y); i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; exit 3'; exit 3`)
	if err != nil {
		t.Fatal(err)
	}
	cpu, peak := m.read()
	if cpu < 50*time.Millisecond || peak < 50<<20 {
		t.Errorf("%v, %d MiB", cpu, peak>>20)
	}
	if err := m.run(t.Context(), nil, "sh", "-c", "echo why >&2; exit 4"); err == nil || !strings.Contains(err.Error(), "exit status 4: why") {
		t.Errorf("%v", err)
	}
}

// What other programs do beside the benchmark is told apart from what it does itself.
func TestOthersAreSeen(t *testing.T) {
	own := usage{user: 500, own: 100, all: 1000}
	for _, c := range []struct {
		then usage
		want float64
	}{{usage{700, 300, 2000}, 0}, {usage{700, 100, 2000}, .2}, {usage{700, 350, 2000}, 0}, {own, 0}} {
		if got := c.then.others(own); got != c.want {
			t.Errorf("%+v: %v, want %v", c.then, got, c.want)
		}
	}
	before := used()
	if err := exec.Command("sh", "-c", "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done").Run(); err != nil {
		t.Fatal(err)
	}
	if now := used(); now.own <= before.own || now.user <= before.user || now.all <= before.all {
		t.Errorf("%+v, then %+v", before, now)
	}
}

// A benchmark that was killed leaves loops and images: the next one clears them, and
// leaves those alone whose benchmark lives.
func TestNextClearsWhatWasKilled(t *testing.T) {
	dir := vol.New(t).Dir
	o := Options{Dir: dir}
	killed, err := openLab(o, smallScenario(10))
	if err != nil {
		t.Fatal(err)
	}
	alive, err := openLab(o, smallScenario(10))
	if err != nil {
		t.Fatal(err)
	}
	if err := killed.lock.Close(); err != nil { // as its end would
		t.Fatal(err)
	}
	next, err := openLab(o, smallScenario(10))
	if err != nil {
		t.Fatal(err)
	}
	if exists(killed.root, "") || !exists(alive.root, "source.img") {
		t.Error("it cleared the wrong ones")
	}
	if err := errors.Join(alive.close(), next.close()); err != nil {
		t.Error(err)
	}
	if left := vol.Leftovers(dir); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestProblemsKeepTheirKind(t *testing.T) {
	var said bytes.Buffer
	if err := Inside(t.Context(), `{"dir":"/nonexistent","scenarios":["small"],"workloads":["mixed"]}`, &said); err != nil {
		t.Fatal(err)
	}
	last := hear(&said, func(string) {})
	if last.Problem == nil || last.Problem.Kind != migrate.Failed || !strings.Contains(last.Problem.What, "nonexistent") {
		t.Errorf("%+v", last)
	}
}
