package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// runner builds test binaries that hold all mutants of an overlay, and runs them.
type runner struct {
	root    string
	overlay string
	jobs    int               // tests that run at the same time; 0 is 1
	names   map[string]string // of mutants as the binaries know them → as the rows do

	mu    sync.Mutex
	built map[string]string
	good  map[catch]bool // what passes without any mutant
}

func newRunner(root string, o *overlay, names map[string]string) (*runner, error) {
	file, err := o.write()
	if err != nil {
		return nil, err
	}
	return &runner{root: root, overlay: file, names: names, built: map[string]string{}, good: map[catch]bool{}}, nil
}

// binary builds the tests of a package.
func (r *runner) binary(pkg string) (string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if b := r.built[pkg]; b != "" {
		return b, nil
	}
	b := filepath.Join(filepath.Dir(r.overlay), strings.ReplaceAll(pkg, "/", "_")+".test")
	cmd := exec.Command(goCommand(), "test", "-c", "-overlay", r.overlay, "-o", b, "./"+pkg)
	cmd.Dir = r.root
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the tests of %s: %w\n%s", pkg, err, out)
	}
	r.built[pkg] = b
	return b, nil
}

var (
	failedTest  = regexp.MustCompile(`(?m)^--- FAIL: (Test\w+)`)
	runningTest = regexp.MustCompile(`(?m)^\t(Test\w+)`)
	tracedTest  = regexp.MustCompile(`\.(Test\w+)[.(]`)
	ranNone     = regexp.MustCompile(`(?m)^testing: warning: no tests to run`)
)

// ask runs tests with one mutant active ("" for none). It answers the test that failed,
// "" when all passed, and what was said. A mutant that makes them hang past limit is caught too.
func (r *runner) ask(ctx context.Context, mutant, pkg string, tests []string, limit time.Duration, env ...string) (by, said string, err error) {
	bin, err := r.binary(pkg)
	if err != nil {
		return "", "", err
	}
	// Short, because sockets have paths of 107 bytes.
	tmp, err := os.MkdirTemp("", "m")
	if err != nil {
		return "", "", err
	}
	defer func() { err = errors.Join(err, r.sweep(tmp)) }()
	ctx, cancel := context.WithTimeout(ctx, limit+20*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, bin, "-test.failfast", "-test.timeout", limit.String(), "-test.run", "^("+strings.Join(tests, "|")+")$")
	cmd.Dir = filepath.Join(r.root, pkg)
	cmd.Env = append(append(os.Environ(), "TMPDIR="+tmp, activeVar+"="+mutant), env...)
	if r.jobs > 1 && os.Geteuid() == 0 {
		// What others mount at the same time must not be in the namespaces that its tests make.
		cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.WaitDelay = time.Second
	err = cmd.Run()
	var exit *exec.ExitError
	switch {
	case err == nil && ranNone.Match(out.Bytes()):
		return "", "", fmt.Errorf("%s has no tests %s", pkg, tests)
	case err == nil:
		return "", "", nil
	case !errors.As(err, &exit):
		return "", "", fmt.Errorf("run the tests of %s: %w", pkg, err)
	}
	if len(tests) == 1 {
		return tests[0], out.String(), nil
	}
	for _, form := range []*regexp.Regexp{failedTest, runningTest, tracedTest} {
		for _, m := range form.FindAllSubmatch(out.Bytes(), -1) {
			if name := string(m[1]); slices.Contains(tests, name) {
				return name, out.String(), nil
			}
		}
	}
	return "", "", fmt.Errorf("the tests of %s failed, none is named:\n%s", pkg, out.Bytes())
}

// sweep ends and removes what a run left.
func (r *runner) sweep(tmp string) error {
	if os.Remove(tmp) == nil || !strings.Contains(tmp, "/fsmigrate-lab.") {
		return os.RemoveAll(tmp) // nothing is left, or it is no lab (of this program's own tests)
	}
	if out, err := exec.Command(filepath.Join(r.root, "scripts/sweep.sh"), tmp).CombinedOutput(); err != nil {
		return fmt.Errorf("sweep %s: %w: %s", tmp, err, out)
	}
	return nil
}

// passes runs a test without a mutant, once: a test that fails anyway catches nothing.
func (r *runner) passes(ctx context.Context, c catch, limit time.Duration) (bool, error) {
	r.mu.Lock()
	good, done := r.good[c]
	r.mu.Unlock()
	if done {
		return good, nil
	}
	by, said, err := r.ask(ctx, "", c.pkg, []string{c.test}, limit)
	if err != nil {
		return false, err
	}
	if by != "" {
		fmt.Printf("%s: %s fails without any mutant:\n%s", c.pkg, c.test, said)
	}
	r.mu.Lock()
	r.good[c] = by == ""
	r.mu.Unlock()
	return by == "", nil
}

// catcher finds a test that misses what the mutant lost, in the order of the plan.
func (r *runner) catcher(ctx context.Context, mutant string, plan []batch) (by catch, err error) {
	for _, b := range plan {
		// A mutant may make each wait last to its end, a busy machine too.
		limit := 30*time.Second + 4*b.took
		for tests := b.tests; len(tests) > 0; {
			name, _, err := r.ask(ctx, mutant, b.pkg, tests, limit)
			if err != nil {
				return catch{}, err
			}
			if name == "" {
				break
			}
			c := catch{pkg: b.pkg, test: name}
			if good, err := r.passes(ctx, c, limit); err != nil || good {
				return c, err
			}
			rest := []string{}
			for _, t := range tests {
				if t != name {
					rest = append(rest, t)
				}
			}
			tests = rest
		}
	}
	return catch{}, nil
}
