package main

import (
	"github.com/spf13/cobra"

	"github.com/fsmigrate/fsmigrate/migrate"
)

func newPause(a *app) *cobra.Command {
	return a.request(migrate.AskPause, spec{
		short: "Stop copying for a while",
		long: `The engine goes on hearing of changes, and copies nothing until "fsmigrate resume".
The application is not touched.`,
		exits: exits{0: "it is paused", 1: "", 2: "", 3: "this phase cannot be paused, or no engine runs"},
	})
}
