package main

import (
	"context"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/spf13/cobra"

	"github.com/fsmigrate/fsmigrate/control"
	"github.com/fsmigrate/fsmigrate/migrate"
)

// version is set by the linker in a release.
var version = "devel"

// versions is what version prints.
type versions struct {
	Version  string `json:"version"`
	Revision string `json:"revision,omitempty"`
	Go       string `json:"go"`
	Plan     int    `json:"plan_version"`
	State    int    `json:"state_version"`
	Control  int    `json:"control_version"`
}

func newVersion(a *app) *cobra.Command {
	return a.command(spec{
		use:     "version",
		short:   "Print the versions of the program, its plans, its state and its protocol",
		example: "  fsmigrate version --json",
		exits:   exits{0: "", 2: ""},
		args:    cobra.NoArgs,
		run: func(context.Context, *cobra.Command, []string) error {
			rev, _ := revision()
			v := versions{version, rev, runtime.Version(), migrate.PlanVersion, migrate.StateVersion, control.Version}
			return a.print(v, func(w io.Writer) {
				fmt.Fprintf(w, "fsmigrate %s %s\n%s, plan %d, state %d, control %d\n", v.Version, v.Revision, v.Go, v.Plan, v.State, v.Control)
			})
		},
	})
}

// revision is what the toolchain recorded of the source.
func revision() (rev string, at time.Time) {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "", at
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			rev = s.Value
		case "vcs.time":
			at, _ = time.Parse(time.RFC3339, s.Value)
		}
	}
	return rev, at
}
