package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/fsmigrate/fsmigrate/migrate"
	"github.com/fsmigrate/fsmigrate/status"
)

func newStatus(a *app) *cobra.Command {
	return a.command(spec{
		use:   "status [ID]",
		short: "Say how a migration stands, and what to do",
		long: `The phase and since when; who is the truth, with its device; what is proven; what is
dirty; the pause to expect; whether a reboot is safe now; the way back; the next
command and the one that undoes. Without ID: every migration. Works without a
running engine, from the state directory. Members of the group fsmigrate may use it.`,
		example: `  fsmigrate status
  fsmigrate status data --json`,
		exits: exits{0: "", 1: "", 2: "", 3: "the truth cannot be read: the hint names the command that decides"},
		args:  cobra.MaximumNArgs(1),
		run: func(ctx context.Context, _ *cobra.Command, args []string) error {
			if len(args) == 1 {
				if !migrate.ValidID(args[0]) {
					return usagef("fsmigrate list", "%q is not the name of a migration", args[0])
				}
				s, err := a.statusOf(ctx, args[0])
				if err != nil {
					return err
				}
				return a.print(s, func(w io.Writer) { status.Page(w, s, time.Now()) })
			}
			list, unread := a.readable(ctx) // one that cannot be read hides none of the others
			if err := a.print(list, func(w io.Writer) {
				if len(list) == 0 && unread == nil {
					fmt.Fprintln(w, "no migrations")
				}
				for i, s := range list {
					if i > 0 {
						fmt.Fprintln(w)
					}
					status.Page(w, s, time.Now())
				}
			}); err != nil {
				return err
			}
			return unread
		},
	})
}
