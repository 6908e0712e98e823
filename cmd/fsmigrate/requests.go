package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/fsmigrate/fsmigrate/control"
	"github.com/fsmigrate/fsmigrate/migrate"
	"github.com/fsmigrate/fsmigrate/statedir"
	"github.com/fsmigrate/fsmigrate/status"
)

// pick is the migration that a command is about: the one named, or the only one there
// is. Those that have ended count only where there is no other.
func (a *app) pick(ctx context.Context, args []string) (*statedir.Dir, error) {
	if len(args) > 0 {
		return statedir.Open(a.State, args[0])
	}
	ids, err := statedir.List(a.State)
	if err != nil {
		return nil, err
	}
	var going, ended []*statedir.Dir
	for _, id := range ids {
		d, err := statedir.Open(a.State, id)
		if err != nil {
			return nil, err
		}
		if s, err := d.Load(ctx); err == nil && s.Phase.Ended() {
			ended = append(ended, d)
		} else {
			going = append(going, d)
		}
	}
	if len(going) == 0 {
		going = ended
	}
	switch len(going) {
	case 0:
		return nil, &migrate.Problem{Kind: migrate.Failed, What: "there is no migration in " + a.State, Hint: "fsmigrate run starts one; is the state directory mounted?"}
	case 1:
		return going[0], nil
	}
	var names []string
	for _, d := range going {
		names = append(names, d.ID())
	}
	return nil, usagef("name one of them", "there are several migrations: %s", strings.Join(names, ", "))
}

// request makes the command that asks a running engine for kind and waits for the outcome.
func (a *app) request(kind migrate.RequestKind, s spec) *cobra.Command {
	s.use = string(kind) + " [ID]"
	s.example = fmt.Sprintf("  fsmigrate %s\n  fsmigrate %s data", kind, kind)
	s.args = cobra.MaximumNArgs(1)
	s.run = func(ctx context.Context, _ *cobra.Command, args []string) error {
		dir, err := a.pick(ctx, args)
		if err != nil {
			return err
		}
		return a.ask(ctx, dir, kind)
	}
	return a.command(s)
}

// ask sends a request to the engine of dir, shows its events and ends with its outcome.
func (a *app) ask(ctx context.Context, dir *statedir.Dir, kind migrate.RequestKind) error {
	ctx, release := untilSignal(ctx)
	defer release()
	display := status.NewDisplay(a.out, a.JSON, terminal(a.out))
	var after migrate.Status
	err := control.Do(ctx, dir.Path(), control.Verb(kind), strings.Join(a.argv, " "), func(raw json.RawMessage) {
		var e status.Event
		if json.Unmarshal(raw, &e) == nil {
			display.Event(e)
		}
	}, &after)
	display.Close()
	var signal errSignal
	switch {
	case errors.Is(err, control.ErrEnded):
		return &migrate.Problem{
			Kind: migrate.Failed, What: fmt.Sprintf("the engine of %s ended before the %s had an outcome", dir.ID(), kind),
			Why: errors.New("whatever it had not recorded is undone, by its watchdog now or when it is resumed"), Hint: "fsmigrate status " + dir.ID(),
		}
	case errors.Is(err, control.ErrNotRunning):
		return a.askNobody(ctx, dir, kind, err)
	case errors.As(err, &signal):
		return &migrate.Problem{
			Kind: migrate.Failed, What: fmt.Sprintf("not waiting any more; the %s of %s goes on", kind, dir.ID()), Why: err,
			Hint: "fsmigrate status " + dir.ID(),
		}
	case err != nil:
		return err
	}
	if a.JSON {
		return json.NewEncoder(a.out).Encode(map[string]any{"event": "done", "status": after})
	}
	return a.print(nil, func(w io.Writer) {
		fmt.Fprintf(w, "%s: %s, the %s is the truth\n", after.ID, after.Phase, after.Truth)
		if after.Next != "" {
			fmt.Fprintf(w, "  next: %s\n", after.Next)
		}
		if after.Undo != "" {
			fmt.Fprintf(w, "  undo: %s\n", after.Undo)
		}
		if after.Phase == migrate.Finalized {
			fmt.Fprint(w, a.oldDevice(dir.Plan()))
		}
	})
}

