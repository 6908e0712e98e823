package main

import (
	"github.com/spf13/cobra"

	"github.com/fsmigrate/fsmigrate/migrate"
)

func newAbort(a *app) *cobra.Command {
	return a.request(migrate.AskAbort, spec{
		short: "Give up before the cutover",
		long: `The source was the truth and stays it; the spare is released. From Hold this is the
end of a rehearsal. After the cutover it is refused: use "fsmigrate rollback". Where no
engine runs, this process becomes it, for that and no longer.`,
		exits: exits{0: "it is aborted", 1: "", 2: "", 3: "after the cutover", 7: ""},
	})
}
