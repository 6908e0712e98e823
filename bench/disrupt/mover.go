package disrupt

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fsmigrate/fsmigrate/bench/result"
	"github.com/fsmigrate/fsmigrate/bench/work"
)

// mover brings the data to the new format.
type mover struct {
	name    string
	says    string
	needs   []string                // programs
	applies func(s Scenario) string // why it does not; "": it does
	make    func(s *session) moving
}

// moving is a mover at work, once.
type moving interface {
	// copy does what can be done while the application runs.
	copy(ctx context.Context) error
	// cutover stops the application, puts the new volume in place, and starts it.
	cutover(ctx context.Context) error
	// close ends whatever still runs. It may be called after a failure of the others.
	close() error
}

// catalog are the movers, in the order of the report.
var catalog = []mover{
	{name: result.Baseline, says: "nothing is moved: the application alone, restarted once where the others cut over",
		make: func(s *session) moving { return idle{s} }},
	{name: result.Ours, says: "fsmigrate run, following by fanotify; cutover with its hooks stopping and starting the application",
		make: func(s *session) moving { return &ours{s: s} }},
	{name: "rsync two-pass", says: "rsync -aHAX; then stop, rsync --delete again, swap, start", needs: []string{"rsync"},
		make: func(s *session) moving { return rsync{s, false} }},
	{name: "fpsync", says: "fpsync (parallel rsync); then stop, fpsync -E, swap, start", needs: []string{"fpsync", "fpart", "rsync"},
		make: func(s *session) moving { return rsync{s, true} }},
	{name: "cp -a", says: "stop, cp -a, swap, start", needs: []string{"cp"},
		make: func(s *session) moving { return cp{s} }},
	{name: "btrfs-convert", says: "stop, btrfs-convert in place, start", needs: []string{"btrfs-convert"},
		applies: func(s Scenario) string {
			if s.To != "btrfs" {
				return "it converts to btrfs only, and this scenario's target is " + s.To
			}
			return ""
		},
		make: func(s *session) moving { return convert{s} }},
}

// Movers are the names of the movers, in the order of the report.
func Movers() []string {
	var list []string
	for _, m := range catalog {
		list = append(list, m.name)
	}
	return list
}

// missing are the programs that it needs and the machine has not.
func (m mover) missing() []string {
	var list []string
	for _, p := range m.needs {
		if _, err := work.Program(p); err != nil {
			list = append(list, p)
		}
	}
	return list
}

// idle is the baseline.
type idle struct{ s *session }

func (m idle) copy(ctx context.Context) error { return m.s.wait(ctx, 2*m.s.o.Before+m.s.o.Hold) }

func (m idle) cutover(ctx context.Context) error {
	return m.s.stopped(ctx, func() error { return nil })
}

func (idle) close() error { return nil }

// rsync is two passes of it, or of many in parallel.
type rsync struct {
	s        *session
	parallel bool
}

// vanished is rsync's status when files were gone before it came to them.
const vanished = 24

func (m rsync) copy(ctx context.Context) error {
	if err := m.s.lab.newTarget(ctx); err != nil {
		return err
	}
	return m.pass(ctx, true)
}

func (m rsync) cutover(ctx context.Context) error {
	return m.s.stopped(ctx, func() error {
		if err := m.pass(ctx, false); err != nil {
			return err
		}
		return m.s.lab.swap()
	})
}

// pass is one over all files; the last must succeed and deletes.
func (m rsync) pass(ctx context.Context, first bool) error {
	from, to := m.s.lab.data()+"/", m.s.lab.peer()+"/"
	var ok []int
	if first {
		ok = []int{vanished}
	}
	if !m.parallel {
		args := []string{"-aHAX", "--numeric-ids", from, to}
		if !first {
			args = append([]string{"--delete"}, args...)
		}
		return m.s.meter.run(ctx, ok, "rsync", args...)
	}
	if first {
		ok = []int{1} // some rsync of its found a file gone; the last pass has no such excuse
	}
	tmp := filepath.Join(m.s.lab.stateDir(), "fpsync")
	if err := os.MkdirAll(tmp, 0o700); err != nil {
		return err
	}
	// -E is its way to delete: whole directories are the jobs. Its options of rsync have
	// no -H: a link to a file of another job would not be found by it.
	args := []string{"-n", strconv.Itoa(max(2, runtime.NumCPU())), "-f", "2000", "-t", tmp, "-E", "-o", "-lptgoD -AX --numeric-ids", from, to}
	return m.s.meter.run(ctx, ok, "fpsync", args...)
}

func (rsync) close() error { return nil }

// cp copies with the application stopped.
type cp struct{ s *session }

func (m cp) copy(ctx context.Context) error { return m.s.lab.newTarget(ctx) }

func (m cp) cutover(ctx context.Context) error {
	return m.s.stopped(ctx, func() error {
		if err := m.s.meter.run(ctx, nil, "cp", "-a", m.s.lab.data()+"/.", m.s.lab.peer()+"/"); err != nil {
			return err
		}
		return m.s.lab.swap()
	})
}

func (cp) close() error { return nil }

// convert is btrfs-convert, in place.
type convert struct{ s *session }

func (convert) copy(context.Context) error { return nil }

func (m convert) cutover(ctx context.Context) error {
	l := m.s.lab
	return m.s.stopped(ctx, func() error {
		if err := unix.Unmount(l.data(), 0); err != nil {
			return fmt.Errorf("unmount %s: %w", l.data(), err)
		}
		if err := m.s.meter.run(ctx, nil, "btrfs-convert", "--no-progress", l.source); err != nil {
			return err
		}
		if err := unix.Mount(l.source, l.data(), "btrfs", 0, ""); err != nil {
			return fmt.Errorf("mount %s: %w", l.source, err)
		}
		return nil
	})
}

func (convert) close() error { return nil }

func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
