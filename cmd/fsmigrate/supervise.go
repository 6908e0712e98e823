package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"github.com/fsmigrate/fsmigrate/control/host"
	"github.com/fsmigrate/fsmigrate/migrate"
	"github.com/fsmigrate/fsmigrate/service"
	"github.com/fsmigrate/fsmigrate/service/watchdog"
	"github.com/fsmigrate/fsmigrate/statedir"
	"github.com/fsmigrate/fsmigrate/status"
)

// supervise makes this process the engine of the migration in dir, until it ends or
// is told to stop. ask is what it is there for; nil: to go on.
func (a *app) supervise(ctx context.Context, dir *statedir.Dir, ask *migrate.Request) error {
	ctx, release := untilSignal(ctx)
	defer release()
	if err := dir.Lock(); err != nil {
		return err
	}
	defer dir.Unlock()
	extras, err := host.LoadExtras(dir.Path())
	if err != nil {
		return err
	}
	display := status.NewDisplay(a.out, a.JSON, terminal(a.out))
	h := host.New(host.Options{Dir: dir.Path(), Display: display, Extras: extras, Advise: a.advise})
	engine, err := a.engine(ctx, dir, h, ask)
	if err != nil {
		display.Close()
		if cause := context.Cause(ctx); cause != nil && migrate.KindOf(err) == migrate.Failed {
			err = &migrate.Problem{Kind: migrate.Stopped, What: "stopped before " + dir.ID() + " was opened", Why: cause, Hint: "fsmigrate resume " + dir.ID()}
		}
		return err
	}
	outcome, err := h.Run(ctx, engine)
	display.Close()
	a.end(outcome)
	if ask == nil {
		return errors.Join(err, a.tidy(dir, outcome, err))
	}
	// What was refused is the request: the migration stays, also one that has changed nothing yet.
	if want, _ := ask.Kind.Ends(); outcome.Phase != want {
		return err
	}
	if service.Systemd() {
		disable(dir)
	}
	return nil // as it was asked to end
}

// end says how it ended: the last of the JSON lines, or a line.
func (a *app) end(o migrate.Outcome) {
	switch {
	case o.Report.ID == "":
	case a.JSON:
		_ = json.NewEncoder(a.out).Encode(map[string]any{"event": "end", "report": o.Report}) // who reads it may be gone
	default:
		fmt.Fprintln(a.out, status.EndLine(o.Report))
	}
}

// engine makes the engine with what acts for it: hooks and the watchdog.
func (a *app) engine(ctx context.Context, dir *statedir.Dir, h *host.Host, ask *migrate.Request) (host.Engine, error) {
	plan := dir.Plan()
	r := engineRequest{Dir: dir, Events: h.Events(), Ask: ask}
	if plan.Service.Configured() || plan.Service.Health != "" {
		r.Service = service.New(plan.Service, dir.Path())
	}
	r.Watchdog = &watchdog.Client{
		Dir: dir.Path(),
		Command: func(seq int, deadline time.Duration) *exec.Cmd {
			return a.watchdogCommand(dir, seq, deadline)
		},
	}
	return a.wire.engine(ctx, r)
}

// self is this program, also when its file was replaced since it was started.
func (a *app) self(args ...string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Args[0] = "fsmigrate"
	return cmd
}

func (a *app) watchdogCommand(dir *statedir.Dir, seq int, deadline time.Duration) *exec.Cmd {
	return a.self("watchdog", "--state", a.State, "--fstab", a.Fstab,
		"--seq", strconv.Itoa(seq), "--deadline", deadline.String(), dir.ID())
}

// advise says at the phases where a person decides what there is to decide.
func (a *app) advise(s migrate.Status) []string {
	switch s.Phase {
	case migrate.Hold:
		return []string{
			"In step and proven equal; the " + string(s.Truth) + " is the truth. This process follows the changes, so leave it running.",
			"  next, from another terminal: fsmigrate cutover " + s.ID + "   (policy: " + s.Policy + ")",
			"  give up: fsmigrate abort " + s.ID + "   stop resumably: Ctrl-C",
		}
	case migrate.Reverse:
		return []string{
			"The new volume is in use.",
			"  when you trust it: fsmigrate finalize " + s.ID,
			"  go back: fsmigrate rollback " + s.ID + "   stop resumably: Ctrl-C",
		}
	}
	return nil
}

// tidy takes away what nothing needs any more: the unit of a migration that has ended,
// and the name of one that was refused before anything was changed, so that the next
// attempt does not meet it. Its audit log is kept.
func (a *app) tidy(dir *statedir.Dir, o migrate.Outcome, err error) error {
	var doubt *migrate.Ambiguous
	if kind := migrate.KindOf(err); err != nil && o.Phase == migrate.Preflight && !errors.As(err, &doubt) &&
		(kind == migrate.IsRefused || kind == migrate.Impossible) {
		return setAside(dir)
	}
	if o.Phase.Ended() && os.Getenv("INVOCATION_ID") != "" && service.Systemd() {
		disable(dir)
	}
	return nil
}

// disable has the boot not start the engine of a migration that has ended. Where that fails, or it was
// never enabled, nothing is lost: the engine ends at once.
func disable(dir *statedir.Dir) {
	_ = exec.Command("systemctl", "disable", "--", unitOf(dir.ID())).Run()
}

// setAside gives the name of a migration free that changed nothing. Its audit log is kept.
func setAside(dir *statedir.Dir) error {
	aside := dir.Path() + ".refused." + time.Now().UTC().Format("20060102T150405.000")
	if err := os.Rename(dir.Path(), aside); err != nil {
		return fmt.Errorf("set the refused migration aside: %w", err)
	}
	return nil
}

// untilSignal ends ctx at the first SIGINT, SIGTERM or SIGHUP, with the signal as
// cause. SIGPIPE is only taken note of: a reader of our output that leaves must not
// end a migration. (It is caught and not ignored, because hooks would inherit that.)
func untilSignal(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	c, pipe := make(chan os.Signal, 1), make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	signal.Notify(pipe, syscall.SIGPIPE)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		select {
		case s := <-c:
			cancel(errSignal{s})
		case <-ctx.Done():
		}
	}()
	return ctx, func() {
		cancel(nil)
		<-ended
		signal.Stop(c)
		signal.Stop(pipe)
	}
}

// errSignal is the cause of a context that a signal ended.
type errSignal struct{ os.Signal }

func (s errSignal) Error() string { return "told to stop by signal: " + s.Signal.String() }

// Is makes a signal an ordinary end of a context.
func (s errSignal) Is(target error) bool { return target == context.Canceled }

func unitOf(id string) string { return fmt.Sprintf("fsmigrate@%s.service", id) }
