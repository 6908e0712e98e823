package disrupt

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/fsmigrate/fsmigrate/bench/oplog"
	"github.com/fsmigrate/fsmigrate/bench/work"
)

// app is the application of a run: it is started and stopped as an init system would,
// and what it says of its operations is kept.
type app struct {
	o       work.Options
	argv    func(o work.Options) []string
	command string // the user's, for sh -c, instead
	filled  bool   // it has no schedule of its own
	failed  chan error

	turn sync.Mutex // one start or stop at a time

	mu    sync.Mutex
	child *child
	ops   []oplog.Op
	notes []string
	asked time.Time // when it was told to stop, last
	ready time.Time // when it said that it is ready, last
}

// child is a process of the application.
type child struct {
	cmd     *exec.Cmd
	said    tailBuffer // what it said beside its operations
	works   chan struct{}
	ended   chan struct{}
	err     error // after ended
	stopped bool  // it was told to
	lines   error // what was wrong with its lines
}

// How long an application may take to start, initialising its files included, and to
// stop, finishing what it is at.
const (
	startLimit = 2 * time.Minute
	stopLimit  = time.Minute
)

func newApp(o work.Options, self, command string, filled bool) *app {
	a := &app{o: o, command: command, filled: filled, failed: make(chan error, 1)}
	a.argv = func(o work.Options) []string {
		told, _ := json.Marshal(o) // strings and numbers
		return []string{self, "bench-app", "work", string(told)}
	}
	if command != "" {
		a.argv = func(work.Options) []string { return []string{"sh", "-c", command} }
	}
	return a
}

// start starts it and returns when it says that it is ready. One that runs is left alone.
func (a *app) start(ctx context.Context) error {
	a.turn.Lock()
	defer a.turn.Unlock()
	a.mu.Lock()
	running := a.child != nil
	o := a.next()
	a.mu.Unlock()
	if running {
		return nil
	}
	argv := a.argv(o)
	c := &child{cmd: exec.Command(argv[0], argv[1:]...), works: make(chan struct{}), ended: make(chan struct{})}
	c.cmd.Stderr = &c.said
	c.cmd.Dir = "/"
	c.cmd.Env = append(os.Environ(), "FSMIGRATE_BENCH_DIR="+o.Dir, "FSMIGRATE_BENCH_RATE="+strconv.FormatFloat(o.Rate, 'g', -1, 64),
		"FSMIGRATE_BENCH_EPOCH="+strconv.FormatInt(o.Epoch, 10), "FSMIGRATE_BENCH_FROM="+strconv.FormatInt(o.From, 10))
	// A group of its own, below ours: what a shell started is stopped with it.
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := c.cmd.Start(); err != nil {
		return fmt.Errorf("start the workload: %w", err)
	}
	a.mu.Lock()
	a.child = c
	a.mu.Unlock()
	go a.watch(c, out)
	limit := time.NewTimer(startLimit)
	defer limit.Stop()
	select {
	case <-c.works:
		return nil
	case <-c.ended:
		return c.death()
	case <-ctx.Done():
		return errors.Join(context.Cause(ctx), a.kill(c))
	case <-limit.C:
		return errors.Join(fmt.Errorf("the workload did not say that it is ready within %s: %s", startLimit, c.said.String()), a.kill(c))
	}
}

// next is what the next process is told: the first operation that was not done, on the
// schedule of the first start.
func (a *app) next() work.Options {
	o := a.o
	if o.Epoch == 0 {
		o.Epoch = time.Now().UnixNano()
		a.o.Epoch = o.Epoch
	}
	o.From = int64(len(a.ops))
	return o
}

// watch takes in what a process says, to its end.
func (a *app) watch(c *child, out io.Reader) {
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, oplog.MaxLine+1)
	for lines.Scan() {
		if err := a.hear(c, lines.Text()); err != nil {
			c.lines = err
			break
		}
	}
	if err := errors.Join(c.lines, lines.Err()); err != nil {
		c.lines = fmt.Errorf("what it says cannot be read (the format is in docs/bench.md): %w", err)
		_ = syscall.Kill(-c.cmd.Process.Pid, syscall.SIGKILL)
		_, _ = io.Copy(io.Discard, out)
	}
	c.err = c.cmd.Wait()
	a.mu.Lock()
	died := !c.stopped
	if died && a.child == c {
		a.child = nil
	}
	a.mu.Unlock()
	close(c.ended)
	if died {
		a.fail(c.death())
	}
}

