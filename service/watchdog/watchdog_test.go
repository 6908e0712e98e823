package watchdog

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fsmigrate/fsmigrate/migrate"
)

// TestMain makes the test binary the watchdog's process too.
func TestMain(m *testing.M) {
	if dir := os.Getenv("WATCHDOG_TEST_DIR"); dir != "" {
		os.Exit(child(dir))
	}
	os.Exit(m.Run())
}

func child(dir string) int {
	seq, _ := strconv.Atoi(os.Args[1])
	deadline, _ := time.ParseDuration(os.Args[2])
	err := Run(context.Background(), Options{
		Dir: dir, ID: "data", Seq: seq, Deadline: deadline, Engine: os.Stdin, Store: &store{dir: dir},
		Settle: func(_ context.Context, truth migrate.Side) error { return note(dir, "settle "+string(truth)) },
		Start: func(_ context.Context, env migrate.Env) error {
			return note(dir, fmt.Sprintf("start %s on %s", env.ID, env.Truth))
		},
		retry: 10 * time.Millisecond,
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// note appends a line to what was done, in order.
func note(dir, line string) error {
	f, err := os.OpenFile(filepath.Join(dir, "did"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(f, line)
	return errors.Join(err, f.Close())
}

func did(t *testing.T, dir string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, "did"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return strings.ReplaceAll(strings.TrimSpace(string(b)), "\n", "; ")
}

// store is a migrate.Store in a directory: records by number, made with link(2).
type store struct {
	dir  string
	mu   sync.Mutex
	fail error // of Commit, while it is not nil
	left int   // how often; <0: always

	audit []string // lines of the audit log
}

func (s *store) Load(context.Context) (migrate.State, error) {
	return migrate.State{Phase: migrate.Cutover, Service: "stopped"}, nil
}
func (s *store) Save(context.Context, migrate.State) error { return nil }
func (s *store) name(seq int) string                       { return filepath.Join(s.dir, fmt.Sprintf("record.%d", seq)) }
func (s *store) Audit(_ context.Context, event string, fields map[string]any) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.audit = append(s.audit, fmt.Sprintf("%s of %v", event, fields["seq"]))
	return nil
}
func (s *store) Truth(context.Context) (r migrate.Record, err error) {
	for seq := 0; ; seq++ {
		b, err := os.ReadFile(s.name(seq))
		if err != nil {
			return r, nil
		}
		if err := json.Unmarshal(b, &r); err != nil {
			return r, err
		}
	}
}

func (s *store) Commit(ctx context.Context, r migrate.Record) (migrate.Record, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail != nil && s.left != 0 {
		s.left--
		return r, s.fail
	}
	b, err := json.Marshal(r)
	if err != nil {
		return r, err
	}
	tmp, err := os.CreateTemp(s.dir, "tmp")
	if err != nil {
		return r, err
	}
	defer os.Remove(tmp.Name())
	if _, err := tmp.Write(b); err != nil {
		return r, err
	}
	if err := tmp.Close(); err != nil {
		return r, err
	}
	if err := os.Link(tmp.Name(), s.name(r.Seq)); err == nil {
		return r, nil
	}
	if b, err = os.ReadFile(s.name(r.Seq)); err != nil {
		return r, err
	}
	return r, json.Unmarshal(b, &r)
}

// setup is a state directory whose record 0 says source.
func setup(t *testing.T) (string, *store) {
	t.Helper()
	s := &store{dir: t.TempDir()}
	if _, err := s.Commit(t.Context(), migrate.Record{Truth: migrate.Source, By: "engine"}); err != nil {
		t.Fatal(err)
	}
	return s.dir, s
}

func client(t *testing.T, dir string) (*Client, chan error, func() int) {
	t.Helper()
	lost := make(chan error, 1)
	var mu sync.Mutex
	var last *exec.Cmd
	c := &Client{
		Dir: dir, DisarmWithin: 10 * time.Second,
		Command: func(seq int, deadline time.Duration) *exec.Cmd {
			cmd := exec.Command("/proc/self/exe", strconv.Itoa(seq), deadline.String())
			cmd.Env = append(os.Environ(), "WATCHDOG_TEST_DIR="+dir)
			mu.Lock()
			last = cmd
			mu.Unlock()
			return cmd
		},
	}
	t.Cleanup(func() {
		if err := c.Disarm(); err != nil {
			t.Errorf("disarm: %v", err)
		}
	})
	return c, lost, func() int {
		mu.Lock()
		defer mu.Unlock()
		return last.Process.Pid
	}
}

func tell(lost chan error) func(error) { return func(err error) { lost <- err } }

// unheard is for a watchdog that is never armed.
func unheard(t *testing.T) func(error) {
	return func(err error) { t.Errorf("told of a watchdog that was never armed: %v", err) }
}

func commit(t *testing.T, s *store, seq int) migrate.Record {
	t.Helper()
	r, err := s.Commit(t.Context(), migrate.Record{Seq: seq, Truth: migrate.Shadow, By: "engine"})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestDisarmedAfterTheRecord(t *testing.T) {
	dir, s := setup(t)
	c, lost, _ := client(t, dir)
	if err := c.Disarm(); err != nil {
		t.Fatalf("without Arm: %v", err)
	}
	if err := c.Arm(t.Context(), 1, time.Minute, tell(lost)); err != nil {
		t.Fatal(err)
	}
	if err := c.Arm(t.Context(), 1, time.Minute, tell(lost)); err == nil {
		t.Error("armed twice")
	}
	if r := commit(t, s, 1); r.By != "engine" {
		t.Errorf("the record is %+v", r)
	}
	for range 2 {
		if err := c.Disarm(); err != nil {
			t.Fatal(err)
		}
	}
	if d := did(t, dir); d != "" {
		t.Errorf("a disarmed watchdog did: %s", d)
	}
	select {
	case err := <-lost:
		t.Errorf("reported lost: %v", err)
	default:
	}
	if err := c.Arm(t.Context(), 2, time.Minute, tell(lost)); err != nil {
		t.Errorf("again, for the next attempt: %v", err)
	}
}

// The deadline passes while the engine is stopped or hung: undone without it, and
// when it wakes its record is lost.
func TestDeadline(t *testing.T) {
	dir, s := setup(t)
	c, lost, _ := client(t, dir)
	if err := c.Arm(t.Context(), 1, 50*time.Millisecond, tell(lost)); err != nil {
		t.Fatal(err)
	}
	if err := <-lost; !strings.Contains(err.Error(), "deadline") {
		t.Errorf("lost: %v", err)
	}
	if r := commit(t, s, 1); r.By != "watchdog" || r.Truth != migrate.Source || r.BootID == "" || !strings.Contains(r.Why, "50ms") {
		t.Errorf("the record is %+v", r)
	}
	if d := did(t, dir); d != "settle source; start data on source" {
		t.Errorf("it did: %s", d)
	}
}

// The record is there, the start hook is slow: the deadline is not for it.
func TestDeadlineAfterTheRecordIsNone(t *testing.T) {
	dir, s := setup(t)
	c, lost, _ := client(t, dir)
	if err := c.Arm(t.Context(), 1, 300*time.Millisecond, tell(lost)); err != nil {
		t.Fatal(err)
	}
	commit(t, s, 1)
	select {
	case err := <-lost:
		t.Fatalf("it acted: %v", err)
	case <-time.After(600 * time.Millisecond):
	}
	if err := c.Disarm(); err != nil {
		t.Fatal(err)
	}
	if d := did(t, dir); d != "" {
		t.Errorf("it did: %s", d)
	}
}

// in runs a watchdog in this process; engine is the engine's end.
func in(t *testing.T, o Options) (engine net.Conn, ended chan error) {
	t.Helper()
	engine, theirs := net.Pipe()
	t.Cleanup(func() { engine.Close(); theirs.Close() })
	o.Engine, o.retry, o.ID = theirs, 5*time.Millisecond, "data"
	if o.Deadline == 0 {
		o.Deadline = time.Minute
	}
	if o.Settle == nil {
		o.Settle = func(_ context.Context, truth migrate.Side) error { return note(o.Dir, "settle "+string(truth)) }
	}
	ended = make(chan error, 1)
	go func() { ended <- Run(t.Context(), o) }()
	line := make([]byte, 256)
	n, err := engine.Read(line)
	if err != nil {
		t.Fatal(err)
	}
	if got := string(line[:n]); got != sayArmed+"\n" {
		_, _ = io.Copy(io.Discard, engine)
		ended <- errors.New(got)
	}
	return engine, ended
}

func TestEngineKilled(t *testing.T) {
	for _, recorded := range []bool{false, true} {
		dir, s := setup(t)
		engine, ended := in(t, Options{Dir: dir, Seq: 1, Store: s, Start: func(_ context.Context, env migrate.Env) error {
			return note(dir, "start on "+string(env.Truth))
		}})
		want := "settle source; start on source"
		if recorded {
			commit(t, s, 1)
			want = "settle shadow; start on shadow"
		}
		engine.Close()
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
		if d := did(t, dir); d != want {
			t.Errorf("recorded %v: it did %s, want %s", recorded, d, want)
		}
		// The only trace that it leaves of why the service was stopped and started.
		if want := []string{"watchdog of 1", "watchdog-done of 1"}; !slices.Equal(s.audit, want) {
			t.Errorf("recorded %v: the audit log says %q, want %q", recorded, s.audit, want)
		}
	}
}

// Whoever commits first decides; the watchdog and the engine agree on who that was.
func TestCommitRace(t *testing.T) {
	for n := range 30 {
		dir, s := setup(t)
		engine, ended := in(t, Options{Dir: dir, Seq: 1, Store: s})
		go engine.Close()
		r := commit(t, s, 1)
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
		if d := did(t, dir); d != "settle "+string(r.Truth) {
			t.Errorf("round %d: engine learnt %s by %s, the watchdog did: %s", n, r.Truth, r.By, d)
		}
	}
}

// At the deadline the engine wins between the watchdog's look and its commit: the
// engine is alive and settles, the watchdog must not do so beside it.
func TestEngineWinsAtTheDeadline(t *testing.T) {
	dir, s := setup(t)
	late := &lateStore{store: s, t: t, looked: make(chan struct{})}
	engine, ended := in(t, Options{Dir: dir, Seq: 1, Store: late, Deadline: time.Millisecond})
	<-late.looked
	if _, err := io.WriteString(engine, sayDisarm+"\n"); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	if d := did(t, dir); d != "" {
		t.Errorf("it did: %s", d)
	}
}

// lateStore commits the engine's record after the watchdog has looked for one.
type lateStore struct {
	*store
	t      *testing.T
	looks  int
	looked chan struct{}
}

func (l *lateStore) Truth(ctx context.Context) (migrate.Record, error) {
	r, err := l.store.Truth(ctx)
	if l.looks++; l.looks == 2 { // the first is "what is unchanged"
		commit(l.t, l.store, 1)
		close(l.looked)
	}
	return r, err
}

func TestAmbiguousCommitDoesNothing(t *testing.T) {
	dir, s := setup(t)
	s.fail, s.left = &migrate.Ambiguous{Exact: "record 1 is there and was not synced"}, -1
	engine, ended := in(t, Options{Dir: dir, Seq: 1, Store: s})
	engine.Close()
	var a *migrate.Ambiguous
	if err := <-ended; !errors.As(err, &a) {
		t.Errorf("got %v", err)
	}
	if d := did(t, dir); d != "" {
		t.Errorf("it did: %s", d)
	}
}

func TestFailuresAreTriedAgain(t *testing.T) {
	dir, s := setup(t)
	s.fail, s.left = unix.ENOSPC, 3
	settles := 0
	engine, ended := in(t, Options{Dir: dir, Seq: 1, Store: s, Settle: func(context.Context, migrate.Side) error {
		if settles++; settles < 3 {
			return unix.EBUSY
		}
		return nil
	}})
	engine.Close()
	if err := <-ended; err != nil || settles != 3 {
		t.Errorf("%d settles, %v", settles, err)
	}
}

// A volume that cannot be settled does not get an application that writes to it.
func TestNoStartOnAnUnsettledVolume(t *testing.T) {
	dir, s := setup(t)
	engine, ended := in(t, Options{
		Dir: dir, Seq: 1, Store: s,
		Settle: func(context.Context, migrate.Side) error { return unix.EIO },
		Start:  func(context.Context, migrate.Env) error { return note(dir, "start") },
	})
	engine.Close()
	if err := <-ended; !errors.Is(err, unix.EIO) {
		t.Errorf("got %v", err)
	}
	if d := did(t, dir); d != "" {
		t.Errorf("it did: %s", d)
	}
}

// kill -9 of the watchdog itself: the engine hears it and can arm another one.
func TestWatchdogKilled(t *testing.T) {
	dir, s := setup(t)
	c, lost, pid := client(t, dir)
	if err := c.Arm(t.Context(), 1, time.Minute, tell(lost)); err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(pid(), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := <-lost; !strings.Contains(err.Error(), "killed") {
		t.Errorf("lost: %v", err)
	}
	if err := c.Disarm(); err != nil {
		t.Fatal(err)
	}
	if err := c.Arm(t.Context(), 1, time.Minute, tell(lost)); err != nil {
		t.Errorf("another one: %v", err)
	}
	if r := commit(t, s, 1); r.By != "engine" {
		t.Errorf("the record is %+v", r)
	}
}

// A watchdog that an engine which died had armed is settling: the next engine waits.
func TestLaterEngineWaits(t *testing.T) {
	dir, s := setup(t)
	settling, finish := make(chan struct{}), make(chan struct{})
	engine, ended := in(t, Options{Dir: dir, Seq: 1, Store: s, Settle: func(context.Context, migrate.Side) error {
		close(settling)
		<-finish
		return nil
	}})
	engine.Close()
	<-settling
	next := &Client{Dir: dir, DisarmWithin: 50 * time.Millisecond}
	if err := next.Disarm(); err == nil || migrate.HintOf(err) == "" {
		t.Errorf("did not wait: %v", err)
	}
	next.DisarmWithin = 10 * time.Second
	waited := make(chan error, 1)
	go func() { waited <- next.Disarm() }()
	close(finish)
	if err := <-waited; err != nil {
		t.Error(err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestNotArmed(t *testing.T) {
	dir, s := setup(t)
	commit(t, s, 1)
	c, _, _ := client(t, dir)
	if err := c.Arm(t.Context(), 1, time.Minute, unheard(t)); err == nil || !strings.Contains(err.Error(), "record 1 is there already") {
		t.Errorf("armed for a record that is there: %v", err)
	}
	lock, err := tryLock(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Arm(t.Context(), 2, time.Minute, unheard(t)); err == nil || !strings.Contains(err.Error(), lockName) {
		t.Errorf("armed beside another one: %v", err)
	}
	lock.Close()
	c.Command = func(int, time.Duration) *exec.Cmd { return exec.Command("sleep", "1000") }
	c.ArmWithin = 50 * time.Millisecond
	if err := c.Arm(t.Context(), 2, time.Minute, unheard(t)); err == nil || !strings.Contains(err.Error(), "did not say") {
		t.Errorf("armed by one that says nothing: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.Arm(ctx, 2, time.Minute, unheard(t)); !errors.Is(err, context.Canceled) {
		t.Errorf("armed without a context: %v", err)
	}
}
