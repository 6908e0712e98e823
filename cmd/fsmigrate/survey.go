package main

import (
	"context"
	"io"

	"github.com/spf13/cobra"

	"github.com/fsmigrate/fsmigrate/migrate"
	"github.com/fsmigrate/fsmigrate/status"
)

func newSurvey(a *app) *cobra.Command {
	return a.command(spec{
		use:   "survey [PATH...]",
		short: "Show what ends or hurts on mounted volumes, and what to do",
		long: `Looks at every mounted volume of a known format, or at those that PATH is on:
128-byte inodes and the year 2038, XFS without bigtime, crc, ftype or reflink,
ext without metadata_csum, 64bit or extents, inodes running out. Changes nothing.`,
		example: `  fsmigrate survey
  fsmigrate survey /data /home`,
		exits: exits{0: "nothing needs to be done", 1: "", 2: "", 8: "something ends or hurts"},
		args:  cobra.ArbitraryArgs,
		run: func(ctx context.Context, _ *cobra.Command, args []string) error {
			volumes, err := a.wire.survey(ctx, args)
			if err != nil {
				return err
			}
			if err := a.print(volumes, func(w io.Writer) { status.SurveyPage(w, volumes) }); err != nil {
				return err
			}
			if status.NeedsWork(volumes) {
				return quiet{migrate.Differs}
			}
			return nil
		},
	})
}
