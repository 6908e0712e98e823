package demo

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fsmigrate/fsmigrate/migrate"
	"github.com/fsmigrate/fsmigrate/status"
)

// id is the migration's name.
const id = "demo"

// engine is the migration under way: `fsmigrate run` in a process of its own.
type engine struct {
	paths
	self  string
	cmd   *exec.Cmd
	errs  bytes.Buffer
	ended chan struct{}
	err   error // after ended

	mu     sync.Mutex
	plan   *status.Proposal
	phases []migrate.Step
	change chan struct{} // closed and made anew at every event
}

// startEngine runs the command that a person would type.
func startEngine(p paths, self, spare string) (*engine, error) {
	e := &engine{paths: p, self: self, ended: make(chan struct{}), change: make(chan struct{})}
	hook := func(verb string) string { return quote(self) + " demo-app " + verb + " " + quote(p.socket()) }
	e.cmd = e.command("run", "--yes", "--id", id, "--to", "xfs", "--spare", spare, "--stop", hook("stop"), "--start", hook("start"),
		"--no-supervisor", "--report", p.report(), p.data())
	e.cmd.Stderr = &e.errs
	out, err := e.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := e.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start fsmigrate run: %w", err)
	}
	go func() {
		e.follow(bufio.NewScanner(out))
		e.err = e.cmd.Wait()
		close(e.ended)
	}()
	return e, nil
}

// command is an fsmigrate command over the demo's own state and fstab.
func (e *engine) command(args ...string) *exec.Cmd {
	c := exec.Command(e.self, append([]string{"--json", "--state", e.state(), "--fstab", e.fstab()}, args...)...)
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return c
}

func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// follow takes in the JSON lines of the engine: its plan, then its events.
func (e *engine) follow(lines *bufio.Scanner) {
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var line struct {
			status.Event
			Proposal *status.Proposal `json:"proposal"`
		}
		if json.Unmarshal(lines.Bytes(), &line) != nil {
			continue
		}
		e.mu.Lock()
		switch line.Event.Event {
		case "plan":
			e.plan = line.Proposal
		case "phase":
			e.phases = append(e.phases, migrate.Step{Phase: line.Phase, At: line.At, Note: line.Note})
		}
		close(e.change)
		e.change = make(chan struct{})
		e.mu.Unlock()
	}
}

// until returns when the engine's events satisfy ok. The lock is held in ok.
func (e *engine) until(ctx context.Context, k *keeper, what string, limit time.Duration, ok func() bool) error {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	for {
		e.mu.Lock()
		done, change := ok(), e.change
		e.mu.Unlock()
		if done {
			return nil
		}
		select {
		case <-change:
		case <-ctx.Done():
			return context.Cause(ctx)
		case err := <-k.failed:
			return err
		case <-e.ended:
			return fmt.Errorf("fsmigrate run ended before %s: %w", what, e.failure(e.err, e.errs.Bytes()))
		case <-timer.C:
			return fmt.Errorf("no %s within %s", what, limit)
		}
	}
}

// reached reports whether the engine is in a phase now. With the lock held.
func (e *engine) reached(p migrate.Phase) func() bool {
	return func() bool { return len(e.phases) > 0 && e.phases[len(e.phases)-1].Phase == p }
}

// ask runs a command to its end: cutover, rollback.
func (e *engine) ask(ctx context.Context, args ...string) error {
	c := e.command(args...)
	var errs bytes.Buffer
	c.Stderr = &errs
	if err := c.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- c.Wait() }()
	select {
	case err := <-ended:
		if err != nil {
			return fmt.Errorf("fsmigrate %s: %w", args[0], e.failure(err, errs.Bytes()))
		}
		return nil
	case <-ctx.Done():
		_ = c.Process.Signal(syscall.SIGTERM)
		<-ended
		return context.Cause(ctx)
	}
}

// insist asks again while the engine refuses because of what is being written at that
// moment, as its hint says to.
func (e *engine) insist(ctx context.Context, k *keeper, args ...string) error {
	for n := 1; ; n++ {
		err := e.ask(ctx, args...)
		var exit *exec.ExitError
		if err == nil || n == attempts || !errors.As(err, &exit) || exit.ExitCode() != exitRefused {
			return err
		}
		if err := k.wait(ctx, time.Second); err != nil {
			return err
		}
	}
}

const (
	attempts    = 10
	exitRefused = 3
)

// failure is what a command says on its standard error, as an error.
func (e *engine) failure(err error, said []byte) error {
	var f struct {
		Error struct{ What, Why, Hint string }
	}
	lines := strings.Split(strings.TrimSpace(string(said)), "\n")
	if json.Unmarshal([]byte(lines[len(lines)-1]), &f) == nil && f.Error.What != "" {
		return fmt.Errorf("%w: %s", errOr(err), strings.TrimSuffix(f.Error.What+": "+f.Error.Why, ": "))
	}
	return fmt.Errorf("%w: %s", errOr(err), strings.TrimSpace(string(said)))
}

// report is the migration's, as of now.
func (e *engine) readReport(ctx context.Context) (migrate.Report, error) {
	var s migrate.Status
	c := e.command("status", id)
	out, err := c.Output()
	if err != nil {
		return migrate.Report{}, fmt.Errorf("fsmigrate status: %w", err)
	}
	if err := json.Unmarshal(out, &s); err != nil {
		return migrate.Report{}, fmt.Errorf("fsmigrate status: %w", err)
	}
	return s.Report, ctx.Err()
}

// stopLimit bounds how long the engine may take to stop in order: what it began
// behind a fence it finishes.
const stopLimit = 20 * time.Second

// stop ends the engine, resumably as it thinks.
func (e *engine) stop() {
	_ = e.cmd.Process.Signal(syscall.SIGTERM)
	timer := time.NewTimer(stopLimit)
	defer timer.Stop()
	select {
	case <-e.ended:
	case <-timer.C:
		_ = e.cmd.Process.Kill()
		<-e.ended
	}
}

// adopt makes this process the parent of whatever its children leave behind.
func adopt() error { return unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) }

// reap ends what children left behind, such as the watchdog of an engine that was
// killed, and returns when they are gone or will not go.
func reap() {
	end := time.Now().Add(stopLimit)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for time.Now().Before(end) {
		left := children()
		if len(left) == 0 {
			return
		}
		for _, pid := range left {
			_ = unix.Kill(pid, unix.SIGKILL)
			_, _ = unix.Wait4(pid, nil, unix.WNOHANG, nil)
		}
		<-tick.C
	}
}

func children() []int {
	var list []int
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return nil
	}
	for _, t := range tasks {
		b, err := os.ReadFile("/proc/self/task/" + t.Name() + "/children")
		if err != nil {
			continue
		}
		for _, s := range strings.Fields(string(b)) {
			if pid, err := strconv.Atoi(s); err == nil {
				list = append(list, pid)
			}
		}
	}
	return list
}
