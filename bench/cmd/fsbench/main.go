// Command fsbench measures fsmigrate beside rsync, cp and tar; see package bench.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"

	"github.com/fsmigrate/fsmigrate/bench"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "fsbench:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if len(args) == 2 && args[0] == "walk" { // the process that a benchmark starts
		var o bench.WalkOptions
		if err := json.Unmarshal([]byte(args[1]), &o); err != nil {
			return err
		}
		return bench.Walk(ctx, o, os.Stdin, os.Stdout)
	}
	o := bench.Options{Policy: "asap"}
	f := flag.NewFlagSet("fsbench", flag.ExitOnError)
	only := f.String("only", "", "scenarios, separated by commas: "+strings.Join(bench.Scenarios, ","))
	peers := f.String("peers", "", "contenders beside fsmigrate, separated by commas; empty: all")
	f.StringVar(&o.Dir, "dir", "", "where the images are made, on a disk (default: TMPDIR or /var/tmp)")
	f.StringVar(&o.Out, "out", "bench/out", "where the report goes")
	f.IntVar(&o.Runs, "runs", 5, "runs of each contender")
	f.IntVar(&o.Files, "files", 200_000, "small files")
	large := f.Int64("large", 4096, "MiB in large files")
	f.StringVar(&o.Policy, "policy", o.Policy, "fsmigrate's policy: asap or gentle")
	threads := f.String("threads", "0", "fsmigrate's threads, several separated by commas; 0: its own choice")
	f.StringVar(&o.Profile, "cpuprofile", "", "write a CPU profile of the last walk there")
	f.StringVar(&o.Binary, "fsmigrate", "bin/fsmigrate", "the command, for what is measured through it")
	if err := f.Parse(args); err != nil {
		return err
	}
	if os.Geteuid() != 0 {
		return fmt.Errorf("it mounts file systems, and only root may")
	}
	if os.Getenv("FSBENCH_INSIDE") == "" {
		return inside(ctx, args)
	}
	if o.Dir == "" {
		o.Dir = os.Getenv("TMPDIR")
	}
	if o.Dir == "" {
		o.Dir = "/var/tmp"
	}
	o.Large = *large << 20
	for _, s := range strings.Split(*threads, ",") {
		n, err := strconv.Atoi(s)
		if err != nil {
			return fmt.Errorf("-threads: %w", err)
		}
		o.Threads = append(o.Threads, n)
	}
	if *only != "" {
		o.Only = strings.Split(*only, ",")
	}
	if *peers != "" {
		o.Peers = strings.Split(*peers, ",")
	}
	return bench.Run(ctx, o, os.Stdout)
}

// inside runs the benchmark in a mount namespace of its own: nobody else sees its
// mounts, copies them or holds them.
func inside(ctx context.Context, args []string) error {
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), "FSBENCH_INSIDE=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	if err := cmd.Start(); err != nil {
		return err
	}
	release := context.AfterFunc(ctx, func() { _ = cmd.Process.Signal(syscall.SIGTERM) })
	defer release()
	return cmd.Wait()
}