// askNobody is a request where no engine runs. What ends a migration makes this process its
// engine, for that and no longer; the others need one that follows the changes, and goes on to.
func (a *app) askNobody(ctx context.Context, dir *statedir.Dir, kind migrate.RequestKind, why error) error {
	s, err := dir.Load(context.WithoutCancel(ctx))
	if _, ends := kind.Ends(); err == nil && ends && !s.Phase.Ended() && dir.LockedBy() == 0 {
		err := a.supervise(ctx, dir, &migrate.Request{Kind: kind, Who: strings.Join(a.argv, " ")})
		if err == nil && kind == migrate.AskFinalize && !a.JSON {
			fmt.Fprint(a.out, a.oldDevice(dir.Plan()))
		}
		return err
	}
	return notRunning(ctx, dir, kind, why)
}

// notRunning says why nobody could be asked.
func notRunning(ctx context.Context, dir *statedir.Dir, kind migrate.RequestKind, why error) error {
	s, err := dir.Load(context.WithoutCancel(ctx))
	if err != nil {
		return err
	}
	if s.Phase.Ended() {
		return &migrate.Problem{
			Kind: migrate.IsRefused, What: fmt.Sprintf("%s is not possible: %s has ended: %s", kind, dir.ID(), s.Phase),
			Hint: "fsmigrate status " + dir.ID(),
		}
	}
	hint := "fsmigrate resume " + dir.ID()
	if pid := dir.LockedBy(); pid != 0 {
		hint = fmt.Sprintf("process %d is starting, or does not answer: try again, then look at it", pid)
	}
	return &migrate.Problem{
		Kind: migrate.IsRefused, What: fmt.Sprintf("nothing was asked of %s: its engine is not running (%s)", dir.ID(), s.Phase),
		Why: why, Hint: hint,
	}
}

// statusOf is how a migration stands: as its engine says, or as its state does.
func (a *app) statusOf(ctx context.Context, id string) (migrate.Status, error) {
	path := a.State + "/" + id
	var s migrate.Status
	err := control.Do(ctx, path, control.Status, "", nil, &s)
	if err == nil {
		return s, nil
	}
	dir, openErr := statedir.Open(a.State, id)
	if openErr != nil {
		if os.Geteuid() != 0 { // the status socket is all that we may use
			return s, &migrate.Problem{
				Kind: migrate.Failed, What: "the status of " + id + " is for root while its engine is not running", Why: err,
				Hint: "as root: fsmigrate status " + id,
			}
		}
		return s, openErr
	}
	silent := errors.Is(err, control.ErrSilent)
	if !silent && !errors.Is(err, control.ErrNotRunning) {
		return s, err
	}
	st, err := dir.Load(ctx)
	if err != nil {
		return s, ambiguous(err)
	}
	truth, err := dir.Truth(ctx)
	if err != nil {
		return s, ambiguous(err)
	}
	s = migrate.StatusOf(dir.Plan(), st, truth)
	if silent {
		s.Silent = fmt.Sprintf("process %d", dir.LockedBy())
	}
	return s, nil
}

// ambiguous is evidence that cannot be read, as the page that says what to do.
func ambiguous(err error) error {
	var a *migrate.Ambiguous
	if !errors.As(err, &a) {
		return err
	}
	return &migrate.Problem{Kind: migrate.IsRefused, What: "ownership ambiguous, nothing done", Why: err, Hint: a.Decide}
}

// oldDevice says what is left to do with the volume that was migrated. Its path may be another
// device's by now: nobody is told to wipe one that was not found.
func (a *app) oldDevice(p migrate.Plan) string {
	d, err := a.wire.find(p.Source.Device)
	if err != nil {
		return fmt.Sprintf(`  the old volume, which was on %s, was not found there or elsewhere, and is left as it is:
    %v
`, p.Source.Device.Path, err)
	}
	return fmt.Sprintf(`  the old volume on %s is released and unmounted, and left as it is:
    to look at it  mount -o ro %s /mnt
    to reuse it    wipefs --all %s   (nothing brings it back after that)
`, d, d, d)
}
