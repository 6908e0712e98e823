// Command pledge is the application of the power-cut tests (e2e/pledge).
//
//	pledge run   --dir D --log L --marks M --pidfile P [--seed S --workers N --rate R --ops N --lie]
//	pledge start … the same, detached (a --start hook)
//	pledge stop  --pidfile P (a --stop hook)
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"time"

	"github.com/fsmigrate/fsmigrate/e2e/churn"
	"github.com/fsmigrate/fsmigrate/e2e/pledge"
	"golang.org/x/sys/unix"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "pledge:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 0 {
		return errors.New("usage: pledge run|start|stop [flags]")
	}
	var o pledge.Options
	var pidfile string
	var ready bool
	fs := flag.NewFlagSet("pledge "+args[0], flag.ExitOnError)
	fs.StringVar(&o.Dir, "dir", "", "the volume")
	fs.StringVar(&o.Log, "log", "", "the log, outside of every volume")
	fs.StringVar(&o.Marks, "marks", "", "the recorder's file of marks")
	fs.StringVar(&pidfile, "pidfile", "", "the file that says which process it is")
	fs.BoolVar(&ready, "ready", false, "run: tell descriptor 3 when it works")
	fs.Uint64Var(&o.Seed, "seed", 1, "the seed")
	fs.IntVar(&o.Workers, "workers", 3, "how many work")
	fs.Float64Var(&o.Rate, "rate", 0, "operations a second of each; 0: as fast as it goes")
	fs.IntVar(&o.Ops, "ops", 0, "end after so many of each worker, those of the log included; 0: never")
	fs.BoolVar(&o.Lie, "lie", false, "sync nothing, and acknowledge all the same")
	_ = fs.Parse(args[1:])
	switch args[0] {
	case "run":
		ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM, unix.SIGINT)
		defer stop()
		if pidfile != "" {
			if err := churn.WriteIdentity(pidfile, "running"); err != nil {
				return err
			}
		}
		if ready {
			o.Working = churn.Ready
		}
		return pledge.Run(ctx, o)
	case "start":
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		return churn.Detach(ctx, pidfile, o.Log+".out", append([]string{"run", "--ready"}, args[1:]...)...)
	case "stop":
		return churn.SignalStop(pidfile, 30*time.Second)
	}
	return fmt.Errorf("unknown command %q", args[0])
}
