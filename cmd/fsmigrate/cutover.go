package main

import (
	"github.com/spf13/cobra"

	"github.com/fsmigrate/fsmigrate/migrate"
)

func newCutover(a *app) *cobra.Command {
	return a.request(migrate.AskCutover, spec{
		short: "Swap the volumes: the new one becomes the truth",
		long: `From Hold. Stops the service, makes the source read-only, copies the last units,
proves that nothing was missed, swaps, records, and starts the service on the new
volume. Everything before the record is undone when it fails or takes too long, and
the service is started on the source again. Waits for the outcome.`,
		exits: exits{0: "the new volume is in use", 1: "undone: the source is the truth and in use", 2: "",
			3: "refused: not in Hold, a blocker, or over the pause budget", 5: "", 7: "", 8: "differences were found, it was undone"},
	})
}
