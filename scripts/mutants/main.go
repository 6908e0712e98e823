// Command mutants asks whether the tests would miss what keeps the invariants. It
// finds every call that syncs, renames, records or marks, leaves them out one at a time, plants faults of
// logic, and runs tests until one fails. The answers are kept in docs/testing.md.
//
//	mutants [-only REGEXP] [-again] [-new] [-path] [-for DURATION] run | list | write
//
// List prints what is known; write brings the rows of the document up to date without running anything.
// All mutants of a package are built into one test binary, each behind a question that
// an environment variable answers, through the go command's -overlay: no file of the product is changed.
// It runs tests that mount and need root: scripts/inlab.sh.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"strconv"
	"syscall"
	"time"
)

type options struct {
	only  string
	again bool
	path  bool
	fresh bool
	limit time.Duration
}

func main() {
	var o options
	flag.StringVar(&o.only, "only", "", "mutants whose name matches")
	flag.BoolVar(&o.again, "again", false, "also those that the document knows to be caught: asks the test that it names first")
	flag.BoolVar(&o.path, "path", false, "only the cutover path, asking only the tests that are named; writes nothing")
	flag.BoolVar(&o.fresh, "new", false, "only those that were never asked")
	flag.DurationVar(&o.limit, "for", 0, "begin no mutant after this time; a later run goes on")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := run(ctx, o, flag.Arg(0))
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "mutants:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options, command string) error {
	root, err := os.Getwd()
	if err != nil {
		return err
	}
	only, err := regexp.Compile(o.only)
	if err != nil {
		return err
	}
	fset, all, err := load(root)
	if err != nil {
		return err
	}
	sites := enumerate(fset, all)
	table, err := rows(sites, root)
	if err != nil {
		return err
	}
	switch command {
	case "list":
		for _, r := range table {
			fmt.Println(r.kind+"\t"+r.id, r.verdict())
		}
		return nil
	case "write":
		return update(root, table)
	case "run":
	default:
		return errors.New("run, list or write?")
	}
	work, err := os.MkdirTemp("", "mutants")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	o2, err := overlayOf(work, fset, all, sites, faults)
	if err != nil {
		return err
	}
	names := map[string]string{}
	for i, r := range table {
		names[mutantName(i, len(sites))] = r.id
	}
	h := &hunt{o: o, only: only, root: root, table: table, sites: len(sites), began: time.Now()}
	if h.runner, err = newRunner(root, o2, names); err != nil {
		return err
	}
	if h.traces, err = readTraces(root); err != nil {
		return err
	}
	err = h.all(ctx)
	if errors.Is(err, errEnough) {
		fmt.Println("the time is over; run again for the rest")
		return nil
	}
	return err
}

// errEnough says that the time of -for is over.
var errEnough = errors.New("the time is over")

// mutantName is how the binaries know the mutant of a row; the faults come after the sites.
func mutantName(row, sites int) string {
	if row < sites {
		return "site-" + strconv.Itoa(row)
	}
	return "fault-" + faults[row-sites].name
}

// hunt is one run over the table.
type hunt struct {
	o             options
	only          *regexp.Regexp
	root          string
	table         []*row
	sites         int
	runner        *runner
	traces        traces
	began         time.Time
	asked, missed int
	failed        int
}

func (h *hunt) enough() bool { return h.o.limit > 0 && time.Since(h.began) > h.o.limit }

func (h *hunt) wanted(r *row) bool {
	switch {
	case !h.only.MatchString(r.id), r.reason != "":
		return false
	case h.o.path:
		return r.cutover
	case h.o.fresh:
		return r.by.test == "" && r.verdict() == unasked
	}
	return h.o.again || r.by.test == ""
}

func (h *hunt) all(ctx context.Context) error {
	if err := h.trace(ctx); err != nil {
		return err
	}
	for i, r := range h.table {
		if !h.wanted(r) {
			continue
		}
		if h.enough() {
			return errEnough
		}
		if err := h.one(ctx, r, mutantName(i, h.sites)); err != nil {
			if ctx.Err() != nil {
				return err
			}
			fmt.Println("FAILED", err)
			h.failed++
		}
	}
	fmt.Printf("%d asked, %d caught by nothing, %s\n", h.asked, h.missed, time.Since(h.began).Round(time.Second))
	switch {
	case h.failed > 0:
		return fmt.Errorf("of %d mutants nobody knows", h.failed)
	case h.missed > 0:
		return errors.New("some mutants are caught by nothing")
	}
	return nil
}

// trace learns which tests come by the mutants that are wanted. Those of the path are
// asked of the tests that are named, and need none.
func (h *hunt) trace(ctx context.Context) error {
	done := map[string]bool{}
	for _, r := range h.table {
		if h.o.path || !h.wanted(r) {
			continue
		}
		for _, pkg := range packages(r.file) {
			if done[pkg] {
				continue
			}
			done[pkg] = true
			if err := h.runner.trace(ctx, pkg, h.traces, h.enough); err != nil {
				return err
			}
		}
	}
	return nil
}

func (h *hunt) one(ctx context.Context, r *row, mutant string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	var plan []batch
	if r.by.test != "" {
		plan = append(plan, batch{pkg: r.by.pkg, tests: []string{r.by.test}, took: 10 * time.Second})
	}
	if !h.o.path {
		plan = append(plan, h.traces.plan(r.id, packages(r.file))...)
	}
	began := time.Now()
	c, err := h.runner.catcher(ctx, mutant, plan)
	if err != nil {
		return fmt.Errorf("%s: %w", r.id, err)
	}
	h.asked++
	said := c.pkg + " " + c.test
	if r.by = c; c.test == "" {
		h.missed++
		r.asked = true
		n := 0
		for _, b := range plan {
			n += len(b.tests)
		}
		said = fmt.Sprintf("NOTHING of %d tests that come by", n)
	}
	fmt.Printf("%-8s %s: %s (%s)\n", r.kind, r.id, said, time.Since(began).Round(10*time.Millisecond))
	if h.o.path {
		return nil
	}
	return update(h.root, h.table)
}
