package host

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fsmigrate/fsmigrate/control"
	"github.com/fsmigrate/fsmigrate/migrate"
	"github.com/fsmigrate/fsmigrate/status"
)

// engine is an Engine that a test drives.
type engine struct {
	mu     sync.Mutex
	status migrate.Status
	events migrate.Events
	end    chan error
	ask    func(migrate.Request) error
}

func newEngine() *engine {
	return &engine{end: make(chan error), status: migrate.Status{ID: "data", Phase: migrate.Copy, Truth: migrate.Source, Running: true}}
}

func (e *engine) Run(ctx context.Context) (migrate.Outcome, error) {
	select {
	case err := <-e.end:
		return migrate.Outcome{Phase: e.Status().Phase, Report: migrate.Report{ID: "data", Phase: e.Status().Phase}}, err
	case <-ctx.Done():
		return migrate.Outcome{}, &migrate.Problem{Kind: migrate.Stopped, What: "stopped"}
	}
}

func (e *engine) Request(_ context.Context, r migrate.Request) error { return e.ask(r) }

func (e *engine) Status() migrate.Status {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.status
}

func (e *engine) enter(p migrate.Phase) {
	e.mu.Lock()
	from := e.status.Phase
	e.status.Phase = p
	e.mu.Unlock()
	e.events.Phase(from, p, "")
}

// start runs a host around a new engine; ended gets what Run answers.
func start(t *testing.T, ctx context.Context, o Options) (*engine, *Host, chan error) {
	t.Helper()
	if o.Dir == "" {
		o.Dir = t.TempDir()
	}
	e, h := newEngine(), New(o)
	e.events = h.Events()
	ended := make(chan error, 1)
	go func() {
		_, err := h.Run(ctx, e)
		ended <- err
	}()
	for end := time.Now().Add(10 * time.Second); !control.Alive(o.Dir); {
		if time.Now().After(end) {
			t.Fatal("the socket does not answer")
		}
	}
	return e, h, ended
}

// stuck is a display on a terminal that was stopped with Ctrl-S.
type stuck struct{ free chan struct{} }

func (s stuck) Event(status.Event) { <-s.free }
func (s stuck) Say(string)         { <-s.free }
func (s stuck) Close()             {}

// Neither a stopped terminal nor a client that does not read keeps the engine waiting.
func TestSlowWatchersCostNothing(t *testing.T) {
	dir := t.TempDir()
	d := stuck{make(chan struct{})}
	e, _, ended := start(t, t.Context(), Options{Dir: dir, Display: d})
	c, err := net.Dial("unix", filepath.Join(dir, control.Socket))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte(`{"v":1,"do":"watch"}` + "\n")); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	for range 20 * depth {
		e.events.Progress(migrate.Progress{Phase: migrate.Copy})
		e.events.PassDone(migrate.PassResult{Units: 1}, migrate.Backlog{})
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("took %s", took)
	}
	close(d.free)
	e.end <- nil
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestWatchTellsEveryPhase(t *testing.T) {
	dir := t.TempDir()
	metrics, report := filepath.Join(dir, "m.prom"), filepath.Join(dir, "report.json")
	e, _, ended := start(t, t.Context(), Options{Dir: dir, Extras: Extras{Report: report, Metrics: metrics}})
	first := make(chan struct{})
	var once sync.Once
	var seen []string
	watched := make(chan error, 1)
	var last migrate.Status
	go func() {
		watched <- control.Do(t.Context(), dir, control.Watch, "", func(raw json.RawMessage) {
			var s migrate.Status
			if err := json.Unmarshal(raw, &s); err != nil {
				t.Error(err)
			}
			if len(seen) == 0 || seen[len(seen)-1] != string(s.Phase) {
				seen = append(seen, string(s.Phase))
			}
			once.Do(func() { close(first) })
		}, &last)
	}()
	<-first
	e.enter(migrate.Finalized)
	e.end <- nil
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if err := <-watched; err != nil {
		t.Error(err)
	}
	if got := strings.Join(seen, " "); got != "copy finalized" || last.Phase != migrate.Finalized {
		t.Errorf("seen %s, last %s", got, last.Phase)
	}
	for path, want := range map[string]string{metrics: `fsmigrate_phase{id="data",phase="finalized"} 1`, report: `"phase": "finalized"`} {
		b, err := os.ReadFile(path)
		if err != nil || !strings.Contains(string(b), want) {
			t.Errorf("%s: %q, %v", path, b, err)
		}
	}
}

