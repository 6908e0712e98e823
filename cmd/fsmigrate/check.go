package main

import (
	"context"
	"io"

	"github.com/spf13/cobra"

	"github.com/fsmigrate/fsmigrate/status"
)

func newCheck(a *app) *cobra.Command {
	o := defaultChange()
	return a.command(spec{
		use:   "check PLAN | SOURCE --to FORMAT[:k=v,...] --spare SPARE",
		short: "Prove that a plan can work here and now, and change nothing",
		long: `Makes every check that run makes before it starts, and shows what was found, what
is needed, and the remedy. PLAN is a .yaml file; with it, policy flags override.`,
		example: `  fsmigrate check plan.yaml
  fsmigrate check /data --to xfs --spare /dev/vg0/new --accept-erofs`,
		exits:   exits{0: "it can work", 1: "", 2: "", 3: "", 4: ""},
		args:    cobra.ExactArgs(1),
		options: &o,
		run: func(ctx context.Context, c *cobra.Command, args []string) error {
			p, err := a.propose(ctx, c, args[0], o)
			if err != nil {
				return err
			}
			if err := a.print(p, func(w io.Writer) { status.ProposalPage(w, p) }); err != nil {
				return err
			}
			return refusal(p)
		},
	})
}
