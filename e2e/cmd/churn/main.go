// Command churn is the application of the black-box tests: it works on a volume,
// remembers what the volume acknowledged, and judges a volume by it.
//
//	churn run    --dir D --log L --pidfile P [--seed S --workers N --rate R --objects N]
//	churn start  --log L --pidfile P [--rate R] go on with a log, detached (a --start hook)
//	churn stop   --pidfile P                  close everything and end (a --stop hook)
//	churn pause  --pidfile P                  close everything and wait for continue
//	churn continue --pidfile P
//	churn check  --dir D --log L
//	churn append --dir D --log L --name F     sequence numbers, each with fsync
//	churn check-append --dir D --log L --name F
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"time"

	"github.com/fsmigrate/fsmigrate/e2e/churn"
	"golang.org/x/sys/unix"
)

type flags struct {
	dir, log, pidfile, name, without, ignore string
	resume, ready                            bool
	limit, granularity                       time.Duration
	o                                        churn.Options
}

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: churn run|start|stop|pause|continue|check|append|check-append [flags]")
		os.Exit(2)
	}
	var f flags
	fs := flag.NewFlagSet("churn "+os.Args[1], flag.ExitOnError)
	fs.StringVar(&f.dir, "dir", "", "the volume")
	fs.StringVar(&f.log, "log", "", "the log of acknowledged operations, outside the volume")
	fs.StringVar(&f.pidfile, "pidfile", "", "the file that says which process it is")
	fs.StringVar(&f.name, "name", "sequence", "append: the file's name")
	fs.StringVar(&f.without, "without", "", "kinds of operations left out, by comma")
	fs.StringVar(&f.ignore, "ignore", "", "check: fields left out, by comma")
	fs.BoolVar(&f.resume, "resume", false, "run: go on with the log")
	fs.BoolVar(&f.ready, "ready", false, "run: tell descriptor 3 when it works")
	fs.DurationVar(&f.limit, "limit", 30*time.Second, "stop, pause, continue: how long to wait")
	fs.DurationVar(&f.granularity, "granularity", 0, "check: of mtime")
	fs.Uint64Var(&f.o.Seed, "seed", 1, "run: the seed")
	fs.IntVar(&f.o.Workers, "workers", 0, "run: workers")
	fs.Float64Var(&f.o.Rate, "rate", 0, "run, append: operations a second")
	fs.IntVar(&f.o.Objects, "objects", 0, "run: the number of objects it hovers about")
	fs.Int64Var(&f.o.Ops, "ops", 0, "run: end after so many")
	fs.Int64Var(&f.o.MaxFile, "max-file", 0, "run: bytes of the largest files")
	fs.BoolVar(&f.o.Tolerate, "tolerate-erofs", false, "run, append: retry on a reopened volume")
	_ = fs.Parse(os.Args[2:])
	f.o.Without = fields(f.without)
	if err := f.run(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "churn:", err)
		os.Exit(1)
	}
}

func fields(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return r == ',' })
}

func (f flags) run(command string) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	switch command {
	case "run":
		return f.serve(ctx)
	case "start":
		ctx, cancel := context.WithTimeout(ctx, f.limit)
		defer cancel()
		args := []string{"run", "--resume", "--ready", "--log", f.log, "--pidfile", f.pidfile, "--without", f.without,
			fmt.Sprintf("--rate=%g", f.o.Rate), fmt.Sprintf("--ops=%d", f.o.Ops), fmt.Sprintf("--tolerate-erofs=%t", f.o.Tolerate)}
		return churn.Detach(ctx, f.pidfile, f.log+".out", args...)
	case "stop":
		return churn.SignalStop(f.pidfile, f.limit)
	case "pause":
		return churn.SignalState(f.pidfile, "paused", f.limit)
	case "continue":
		return churn.SignalState(f.pidfile, "running", f.limit)
	case "check":
		return f.check()
	case "append":
		ctx, stop := signal.NotifyContext(ctx, unix.SIGTERM, unix.SIGINT)
		defer stop()
		n, err := churn.Append(ctx, f.dir, f.log, f.name, f.o.Rate, f.o.Tolerate)
		fmt.Println("acknowledged", n)
		return err
	case "check-append":
		n, err := churn.CheckAppend(f.dir, f.log, f.name)
		fmt.Println("acknowledged", n)
		return err
	}
	return fmt.Errorf("unknown command %q", command)
}

func (f flags) serve(ctx context.Context) (err error) {
	if err := os.Chdir("/"); err != nil {
		return err
	}
	var r *churn.Runner
	if f.resume {
		r, err = churn.Resume(ctx, f.log, f.o)
	} else {
		r, err = churn.Start(ctx, f.dir, f.log, f.o)
	}
	if err != nil {
		return err
	}
	return churn.Serve(r, f.pidfile, func() {
		if f.ready {
			churn.Ready()
		}
	})
}

func (f flags) check() error {
	ignore := map[string]bool{}
	for _, name := range fields(f.ignore) {
		ignore[name] = true
	}
	rp, found, err := churn.CheckLog(f.dir, f.log, churn.CheckOptions{Granularity: f.granularity, Ignore: ignore})
	if err != nil {
		return err
	}
	fmt.Printf("%d objects, %d acknowledged, %d unanswered, refused: %v\n", rp.Model.Objects(), rp.Ops, len(rp.Dangling), rp.Failed)
	if len(found) > 0 {
		return errors.New("differences:\n" + churn.Summary(found))
	}
	return nil
}
