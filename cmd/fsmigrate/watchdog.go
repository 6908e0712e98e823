package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/fsmigrate/fsmigrate/migrate"
	"github.com/fsmigrate/fsmigrate/service"
	"github.com/fsmigrate/fsmigrate/service/watchdog"
	"github.com/fsmigrate/fsmigrate/statedir"
)

// WatchdogOptions are those of watchdog.
type WatchdogOptions struct {
	Seq      int           `flag:"seq" arg:"N" usage:"record number of the attempt"`
	Deadline time.Duration `flag:"deadline" arg:"TIME" usage:"until it is undone"`
}

func newWatchdog(a *app) *cobra.Command {
	var o WatchdogOptions
	return a.command(spec{
		use:     "watchdog ID --seq N --deadline TIME",
		short:   "Own a cutover's deadline; started by the engine, with its socket as standard input",
		example: "  (not for people)",
		exits:   exits{0: "disarmed, or done acting", 1: "", 2: ""},
		args:    cobra.ExactArgs(1),
		options: &o,
		hidden:  true,
		run: func(ctx context.Context, _ *cobra.Command, args []string) error {
			if o.Seq <= 0 || o.Deadline <= 0 {
				return usagef("the engine starts it", "watchdog needs --seq and --deadline")
			}
			// What ends the engine must not end this: a terminal that closes, a service
			// that is stopped. A socket that closes does. (Caught, so that hooks do not
			// inherit that they are ignored.)
			signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP, syscall.SIGINT, syscall.SIGTERM, syscall.SIGPIPE)
			watchdog.Harden()
			return a.watchdog(ctx, args[0], o)
		},
	})
}

func (a *app) watchdog(ctx context.Context, id string, o WatchdogOptions) error {
	dir, err := statedir.Open(a.State, id)
	if err != nil {
		return err
	}
	if err := toLog(filepath.Join(dir.Path(), "watchdog.log")); err != nil {
		return err
	}
	w := watchdog.Options{
		Dir: dir.Path(), ID: id, Seq: o.Seq, Deadline: o.Deadline, Engine: a.in, Store: dir,
		Settle: func(ctx context.Context, truth migrate.Side) error { return a.wire.settle(ctx, dir, truth) },
	}
	if plan := dir.Plan(); plan.Service.Configured() {
		w.Start = service.New(plan.Service, dir.Path()).Start
	}
	return watchdog.Run(ctx, w)
}

// toLog makes a file what this process says from now on: whoever started it may be
// gone when there is something to say.
func toLog(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	defer f.Close()
	for _, fd := range []int{1, 2} {
		if err := unix.Dup3(int(f.Fd()), fd, 0); err != nil {
			return fmt.Errorf("open log %s: %w", path, err)
		}
	}
	return nil
}
