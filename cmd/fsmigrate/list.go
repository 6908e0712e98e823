package main

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/fsmigrate/fsmigrate/migrate"
	"github.com/fsmigrate/fsmigrate/statedir"
	"github.com/fsmigrate/fsmigrate/status"
)

func newList(a *app) *cobra.Command {
	return a.command(spec{
		use:     "list",
		short:   "List the migrations",
		example: "  fsmigrate list",
		exits:   exits{0: "", 1: "", 2: "", 3: "the truth of one of them cannot be read"},
		args:    cobra.NoArgs,
		run: func(ctx context.Context, _ *cobra.Command, _ []string) error {
			// One that cannot be read hides none of the others.
			list, unread := a.readable(ctx)
			if err := a.print(list, func(w io.Writer) { status.Table(w, list, time.Now()) }); err != nil {
				return err
			}
			return unread
		},
	})
}

// readable is the status of every migration that has one, and why another has none.
func (a *app) readable(ctx context.Context) (list []migrate.Status, unread error) {
	list = []migrate.Status{}
	ids, err := statedir.List(a.State)
	if err != nil {
		return list, err
	}
	for _, id := range ids {
		s, err := a.statusOf(ctx, id)
		if err != nil {
			unread = errors.Join(unread, err)
			continue
		}
		list = append(list, s)
	}
	return list, unread
}
