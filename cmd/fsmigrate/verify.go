package main

import (
	"context"
	"io"

	"github.com/spf13/cobra"

	"github.com/fsmigrate/fsmigrate/migrate"
	"github.com/fsmigrate/fsmigrate/status"
)

// VerifyOptions are those of verify.
type VerifyOptions struct {
	Limit int `flag:"limit" arg:"N" usage:"show at most this many differences; all are counted"`
}

func newVerify(a *app) *cobra.Command {
	o := VerifyOptions{Limit: 1000}
	return a.command(spec{
		use:   "verify A B",
		short: "Compare two trees, object by object, data and all metadata",
		long: `Compares names, types, owners, modes, ACLs, every extended attribute, capabilities,
flags, project ids, times, hard link groups and data of the trees at A and B, and
changes neither. Both must be at rest.`,
		example: `  fsmigrate verify /data /mnt/copy
  fsmigrate verify /data /mnt/copy --json --limit 10`,
		exits:   exits{0: "they are equal", 1: "", 2: "", 8: "they differ"},
		args:    cobra.ExactArgs(2),
		options: &o,
		run: func(ctx context.Context, _ *cobra.Command, args []string) error {
			ctx, release := untilSignal(ctx)
			defer release()
			var shown []status.Difference
			var differences int64
			c, err := a.wire.verify(ctx, args[0], args[1], func(d status.Difference) {
				if differences++; len(shown) < o.Limit {
					shown = append(shown, d)
				}
			})
			if err != nil {
				return err
			}
			c.Shown, c.Differences = shown, differences
			if err := a.print(c, func(w io.Writer) { status.ComparisonPage(w, c) }); err != nil {
				return err
			}
			if differences > 0 {
				return quiet{migrate.Differs}
			}
			return nil
		},
	})
}
