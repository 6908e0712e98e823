package main

import (
	"github.com/spf13/cobra"

	"github.com/fsmigrate/fsmigrate/migrate"
)

func newRollback(a *app) *cobra.Command {
	return a.request(migrate.AskRollback, spec{
		short: "Go back to the old volume, with every write made since",
		long: `From Reverse: a cutover in the other direction. The old volume was kept in step, so
nothing that was written since is lost, unless status says that the way back is
stale or closed. Waits for the outcome.`,
		exits: exits{0: "it is rolled back", 1: "undone: the new volume is the truth and in use", 2: "",
			3: "not after a cutover, or the way back is closed", 7: "", 8: "differences were found, it was undone"},
	})
}
