package main

import (
	"context"
	"io"

	"github.com/spf13/cobra"

	"github.com/fsmigrate/fsmigrate/status"
)

func newFormats(a *app) *cobra.Command {
	return a.command(spec{
		use:   "formats [NAME...]",
		short: "List the formats, their limits and their properties",
		long: `Generated from the registry. The limits are those of a volume made without options;
a property is what --to FORMAT:k=v takes.`,
		example: `  fsmigrate formats
  fsmigrate formats xfs --json`,
		exits: exits{0: "", 1: "", 2: "no such format"},
		args:  cobra.ArbitraryArgs,
		run: func(_ context.Context, _ *cobra.Command, args []string) error {
			list, missing := status.Formats(args)
			if missing != "" {
				return usagef("fsmigrate formats", "there is no format %q", missing)
			}
			return a.print(list, func(w io.Writer) { status.FormatsPage(w, list, len(args) > 0) })
		},
	})
}
