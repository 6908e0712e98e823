// Command program is the application of the metamorphic runs (e2e/program).
//
//	program run   --dir D --log L --pidfile P [--limit F --seed S --workers N --ops N --rate R]
//	program start … the same, detached (a --start hook)
//	program stop  --pidfile P (a --stop hook)
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fsmigrate/fsmigrate/e2e/churn"
	"github.com/fsmigrate/fsmigrate/e2e/program"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "program:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 0 {
		return errors.New("usage: program run|start|stop [flags]")
	}
	var o program.Options
	var pidfile string
	var ready bool
	fs := flag.NewFlagSet("program "+args[0], flag.ExitOnError)
	fs.StringVar(&o.Dir, "dir", "", "the volume")
	fs.StringVar(&o.Log, "log", "", "where the transcripts lie, outside of the volume")
	fs.StringVar(&o.Limit, "limit", "", "a file with the number of operations that no worker goes beyond yet")
	fs.StringVar(&pidfile, "pidfile", "", "the file that says which process it is")
	fs.BoolVar(&ready, "ready", false, "run: tell descriptor 3 when it works")
	fs.Uint64Var(&o.Seed, "seed", 1, "the seed")
	fs.IntVar(&o.Workers, "workers", 3, "how many work")
	fs.IntVar(&o.Ops, "ops", 1000, "operations of each")
	fs.Float64Var(&o.Rate, "rate", 0, "operations a second of each; 0: as fast as it goes")
	_ = fs.Parse(args[1:])
	switch args[0] {
	case "run":
		ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM, unix.SIGINT)
		defer stop()
		if err := os.Chdir("/"); err != nil {
			return err
		}
		if err := churn.WriteIdentity(pidfile, "running"); err != nil {
			return err
		}
		if ready {
			churn.Ready()
		}
		return program.Run(ctx, o)
	case "start":
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		return churn.Detach(ctx, pidfile, o.Log+".out", append([]string{"run", "--ready"}, args[1:]...)...)
	case "stop":
		return churn.SignalStop(pidfile, 30*time.Second)
	}
	return fmt.Errorf("unknown command %q", args[0])
}
