package main

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/fsmigrate/fsmigrate/bench/page"
	"github.com/fsmigrate/fsmigrate/bench/result"
	"github.com/fsmigrate/fsmigrate/migrate"
)

// BenchOptions are those of bench.
type BenchOptions struct {
	Dir        string        `flag:"dir" arg:"DIR" usage:"where the volumes' images go, on the disk to be measured (default: a temporary directory)"`
	Out        string        `flag:"out" arg:"DIR" usage:"where the report goes: JSON, a page, pictures"`
	Scenarios  []string      `flag:"scenario" arg:"NAME" usage:"small, large or btrfs; repeatable (default: all, those beside small under the first workload only)"`
	Workloads  []string      `flag:"workload" arg:"NAME" usage:"mixed, sqlite, postgres, random, append, mail, metadata, mmap, fio or command; repeatable (default: all that are installed, those beside the first three with the first three movers only)"`
	Movers     []string      `flag:"mover" arg:"NAME" usage:"none, \"fsmigrate watch\", \"rsync two-pass\", fpsync, \"cp -a\" or btrfs-convert; repeatable (default: all that are installed)"`
	Command    string        `flag:"command" arg:"CMD" usage:"a workload of your own (sh -c), which tells its latencies on the standard output: docs/bench.md"`
	Rate       int           `flag:"rate" arg:"N" usage:"operations that are due a second (default: the workload's own)"`
	Files      int           `flag:"files" arg:"N" usage:"small files on the volume (default: 20000)"`
	Large      Size          `flag:"large" arg:"SIZE" usage:"size of the large files together (default: 1G)"`
	Runs       int           `flag:"runs" arg:"N" usage:"runs of each combination, interleaved"`
	Before     time.Duration `flag:"before" arg:"TIME" usage:"how long the application has the machine for itself first (default: 4s)"`
	After      time.Duration `flag:"after" arg:"TIME" usage:"how long it is watched on the new volume (default: 4s)"`
	Hold       time.Duration `flag:"hold" arg:"TIME" usage:"how long fsmigrate is left in Hold, caught up, before the cutover (default: 2s)"`
	Policy     string        `flag:"policy" arg:"HOW" usage:"of fsmigrate: gentle (yield to the application) or asap"`
	Budget     time.Duration `flag:"budget" arg:"TIME" usage:"begin no run that would not end in this time; what is left out is listed (default: no limit)"`
	Scale      bool          `flag:"scale" usage:"also measure how pause, memory, copy and plan time grow with 1,000 to 1,000,000 files"`
	ScaleFiles []string      `flag:"scale-files" arg:"N" usage:"measure that with N files; repeatable"`
	Source     string        `flag:"source-device" arg:"DEVICE" usage:"make the source on this blank device, which is wiped at the end, instead of on an image"`
	Spare      string        `flag:"spare-device" arg:"DEVICE" usage:"make the target on this one"`
	Quick      bool          `flag:"quick" usage:"small and short, to see that it works; not to judge by"`
}

// Validate finds what is wrong with the values alone.
func (o BenchOptions) Validate() error {
	if err := oneOf("policy", o.Policy, "gentle", "asap"); err != nil {
		return err
	}
	_, err := o.scale()
	return err
}

// scale are the numbers of files to measure growth with.
func (o BenchOptions) scale() ([]int, error) {
	var list []int
	if o.Scale && len(o.ScaleFiles) == 0 {
		list = []int{1000, 10_000, 100_000, 1_000_000}
	}
	for _, s := range o.ScaleFiles {
		n, err := strconv.Atoi(s)
		if err != nil {
			return nil, usagef("--scale-files 1000 --scale-files 100000", "--scale-files: %q is no number of files", s)
		}
		list = append(list, n)
	}
	return list, nil
}

func newBench(a *app) *cobra.Command {
	o := BenchOptions{Out: "bench-out", Runs: 1, Policy: "gentle"}
	return a.command(spec{
		use:   "bench",
		short: "Measure what an application feels: fsmigrate beside rsync, fpsync, cp and btrfs-convert",
		long: `Makes volumes of its own, runs applications on them at a fixed rate, and has each mover
bring the data to another format meanwhile. Reports the latency of every operation, from
when it was due, before, during and after; how long the application was stopped; time,
memory, processor time and bytes written; and the ratios between the movers.

Needs root, and writes to nothing but its images, or two blank devices that you name.`,
		example: `  fsmigrate bench --dir /mnt/disk --out report
  fsmigrate bench --quick
  fsmigrate bench --workload sqlite --mover none --mover "fsmigrate watch" --runs 5
  fsmigrate bench --command '/opt/app/load --dir "$FSMIGRATE_BENCH_DIR"' --rate 200`,
		exits:   exits{0: "the report is written", 1: "an error: a workload ended, or a mover failed (the report says which)", 2: "", 3: "refused before anything was made: no root, no room, a device that is not blank"},
		args:    cobra.NoArgs,
		options: &o,
		run: func(ctx context.Context, _ *cobra.Command, _ []string) error {
			if err := o.Validate(); err != nil {
				return err
			}
			ctx, release := untilSignal(ctx)
			defer release()
			rep, err := a.wire.bench(ctx, o, func(line string) {
				if !a.JSON {
					fmt.Fprintln(a.out, line)
				}
			})
			if err != nil {
				return err
			}
			return a.report(rep, o.Out)
		},
	})
}

// report writes the report's files and prints its table. That a mover failed is an error,
// after everything else was told.
func (a *app) report(rep *result.Report, out string) error {
	files, err := page.Write(out, rep)
	if err != nil {
		return err
	}
	if err := a.print(rep, func(w io.Writer) { page.Terminal(w, rep, files) }); err != nil {
		return err
	}
	if failed := rep.Failures(); len(failed) > 0 {
		return &migrate.Problem{Kind: migrate.Failed, What: fmt.Sprintf("%d measurements failed; the first: %s: %s", len(failed), failed[0].Mover, failed[0].Why),
			Hint: "the others are in " + out}
	}
	return nil
}
