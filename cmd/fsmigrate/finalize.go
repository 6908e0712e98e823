package main

import (
	"github.com/spf13/cobra"

	"github.com/fsmigrate/fsmigrate/migrate"
)

func newFinalize(a *app) *cobra.Command {
	return a.request(migrate.AskFinalize, spec{
		short: "End the migration on the new volume; there is no way back after it",
		long: `Stops following, proves that the old device is released, writes the native fstab
entry of the new volume (a backup is kept), and says what to do with the old device.
The old volume is left as it is.`,
		exits: exits{0: "it is finalized", 1: "", 2: "", 3: "not after a cutover", 7: ""},
	})
}
