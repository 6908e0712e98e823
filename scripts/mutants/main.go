// Command mutants asks whether the tests would miss what keeps the invariants. It
// finds every call that syncs, renames, records or marks, leaves them out one at a time, plants faults of
// logic, and runs tests until one fails. The answers are kept in docs/testing.md.
//
//	mutants [-only REGEXP] [-again] [-new] [-path] [-for DURATION] [-most DURATION] [-jobs N] run | list | write
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
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"
)

type options struct {
	only  string
	again bool
	path  bool
	fresh bool
	limit time.Duration
	most  time.Duration
	jobs  int
}

func main() {
	var o options
	flag.StringVar(&o.only, "only", "", "mutants whose name matches")
	flag.BoolVar(&o.again, "again", false, "also those that the document knows to be caught: asks the test that it names first")
	flag.BoolVar(&o.path, "path", false, "only the cutover path, asking only the tests that are named; writes nothing")
	flag.BoolVar(&o.fresh, "new", false, "only those that were never asked")
	flag.DurationVar(&o.limit, "for", 0, "begin no mutant after this time; a later run goes on")
	flag.DurationVar(&o.most, "most", 0, "ask a mutant only of the quickest tests, together no longer than this")
	flag.IntVar(&o.jobs, "jobs", 4, "tests that run at the same time: most wait for a disk")
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
	h.runner.jobs = o.jobs
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
	o       options
	only    *regexp.Regexp
	root    string
	table   []*row
	sites   int
	runner  *runner
	traces  traces
	began   time.Time
	partial bool // not all tests were traced

	mu            sync.Mutex // of what follows, the rows, and the document
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
	if err := h.trace(ctx); errors.Is(err, errEnough) {
		h.partial = true
	} else if err != nil {
		return err
	}
	order := make([]int, len(h.table))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { // the path of a cutover first, then the faults
		rank := func(r *row) int {
			switch {
			case r.cutover:
				return 0
			case r.kind == "":
				return 1
			}
			return 2
		}
		return rank(h.table[a]) - rank(h.table[b])
	})
	order = slices.DeleteFunc(order, func(i int) bool { return !h.wanted(h.table[i]) })
	err := h.runner.atOnce(len(order), func(i int) error {
		if h.enough() {
			return errEnough
		}
		r := h.table[order[i]]
		err := h.one(ctx, r, mutantName(order[i], h.sites))
		if err != nil && ctx.Err() == nil {
			fmt.Println("FAILED", err)
			h.mu.Lock()
			h.failed++
			h.mu.Unlock()
			return nil
		}
		return err
	})
	if err != nil {
		return err
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
			// The rest of the time is for what is known by then.
			enough := func() bool { return h.o.limit > 0 && time.Since(h.began) > h.o.limit*2/3 }
			if err := h.runner.trace(ctx, pkg, h.traces, enough); err != nil {
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
	plan, whole := upTo(plan, h.o.most)
	began := time.Now()
	c, err := h.runner.catcher(ctx, mutant, plan)
	if err != nil {
		return fmt.Errorf("%s: %w", r.id, err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.asked++
	said := c.pkg + " " + c.test
	if r.by = c; c.test == "" {
		h.missed++
		r.asked = r.asked || whole && !h.partial
		n := 0
		for _, b := range plan {
			n += len(b.tests)
		}
		said = fmt.Sprintf("NOTHING of %d tests that come by", n)
		if !whole || h.partial {
			said += ", others were not asked"
		}
	}
	fmt.Printf("%-8s %s: %s (%s)\n", r.kind, r.id, said, time.Since(began).Round(10*time.Millisecond))
	if h.o.path {
		return nil
	}
	return update(h.root, h.table)
}
