package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/fsmigrate/fsmigrate/control"
	"github.com/fsmigrate/fsmigrate/migrate"
	"github.com/fsmigrate/fsmigrate/statedir"
)

// WaitOptions are those of wait.
type WaitOptions struct {
	For     string        `flag:"for" arg:"WHAT" usage:"hold (in step and proven), reverse (cut over), or done (ended)"`
	Timeout time.Duration `flag:"timeout" arg:"TIME" usage:"give up after this time (default: never)"`
}

func newWait(a *app) *cobra.Command {
	o := WaitOptions{For: "hold"}
	return a.command(spec{
		use:   "wait [ID] --for hold|reverse|done [--timeout TIME]",
		short: "Wait until a migration has got somewhere",
		long: `What lies behind a phase counts as reached: waiting for hold ends at once after the
cutover. A migration whose engine is not running is waited for: it may be resumed.`,
		example: `  fsmigrate wait data --for hold --timeout 6h && fsmigrate cutover data`,
		exits: exits{0: "it is there", 1: "not within the timeout", 2: "", 3: "the truth cannot be read",
			5: "", 6: "it was rolled back"},
		args:    cobra.MaximumNArgs(1),
		options: &o,
		run: func(ctx context.Context, _ *cobra.Command, args []string) error {
			if err := oneOf("for", o.For, "hold", "reverse", "done"); err != nil {
				return err
			}
			dir, err := a.pick(ctx, args)
			if err != nil {
				return err
			}
			return a.wait(ctx, dir, o)
		},
	})
}

// errTimeout is the cause of a wait's context.
var errTimeout = errors.New("timeout")

func (a *app) wait(ctx context.Context, dir *statedir.Dir, o WaitOptions) error {
	ctx, release := untilSignal(ctx)
	defer release()
	if o.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, o.Timeout, errTimeout)
		defer cancel()
	}
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		s, err := a.statusOf(ctx, dir.ID())
		for err == nil && ctx.Err() == nil {
			if over, err := reached(s, o.For); over {
				return a.arrived(s, err)
			}
			if s, err = a.watch(ctx, dir, o.For); err != nil {
				break
			}
		}
		if err != nil && ctx.Err() == nil && !errors.Is(err, control.ErrNotRunning) {
			return err
		}
		select {
		case <-tick.C: // no engine: nothing would tell us of the next one
		case <-ctx.Done():
			return gaveUp(ctx, dir, o)
		}
	}
}

// watch follows the engine until what is waited for is reached, or it ends.
func (a *app) watch(ctx context.Context, dir *statedir.Dir, what string) (migrate.Status, error) {
	ctx, enough := context.WithCancel(ctx)
	defer enough()
	var last migrate.Status
	err := control.Do(ctx, dir.Path(), control.Watch, "", func(raw json.RawMessage) {
		var s migrate.Status
		if json.Unmarshal(raw, &s) != nil {
			return
		}
		last = s
		if over, _ := reached(s, what); over {
			enough()
		}
	}, &last)
	if ctx.Err() != nil && last.ID != "" {
		return last, nil
	}
	return last, err
}

// reached reports whether waiting for what is over at s, and how it ended.
func reached(s migrate.Status, what string) (bool, error) {
	switch s.Phase {
	case migrate.Aborted:
		return true, &migrate.Problem{Kind: migrate.WasAborted, What: s.ID + " was aborted, the source is the truth", Why: because(s)}
	case migrate.RolledBack:
		return true, &migrate.Problem{Kind: migrate.WasReverted, What: s.ID + " was rolled back, the source is the truth", Why: because(s)}
	case migrate.Finalized:
		return true, nil
	case migrate.Hold:
		return what == "hold" && s.Running, nil // else nobody follows, and it is not in step for long
	case migrate.Reverse, migrate.Finalizing:
		return what != "done", nil
	}
	return false, nil
}

func because(s migrate.Status) error {
	if s.Why == "" {
		return nil
	}
	return errors.New(s.Why)
}

func (a *app) arrived(s migrate.Status, err error) error {
	if err != nil {
		return err
	}
	return a.print(s, func(w io.Writer) { fmt.Fprintf(w, "%s: %s\n", s.ID, s.Phase) })
}

func gaveUp(ctx context.Context, dir *statedir.Dir, o WaitOptions) error {
	what := fmt.Sprintf("%s has not reached %s", dir.ID(), o.For)
	if errors.Is(context.Cause(ctx), errTimeout) {
		what += " within " + shortDuration(o.Timeout)
	}
	p := &migrate.Problem{Kind: migrate.Failed, What: what, Hint: "fsmigrate status " + dir.ID()}
	if s, err := dir.Load(context.WithoutCancel(ctx)); err == nil {
		where := fmt.Sprintf("it is in %s", s.Phase)
		if s.Paused {
			where += ", paused: " + s.Why
		}
		if !control.Alive(dir.Path()) {
			where += ", and its engine is not running"
			p.Hint = "fsmigrate resume " + dir.ID()
		}
		p.Why = errors.New(where)
	}
	return p
}
