package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/fsmigrate/fsmigrate/control/host"
	"github.com/fsmigrate/fsmigrate/migrate"
	"github.com/fsmigrate/fsmigrate/service"
	"github.com/fsmigrate/fsmigrate/statedir"
	"github.com/fsmigrate/fsmigrate/status"
)

// RunOptions are those of run beyond the change itself.
type RunOptions struct {
	ChangeOptions
	Yes     bool   `flag:"yes" usage:"do not ask"`
	Report  string `flag:"report" arg:"FILE" usage:"write the report there when it ends (JSON)"`
	Detach  bool   `flag:"detach" usage:"run under systemd (fsmigrate@ID.service) and return when it is up; without systemd it needs --no-supervisor"`
	Metrics string `flag:"metrics-textfile" arg:"PATH" usage:"keep Prometheus metrics in this file"`
}

func newRun(a *app) *cobra.Command {
	o := RunOptions{ChangeOptions: defaultChange()}
	return a.command(spec{
		use:   "run PLAN | SOURCE --to FORMAT[:k=v,...] --spare SPARE",
		short: "Run a migration",
		long: `Shows the plan and asks, then makes the new file system, copies, follows every
change, verifies, and stops at Hold: both sides equal, the source still the truth.
From another terminal, "fsmigrate cutover" swaps, "fsmigrate abort" gives up. After
the cutover the old volume is kept in step until "fsmigrate finalize" or "fsmigrate
rollback". The process that runs this follows the changes, so it stays: Ctrl-C and
SIGTERM stop it so that "fsmigrate resume" continues; --detach gives it to systemd.

PLAN is a .yaml file; with it, policy flags override.`,
		example: `  fsmigrate run plan.yaml
  fsmigrate run /data --to xfs --spare /dev/vg0/new --unit postgresql.service --detach
  fsmigrate run /data --to xfs --spare /dev/vg0/new --stop 'docker stop db' --start 'docker start db' --cutover window:02:00-04:00`,
		exits: exits{0: "finalized: the new volume is in use; with --detach: it is up", 1: "", 2: "", 3: "", 4: "",
			5: "", 6: "", 7: "", 8: "differences that recopying does not cure"},
		args:    cobra.ExactArgs(1),
		options: &o,
		run: func(ctx context.Context, c *cobra.Command, args []string) error {
			return a.run(ctx, c, args[0], o)
		},
	})
}

func (a *app) run(ctx context.Context, c *cobra.Command, arg string, o RunOptions) error {
	if !o.Yes && (a.JSON || !terminal(a.in)) {
		return usagef("look at it with `fsmigrate check`, then add --yes", "run asks before it starts, and there is no terminal to ask on")
	}
	if err := directories(o.Report, o.Metrics); err != nil {
		return err
	}
	if o.Detach && !o.NoSupervisor && !service.Systemd() {
		return noSystemd()
	}
	p, err := a.propose(ctx, c, arg, o.ChangeOptions)
	if err != nil {
		return err
	}
	if err := a.showProposal(p); err != nil {
		return err
	}
	if err := refusal(p); err != nil {
		return err
	}
	if !o.Yes {
		if err := a.confirm(p.Plan); err != nil {
			return err
		}
	}
	dir, err := statedir.Create(a.State, &p.Plan)
	if err != nil {
		return err
	}
	if err := a.furnish(ctx, dir, o); err != nil {
		return errors.Join(err, setAside(dir)) // the next attempt must not meet it
	}
	if o.Detach {
		return a.detach(ctx, dir, o.NoSupervisor)
	}
	return a.supervise(ctx, dir, nil)
}

// directories finds out now, and not at the end of a day's copying, that a file has no place to be.
func directories(report, metrics string) error {
	for flag, path := range map[string]string{"report": report, "metrics-textfile": metrics} {
		if path == "" {
			continue
		}
		dir := filepath.Dir(path)
		if info, err := os.Stat(dir); err != nil || !info.IsDir() {
			return usagef("make the directory first", "--%s %s: %s is no directory", flag, path, dir)
		}
	}
	return nil
}

// furnish puts into a new state directory what the engine needs beside the plan.
func (a *app) furnish(ctx context.Context, dir *statedir.Dir, o RunOptions) error {
	if err := (host.Extras{Report: o.Report, Metrics: o.Metrics}).Save(dir.Path()); err != nil {
		return err
	}
	if o.Detach {
		if err := a.wire.leave(dir.Path()); err != nil {
			return err
		}
	}
	p := dir.Plan()
	return dir.Audit(ctx, "run", map[string]any{"waived": p.Waive, "source": p.Source.Mount, "target": p.Target.Format})
}

// showProposal prints the plan for review: a page, or the first of the JSON lines.
func (a *app) showProposal(p status.Proposal) error {
	var b bytes.Buffer
	if a.JSON {
		enc := json.NewEncoder(&b)
		enc.SetEscapeHTML(false)
		if err := enc.Encode(map[string]any{"event": "plan", "proposal": p}); err != nil {
			return fmt.Errorf("encode plan: %w", err)
		}
	} else {
		status.ProposalPage(&b, p)
	}
	if _, err := a.out.Write(b.Bytes()); err != nil {
		return fmt.Errorf("write standard output: %w", err)
	}
	return nil
}

// confirm asks y/N. Anything but yes is no.
func (a *app) confirm(p migrate.Plan) error {
	fmt.Fprintf(a.err, "\nMigrate %s to %s, overwriting the spare? [y/N] ", status.Safe(p.Source.Mount), p.Target.Format)
	line, _ := bufio.NewReader(a.in).ReadString('\n') // its end is a no
	switch strings.ToLower(strings.TrimSpace(line)) {
	case "y", "yes":
		return nil
	}
	return usagef("", "not confirmed, nothing was changed")
}
