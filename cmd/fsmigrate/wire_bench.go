package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/fsmigrate/fsmigrate/bench/disrupt"
	"github.com/fsmigrate/fsmigrate/bench/result"
	"github.com/fsmigrate/fsmigrate/bench/work"
)

func wireBench(ctx context.Context, o BenchOptions, say func(string)) (*result.Report, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	scale, err := o.scale()
	if err != nil {
		return nil, err
	}
	rev, _ := revision()
	if len(rev) > 12 {
		rev = rev[:12]
	}
	return disrupt.Run(ctx, disrupt.Options{
		Dir: o.Dir, Scenarios: o.Scenarios, Workloads: o.Workloads, Movers: o.Movers, Command: o.Command, Rate: float64(o.Rate),
		Files: o.Files, Large: int64(o.Large), Runs: o.Runs, Before: o.Before, After: o.After, Hold: o.Hold, Policy: o.Policy, Budget: o.Budget,
		Scale: scale, Source: o.Source, Spare: o.Spare, Quick: o.Quick, Self: self, Product: strings.TrimSpace(version + " " + rev), Say: say,
	})
}

// newBenchApp is what the benchmark runs in other processes: itself in a mount namespace
// of its own, the workloads, and the hooks that stop and start them.
func newBenchApp(a *app) *cobra.Command {
	return a.command(spec{
		use:     "bench-app inside OPTIONS | work OPTIONS | stop SOCKET | start SOCKET",
		short:   "What the benchmark runs in processes of their own",
		example: "  (not for people)",
		exits:   exits{0: "stopped as asked, or done", 1: "", 2: ""},
		args:    cobra.ExactArgs(2),
		hidden:  true,
		run: func(ctx context.Context, _ *cobra.Command, args []string) error {
			ctx, release := untilSignal(ctx)
			defer release()
			switch args[0] {
			case "inside":
				return disrupt.Inside(ctx, args[1], a.out)
			case "work":
				var o work.Options
				if err := json.Unmarshal([]byte(args[1]), &o); err != nil {
					return usagef("the benchmark starts it", "bench-app work: %s", err)
				}
				return work.Run(ctx, o, a.out)
			case "stop", "start":
				return disrupt.Hook(args[1], args[0])
			}
			return usagef("the benchmark starts it", "bench-app cannot be called like this")
		},
	})
}