func TestRequestReachesTheEngine(t *testing.T) {
	dir := t.TempDir()
	e, _, ended := start(t, t.Context(), Options{Dir: dir})
	e.ask = func(r migrate.Request) error {
		if r.Kind != migrate.AskCutover || !strings.HasPrefix(r.Who, "fsmigrate cutover (uid ") {
			t.Errorf("asked %+v", r)
		}
		e.enter(migrate.Cutover)
		e.events.Cutover("fence", time.Millisecond, nil)
		go e.enter(migrate.Reverse) // the answer may come first
		return nil
	}
	var events []string
	var after migrate.Status
	err := control.Do(t.Context(), dir, "cutover", "fsmigrate cutover", func(raw json.RawMessage) {
		var ev status.Event
		if err := json.Unmarshal(raw, &ev); err != nil {
			t.Error(err)
		}
		events = append(events, ev.Event+ev.Step)
	}, &after)
	if err != nil || after.Phase != migrate.Reverse || !strings.HasPrefix(strings.Join(events, " "), "phase cutoverfence") {
		t.Errorf("%v, after %s, events %v", err, after.Phase, events)
	}
	e.ask = func(migrate.Request) error { return &migrate.Problem{Kind: migrate.IsRefused, What: "no", Hint: "yes"} }
	if err := control.Do(t.Context(), dir, "abort", "", nil, nil); migrate.KindOf(err) != migrate.IsRefused || migrate.HintOf(err) != "yes" {
		t.Errorf("refusal: %v", err)
	}
	e.end <- nil
	<-ended
}

func TestSystemdHears(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	t.Setenv("NOTIFY_SOCKET", path)
	t.Setenv("WATCHDOG_USEC", "20000")
	ctx, stop := context.WithCancel(t.Context())
	_, _, ended := start(t, ctx, Options{})
	seen := map[string]int{}
	hear := func() string {
		b := make([]byte, 200)
		if err := l.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		n, err := l.Read(b)
		if err != nil {
			t.Fatalf("%v, heard %v", err, seen)
		}
		seen[string(b[:n])]++
		return string(b[:n])
	}
	if first := hear(); first != "READY=1" {
		t.Errorf("first %q", first)
	}
	for range 3 {
		if got := hear(); got != "WATCHDOG=1\nSTATUS=copy, truth source" {
			t.Errorf("then %q", got)
		}
	}
	stop()
	for hear() != "STOPPING=1" {
	}
	if err := <-ended; migrate.KindOf(err) != migrate.Stopped {
		t.Errorf("got %v", err)
	}
}

func TestExtras(t *testing.T) {
	dir := t.TempDir()
	if e, err := LoadExtras(dir); err != nil || e != (Extras{}) {
		t.Errorf("none saved: %+v, %v", e, err)
	}
	t.Chdir(dir)
	if err := (Extras{Report: "r.json"}).Save(dir); err != nil {
		t.Fatal(err)
	}
	if e, err := LoadExtras(dir); err != nil || e.Report != filepath.Join(dir, "r.json") || e.Metrics != "" {
		t.Errorf("%+v, %v", e, err)
	}
	if err := os.WriteFile(filepath.Join(dir, extrasName), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadExtras(dir); err == nil {
		t.Error("half a file was read")
	}
}

// A report or metrics file that cannot be written does not hide how the run ended.
func TestFilesThatCannotBeWritten(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "none", "file")
	e, _, ended := start(t, t.Context(), Options{Extras: Extras{Report: missing, Metrics: missing}})
	e.end <- nil
	if err := <-ended; !errors.Is(err, os.ErrNotExist) {
		t.Errorf("nothing says that there is no report: %v", err)
	}
	e, _, ended = start(t, t.Context(), Options{Extras: Extras{Report: missing}})
	e.end <- &migrate.Problem{Kind: migrate.WasAborted, What: "aborted"}
	if err := <-ended; migrate.KindOf(err) != migrate.WasAborted {
		t.Errorf("got %v", err)
	}
}

// lines keeps what a display was told.
type lines struct {
	mu sync.Mutex
	e  []status.Event
}

func (l *lines) Event(e status.Event) { l.mu.Lock(); l.e = append(l.e, e); l.mu.Unlock() }
func (l *lines) Say(string)           {}
func (l *lines) Close()               {}

// A migration that ends otherwise than finalized still says that its report was not written.
func TestReportNotWrittenIsSaid(t *testing.T) {
	dir := t.TempDir()
	d := new(lines)
	e, _, ended := start(t, t.Context(), Options{Dir: dir, Display: d, Extras: Extras{Report: filepath.Join(dir, "none", "report.json")}})
	e.enter(migrate.RolledBack)
	e.end <- &migrate.Problem{Kind: migrate.WasReverted, What: "rolled back"}
	if err := <-ended; migrate.KindOf(err) != migrate.WasReverted {
		t.Error(err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	last := d.e[len(d.e)-1]
	if last.Event != "warning" || !strings.Contains(last.Why, "report.json") {
		t.Errorf("the last that is said: %+v", last)
	}
}