// fail ends the run: the first reason is the one that is told.
func (a *app) fail(err error) {
	select {
	case a.failed <- err:
	default:
	}
}

// hear takes in a line.
func (a *app) hear(c *child, text string) error {
	now := time.Now()
	l, err := oplog.Parse(text, now)
	if err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	switch l.Kind {
	case oplog.Operation:
		a.ops = append(a.ops, l.Op)
		if l.Op.Failed && l.Text != "" {
			a.note("an operation failed: " + l.Text)
		}
	case oplog.Note:
		a.note(l.Text)
	case oplog.Ready:
		select {
		case <-c.works:
		default:
			a.ready = now
			close(c.works)
		}
	}
	return nil
}

func (a *app) note(text string) {
	if len(a.notes) < 10 {
		a.notes = append(a.notes, text)
	}
}

// death is why a process ended, with the end of what it said.
func (c *child) death() error {
	err := errors.Join(c.lines, c.err)
	if err == nil {
		err = errors.New("by itself, with status 0")
	}
	when := "the workload ended"
	select {
	case <-c.works:
	default:
		when += " before it was ready"
	}
	if said := c.said.String(); said != "" {
		return fmt.Errorf("%s: %w; it said:\n%s", when, err, said)
	}
	return fmt.Errorf("%s: %w; it said nothing", when, err)
}

// stop ends it in order and returns when it has ended. One that does not run is left alone.
func (a *app) stop() error {
	a.turn.Lock()
	defer a.turn.Unlock()
	a.mu.Lock()
	c := a.child
	a.child = nil
	if c != nil {
		c.stopped, a.asked = true, time.Now()
	}
	a.mu.Unlock()
	if c == nil {
		return nil
	}
	pid := c.cmd.Process.Pid
	if a.command != "" {
		pid = -pid // all that the shell started; our own look after their children
	}
	_ = syscall.Kill(pid, syscall.SIGTERM) // it may have ended
	limit := time.NewTimer(stopLimit)
	defer limit.Stop()
	select {
	case <-c.ended:
	case <-limit.C:
		return errors.Join(fmt.Errorf("the workload did not stop within %s", stopLimit), a.kill(c))
	}
	var exit *exec.ExitError
	if a.command != "" && errors.As(c.err, &exit) && exit.Sys().(syscall.WaitStatus).Signaled() && c.lines == nil {
		return nil // it ended by our signal, as a program without a handler does
	}
	if c.err != nil || c.lines != nil {
		return fmt.Errorf("told to stop, %w", c.death())
	}
	return nil
}

// kill ends a process and all that it started, at once.
func (a *app) kill(c *child) error {
	a.mu.Lock()
	c.stopped = true
	if a.child == c {
		a.child = nil
	}
	a.mu.Unlock()
	err := syscall.Kill(-c.cmd.Process.Pid, syscall.SIGKILL)
	<-c.ended
	if errors.Is(err, syscall.ESRCH) {
		return nil
	}
	return err
}

// behind is how late the last operation that was heard of was, and how long ago it was due.
func (a *app) behind() (late, ago time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.ops) == 0 {
		return 0, 0
	}
	last := a.ops[len(a.ops)-1]
	return last.Latency(), time.Since(time.Unix(0, last.Due))
}

// heard is everything that it said. It has ended.
func (a *app) heard() ([]oplog.Op, []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	ops := a.ops
	if a.filled && a.o.Rate > 0 {
		ops = oplog.Backfill(ops, time.Duration(float64(time.Second)/a.o.Rate))
	}
	return ops, a.notes
}

// moments are the last stop and the last start.
func (a *app) moments() (asked, ready time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.asked, a.ready
}

// tailBuffer keeps the end of what is written to it.
type tailBuffer struct {
	mu sync.Mutex
	b  []byte
}

const tailSize = 4 << 10

func (t *tailBuffer) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, b...)
	if len(t.b) > 2*tailSize {
		t.b = bytes.Clone(t.b[len(t.b)-tailSize:])
	}
	return len(b), nil
}

func (t *tailBuffer) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return tail(t.b)
}

// tail is the end of what a program said.
func tail(b []byte) string {
	s := strings.TrimSpace(string(b))
	if len(s) > tailSize {
		s = "… " + s[len(s)-tailSize:]
	}
	return s
}
