package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/fsmigrate/fsmigrate/control"
	"github.com/fsmigrate/fsmigrate/control/host"
	"github.com/fsmigrate/fsmigrate/migrate"
	"github.com/fsmigrate/fsmigrate/service"
	"github.com/fsmigrate/fsmigrate/statedir"
)

// ResumeOptions are those of resume.
type ResumeOptions struct {
	Truth        string `flag:"truth" arg:"SIDE" usage:"source or shadow: your decision, where the switch record cannot be read"`
	Detach       bool   `flag:"detach" usage:"under systemd (fsmigrate@ID.service), returning when it is up"`
	NoSupervisor bool   `flag:"no-supervisor" usage:"with --detach and without systemd: a process that nothing restarts"`
	Report       string `flag:"report" arg:"FILE" usage:"write the report there when it ends (JSON)"`
	Metrics      string `flag:"metrics-textfile" arg:"PATH" usage:"keep Prometheus metrics in this file"`
}

func newResume(a *app) *cobra.Command {
	var o ResumeOptions
	return a.command(spec{
		use:   "resume [ID]",
		short: "Continue what was paused, stopped or crashed",
		long: `Where an engine runs, it is told to go on. Where none does, this process becomes
it, like run: it settles what a crash left, starts the service on the truth first,
and continues. What is durably clean is not copied again.

--truth decides who is the truth where that cannot be read any more. Look at both
volumes before: the other one's writes since the cutover are given up.`,
		example: `  fsmigrate resume data
  fsmigrate resume data --detach`,
		exits: exits{0: "finalized; or, where an engine runs or with --detach: it goes on", 1: "", 2: "", 3: "", 4: "",
			5: "", 6: "", 7: "", 8: "differences that recopying does not cure"},
		args:    cobra.MaximumNArgs(1),
		options: &o,
		run: func(ctx context.Context, _ *cobra.Command, args []string) error {
			return a.resume(ctx, args, o)
		},
	})
}

func (a *app) resume(ctx context.Context, args []string, o ResumeOptions) error {
	if o.Truth != "" {
		if err := oneOf("truth", o.Truth, string(migrate.Source), string(migrate.Shadow)); err != nil {
			return err
		}
	}
	if err := directories(o.Report, o.Metrics); err != nil {
		return err
	}
	dir, err := a.pick(ctx, args)
	if err != nil {
		return err
	}
	if control.Alive(dir.Path()) {
		if o.Truth != "" {
			return &migrate.Problem{Kind: migrate.IsRefused, What: dir.ID() + " has a running engine, which knows the truth", Hint: "fsmigrate status " + dir.ID()}
		}
		return a.ask(ctx, dir, migrate.AskResume)
	}
	if s, err := dir.Load(ctx); err == nil && s.Phase.Ended() && o.Truth == "" {
		return a.print(map[string]any{"id": dir.ID(), "phase": s.Phase}, func(w io.Writer) {
			fmt.Fprintf(w, "%s has ended: %s\n", dir.ID(), s.Phase)
		})
	}
	if o.Truth != "" {
		if err := decide(ctx, dir, migrate.Side(o.Truth)); err != nil {
			return err
		}
	}
	if o.Report != "" || o.Metrics != "" {
		if err := (host.Extras{Report: o.Report, Metrics: o.Metrics}).Save(dir.Path()); err != nil {
			return err
		}
	}
	if !o.Detach {
		return a.supervise(ctx, dir, nil)
	}
	if !o.NoSupervisor && !service.Systemd() {
		return noSystemd()
	}
	return a.detach(ctx, dir, o.NoSupervisor)
}

// decide records the operator's word on who is the truth, while no engine is there.
func decide(ctx context.Context, dir *statedir.Dir, truth migrate.Side) error {
	if err := dir.Lock(); err != nil {
		return err
	}
	defer dir.Unlock()
	_, err := dir.Decide(ctx, truth, "fsmigrate resume --truth "+string(truth))
	return err
}
