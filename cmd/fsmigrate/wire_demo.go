package main

import (
	"context"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/fsmigrate/fsmigrate/demo"
	"github.com/fsmigrate/fsmigrate/status"
)

func wireDemo(ctx context.Context, o DemoOptions, say func(string)) (status.Demo, error) {
	self, err := os.Executable()
	if err != nil {
		return status.Demo{}, fmt.Errorf("find this program: %w", err)
	}
	return demo.Run(ctx, demo.Options{Dir: o.Dir, Out: o.Out, Size: int64(o.Size), Files: o.Files, Keep: o.Keep, Self: self, Say: say})
}

// newDemoApp is what the demo runs in other processes: itself in a mount namespace of its
// own, the application, and the hooks that stop and start it.
func newDemoApp(a *app) *cobra.Command {
	return a.command(spec{
		use:     "demo-app inside OPTIONS | run DATA LEDGER | stop SOCKET | start SOCKET",
		short:   "What the demo runs in processes of their own",
		example: "  (not for people)",
		exits:   exits{0: "stopped as asked, or done", 1: "", 2: ""},
		args:    cobra.RangeArgs(2, 3),
		hidden:  true,
		run: func(ctx context.Context, _ *cobra.Command, args []string) error {
			switch verb := args[0]; {
			case verb == "run" && len(args) == 3:
				ctx, release := untilSignal(ctx)
				defer release()
				return demo.Application(ctx, args[1], args[2], func() { fmt.Fprintln(a.out, "ready") })
			case verb == "inside" && len(args) == 2:
				ctx, release := untilSignal(ctx)
				defer release()
				return demo.Inside(ctx, args[1], a.out)
			case (verb == "stop" || verb == "start") && len(args) == 2:
				return demo.Hook(args[1], verb)
			}
			return usagef("the demo starts it", "demo-app cannot be called like this")
		},
	})
}
