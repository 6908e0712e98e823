package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/fsmigrate/fsmigrate/status"
)

// DemoOptions are those of demo.
type DemoOptions struct {
	Dir   string `flag:"dir" arg:"DIR" usage:"where the volumes' images go (default: a temporary directory)"`
	Out   string `flag:"out" arg:"DIR" usage:"where the pictures go"`
	Size  Size   `flag:"size" arg:"SIZE" usage:"size of each volume (sparse)"`
	Files int    `flag:"files" arg:"N" usage:"files to migrate beside the database"`
	Keep  bool   `flag:"keep" usage:"leave the images behind"`
}

func newDemo(a *app) *cobra.Command {
	o := DemoOptions{Out: "demo-out", Size: 2 << 30, Files: 10000}
	return a.command(spec{
		use:   "demo",
		short: "Migrate a real ext4 volume to XFS under a running database, and back",
		long: `Makes two loop volumes, runs SQLite writers and a churn of files on one, migrates it
to XFS while they run, shows what it cost them, and rolls back with every write still
there. Needs root, touches nothing but its own images, and takes under three minutes.`,
		example: "  fsmigrate demo --out pictures",
		exits:   exits{0: "no write was lost", 1: "", 2: "", 3: "", 8: "a write was lost"},
		args:    cobra.NoArgs,
		options: &o,
		run: func(ctx context.Context, _ *cobra.Command, _ []string) error {
			ctx, release := untilSignal(ctx)
			defer release()
			d, err := a.wire.demo(ctx, o, func(line string) {
				if !a.JSON {
					fmt.Fprintln(a.out, line)
				}
			})
			if err != nil {
				return err
			}
			return a.print(d, func(w io.Writer) { status.DemoPage(w, d) })
		},
	})
}
