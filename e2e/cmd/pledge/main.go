// Command pledge is the application of the power-cut tests (e2e/pledge).
//
//	pledge run   --dir D --log L --marks M --pidfile P [--seed S --mix M --workers N --rate R --ops N --unsynced D --database D --lie]
//	pledge start … the same, detached (a --start hook)
//	pledge stop  --pidfile P (a --stop hook)
//	pledge judge --dir D --seed S --acked N,N,N [--foreign NAME,NAME]
//
// judge says what is wrong, a line each, with the volume of workers who had the seed and
// acknowledged so many operations, and exits with 1 if anything is.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
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
		return errors.New("usage: pledge run|start|stop|judge [flags]")
	}
	var o pledge.Options
	var pidfile, acked, foreign string
	var ready bool
	fs := flag.NewFlagSet("pledge "+args[0], flag.ExitOnError)
	fs.StringVar(&o.Dir, "dir", "", "the volume")
	fs.StringVar(&o.Log, "log", "", "the log, outside of every volume")
	fs.StringVar(&o.Marks, "marks", "", "the recorder's file of marks, or a block device for acknowledgments")
	fs.StringVar(&pidfile, "pidfile", "", "the file that says which process it is")
	fs.BoolVar(&ready, "ready", false, "run: tell descriptor 3 when it works")
	fs.Uint64Var(&o.Seed, "seed", 1, "the seed")
	fs.StringVar(&o.Mix, "mix", "", "what kind of application: one of "+fmt.Sprint(pledge.Mixes()))
	fs.StringVar(&o.Unsynced, "unsynced", "", "a directory on the volume where one more works who syncs nothing")
	fs.StringVar(&o.Database, "database", "", "a directory on the volume with a database to commit to")
	fs.IntVar(&o.Workers, "workers", 3, "how many work")
	fs.IntVar(&o.First, "first", 0, "the first worker's number")
	fs.StringVar(&acked, "acked", "", "judge: how many operations each worker acknowledged")
	fs.StringVar(&foreign, "foreign", "lost+found", "judge: names at the top that are somebody else's")
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
	case "judge":
		return judge(o, acked, strings.Split(foreign, ","))
	}
	return fmt.Errorf("unknown command %q", args[0])
}

func judge(o pledge.Options, acked string, foreign []string) error {
	var counts []int
	for _, s := range strings.FieldsFunc(acked, func(r rune) bool { return r == ',' }) {
		n, err := strconv.Atoi(s)
		if err != nil {
			return fmt.Errorf("--acked: %w", err)
		}
		counts = append(counts, n)
	}
	h, err := pledge.Script(o.Seed, counts)
	if err != nil {
		return err
	}
	wrong, err := h.Judge(o.Dir, counts, foreign...)
	if err != nil {
		return err
	}
	for _, w := range wrong {
		fmt.Println(w)
	}
	if len(wrong) > 0 {
		return fmt.Errorf("%d things are wrong", len(wrong))
	}
	return nil
}
