package disrupt

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/fsmigrate/fsmigrate/migrate"
)

// ours is fsmigrate, through the command that people type.
type ours struct {
	s     *session
	hooks *hooks
	cmd   *exec.Cmd
	heard stages
	said  tailBuffer
	ended chan struct{}
	err   error // after ended
}

// migrationID is the migration's name; each run has a state directory of its own.
const migrationID = "bench"

// args are those of an fsmigrate command over the lab's own state and fstab.
func (m *ours) args(more ...string) []string {
	return append([]string{"--json", "--state", m.s.lab.migrations(), "--fstab", m.s.lab.fstab()}, more...)
}

func (m *ours) copy(ctx context.Context) (err error) {
	l := m.s.lab
	if m.hooks, err = listenHooks(ctx, l.socket(), m.s.app); err != nil {
		return err
	}
	hook := func(verb string) string { return quote(m.s.o.Self) + " bench-app " + verb + " " + quote(l.socket()) }
	m.cmd = exec.Command(m.s.o.Self, m.args("run", l.data(), "--to", l.scenario.To, "--spare", l.spare, "--wipe", "--id", migrationID, "--yes",
		"--no-supervisor", "--policy", m.s.o.Policy, "--stop", hook("stop"), "--start", hook("start"), "--pause-budget", "60s")...)
	m.cmd.Stdout, m.cmd.Stderr = &m.heard, &m.said
	m.ended = make(chan struct{})
	if err := m.s.meter.start(m.cmd); err != nil {
		m.cmd = nil
		return err
	}
	go func() {
		m.err = m.s.meter.wait(m.cmd)
		close(m.ended)
	}()
	if err := m.created(ctx); err != nil {
		return err
	}
	if err := m.ask(ctx, "wait", migrationID, "--for", "hold", "--timeout", "6h"); err != nil {
		return err
	}
	began := time.Now()
	defer func() { m.s.held = time.Since(began) }()
	return m.s.wait(ctx, m.s.o.Hold)
}

// created waits until the migration is there, or its engine is not.
func (m *ours) created(ctx context.Context) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		if _, err := os.Stat(filepath.Join(m.s.lab.migrations(), migrationID, "state.json")); err == nil {
			return nil
		}
		select {
		case <-m.ended:
			return m.failure()
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}

// failure is why the engine ended.
func (m *ours) failure() error {
	if m.err == nil {
		return errors.New("fsmigrate run ended by itself")
	}
	return fmt.Errorf("fsmigrate run: %w: %s", m.err, words(m.said.String()))
}

// words is a failure that a command told in JSON, as a person reads it.
func words(said string) string {
	lines := strings.Split(said, "\n")
	var f struct {
		Error struct{ What, Why, Hint string }
	}
	if json.Unmarshal([]byte(lines[len(lines)-1]), &f) != nil || f.Error.What == "" {
		return said
	}
	return strings.TrimSuffix(f.Error.What+": "+f.Error.Why, ": ")
}

// ask runs a command to its end. It fails early when the engine ended.
func (m *ours) ask(ctx context.Context, args ...string) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		select {
		case <-m.ended:
			cancel(m.failure())
		case <-ctx.Done():
		}
	}()
	c := exec.CommandContext(ctx, m.s.o.Self, m.args(args...)...)
	c.Cancel = func() error { return c.Process.Signal(syscall.SIGTERM) }
	c.WaitDelay = stopLimit
	var said tailBuffer
	c.Stderr = &said
	if err := m.s.meter.start(c); err != nil {
		return err
	}
	if err := m.s.meter.wait(c); err != nil {
		if cause := context.Cause(ctx); cause != nil {
			return cause
		}
		return fmt.Errorf("fsmigrate %s: %w: %s", args[0], err, words(said.String()))
	}
	return nil
}

// A cutover is refused, with nothing changed, when what is being written at that moment
// makes its pause too long, or it is not proven yet: its hint is to ask again.
const (
	attempts    = 20
	exitRefused = 3
)

func (m *ours) cutover(ctx context.Context) error {
	for n := 1; ; n++ {
		err := m.ask(ctx, "cutover", migrationID)
		var exit *exec.ExitError
		if err == nil || n == attempts || !errors.As(err, &exit) || exit.ExitCode() != exitRefused {
			return err
		}
		if err := m.s.wait(ctx, 500*time.Millisecond); err != nil {
			return err
		}
	}
}

// report is what the migration says of itself.
func (m *ours) report(ctx context.Context) (migrate.Report, error) {
	var s migrate.Status
	out, err := exec.CommandContext(ctx, m.s.o.Self, m.args("status", migrationID)...).Output()
	if err == nil {
		err = json.Unmarshal(out, &s)
	}
	if err != nil {
		return migrate.Report{}, fmt.Errorf("fsmigrate status: %w", err)
	}
	return s.Report, nil
}

// engineLimit bounds how long the engine may take to stop in order: what it began behind
// a fence it finishes.
const engineLimit = 30 * time.Second

func (m *ours) close() error {
	if m.cmd != nil {
		_ = m.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
		kill := time.AfterFunc(engineLimit, func() { _ = m.cmd.Process.Kill() })
		<-m.ended
		kill.Stop()
	}
	if m.hooks != nil {
		return m.hooks.close()
	}
	return nil
}
