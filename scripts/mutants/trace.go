package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// traceFile remembers which test reaches which mutant, so that a mutant is asked of those
// that can see it, the quickest first. It may be old: a test that reaches a mutant only now is not
// asked then, and the mutant counts as caught by nothing. Removed, it is made anew.
const traceFile = "bin/mutants.json"

// tracing is the mutant that is none: it tells which ones a test comes by.
const tracing = "trace"

// seen is what one test came by.
type seen struct {
	Passes  bool
	Took    time.Duration
	Reaches []string `json:",omitempty"` // names of mutants, as rows have them
}

// traces are those of all tests of a package, by its path from the root.
type traces map[string]map[string]*seen

func readTraces(root string) (traces, error) {
	b, err := os.ReadFile(filepath.Join(root, traceFile))
	if errors.Is(err, fs.ErrNotExist) {
		return traces{}, nil
	}
	if err != nil {
		return nil, err
	}
	ts := traces{}
	if err := json.Unmarshal(b, &ts); err != nil {
		return nil, fmt.Errorf("%s: %w", traceFile, err)
	}
	return ts, nil
}

func (ts traces) write(root string) error {
	b, err := json.MarshalIndent(ts, "", " ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(root, "bin"), 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(root, traceFile), b, 0o644)
}

// packages are those whose tests may miss what a file lost.
func packages(file string) []string {
	dir, _, ok := cutLast(file, "/")
	switch {
	case !ok:
		return []string{"."}
	case dir == "blockdev", dir == "copier", dir == "formats":
		return []string{dir, "shadow"}
	}
	return []string{dir}
}

// trace runs each test of a package alone that ts does not know, until the time is over.
func (r *runner) trace(ctx context.Context, pkg string, ts traces, enough func() bool) error {
	names, err := r.tests(ctx, pkg)
	if err != nil {
		return err
	}
	known := ts[pkg]
	if known == nil {
		known = map[string]*seen{}
		ts[pkg] = known
	}
	for name := range known {
		if !slices.Contains(names, name) {
			delete(known, name)
		}
	}
	var mu sync.Mutex
	err = r.atOnce(len(names), func(i int) error {
		mu.Lock()
		done := known[names[i]] != nil
		mu.Unlock()
		if done {
			return nil
		}
		if enough() {
			return errEnough
		}
		s, err := r.traceOne(ctx, pkg, names[i])
		if err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		known[names[i]] = s
		return ts.write(r.root)
	})
	if err != nil {
		return err
	}
	return ts.write(r.root)
}

// atOnce calls do for 0 … n−1, some of them at the same time: most tests wait for a disk. It
// answers the first error, after which no more calls begin.
func (r *runner) atOnce(n int, do func(i int) error) error {
	var (
		wg    sync.WaitGroup
		mu    sync.Mutex
		next  int
		first error
	)
	take := func() (i int, ok bool) {
		mu.Lock()
		defer mu.Unlock()
		next++
		return next - 1, first == nil && next <= n
	}
	for range max(1, r.jobs) {
		wg.Go(func() {
			for i, ok := take(); ok; i, ok = take() {
				if err := do(i); err != nil {
					mu.Lock()
					first = cmp.Or(first, err)
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	return first
}

func (r *runner) traceOne(ctx context.Context, pkg, name string) (*seen, error) {
	came := filepath.Join(filepath.Dir(r.overlay), "came-"+name)
	if err := os.Remove(came); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	began := time.Now()
	by, said, err := r.ask(ctx, tracing, pkg, []string{name}, 100*time.Second, cameVar+"="+came)
	if err != nil {
		return nil, err
	}
	s := &seen{Passes: by == "", Took: time.Since(began).Round(time.Millisecond)}
	if !s.Passes {
		fmt.Printf("%s: %s fails without any mutant\n%s", pkg, name, said)
	}
	b, err := os.ReadFile(came)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for line := range bytes.Lines(b) {
		// A process that dies in the middle of a test may leave half a line.
		if id := r.names[strings.TrimSpace(string(line))]; id != "" {
			s.Reaches = append(s.Reaches, id)
		}
	}
	slices.Sort(s.Reaches)
	s.Reaches = slices.Compact(s.Reaches)
	return s, nil
}

// tests are the names of a package's tests.
func (r *runner) tests(ctx context.Context, pkg string) (names []string, err error) {
	bin, err := r.binary(pkg)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, bin, "-test.list", "^Test")
	cmd.Dir = filepath.Join(r.root, pkg)
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("list the tests of %s: %w", pkg, err)
	}
	for line := range strings.Lines(string(out)) {
		if name := strings.TrimSpace(line); strings.HasPrefix(name, "Test") {
			names = append(names, name)
		}
	}
	return names, nil
}

// batch is some tests of a package that are asked at once.
type batch struct {
	pkg   string
	tests []string
	took  time.Duration // without any mutant
}

// upTo is the part of a plan whose tests take no longer than most; 0: all of it.
func upTo(plan []batch, most time.Duration) (part []batch, whole bool) {
	var sum time.Duration
	for i, b := range plan {
		if sum += b.took; most > 0 && sum > most {
			return plan[:i], false
		}
	}
	return plan, true
}

// plan is the tests that come by a mutant: the quickest first, more and more at once.
func (ts traces) plan(id string, pkgs []string) (plan []batch) {
	const first, growth, most = time.Second, 4, 45 * time.Second
	for _, pkg := range pkgs {
		var names []string
		for name, s := range ts[pkg] {
			if s.Passes && slices.Contains(s.Reaches, id) {
				names = append(names, name)
			}
		}
		took := func(name string) time.Duration { return ts[pkg][name].Took }
		slices.SortFunc(names, func(a, b string) int { return cmp.Or(cmp.Compare(took(a), took(b)), cmp.Compare(a, b)) })
		room := first
		for _, name := range names {
			last := len(plan) - 1
			if last < 0 || plan[last].pkg != pkg || plan[last].took+took(name) > room {
				if last >= 0 && plan[last].pkg == pkg {
					room = min(room*growth, most)
				}
				plan = append(plan, batch{pkg: pkg})
				last++
			}
			plan[last].tests = append(plan[last].tests, name)
			plan[last].took += took(name)
		}
	}
	return plan
}
