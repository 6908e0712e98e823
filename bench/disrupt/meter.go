package disrupt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// meter watches the processes of a mover: those that it was given, and their descendants.
type meter struct {
	mu    sync.Mutex
	roots []*exec.Cmd
	cpu   time.Duration // of those that have ended
	peak  int64         // bytes resident, of all together
	stop  chan struct{}
	done  sync.WaitGroup
}

// How often memory is looked at. A peak of a single process between two looks is seen
// nevertheless, by the later of them: the kernel remembers it.
const lookEvery = 10 * time.Millisecond

func newMeter() *meter {
	m := &meter{stop: make(chan struct{})}
	m.done.Go(func() {
		tick := time.NewTicker(lookEvery)
		defer tick.Stop()
		for {
			select {
			case <-m.stop:
				return
			case <-tick.C:
				m.look()
			}
		}
	})
	return m
}

func (m *meter) look() {
	m.mu.Lock()
	defer m.mu.Unlock()
	var sum int64
	for _, c := range m.roots {
		each(c.Process.Pid, func(p process) {
			sum += p.rss
			m.peak = max(m.peak, p.peak)
		})
	}
	m.peak = max(m.peak, sum)
}

// start starts a process of the mover.
func (m *meter) start(c *exec.Cmd) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := c.Start(); err != nil {
		return err
	}
	m.roots = append(m.roots, c)
	return nil
}

// wait waits for one that was started. Its descendants that it waited for are in its usage.
func (m *meter) wait(c *exec.Cmd) error {
	err := c.Wait()
	m.mu.Lock()
	defer m.mu.Unlock()
	for i, r := range m.roots {
		if r == c {
			m.roots = append(m.roots[:i:i], m.roots[i+1:]...)
			break
		}
	}
	if s := c.ProcessState; s != nil { // not its maxrss: that has ours in it, from before its exec
		m.cpu += s.UserTime() + s.SystemTime()
	}
	return err
}

// run is both. What it said is in the error when it fails with a status that is not in ok.
func (m *meter) run(ctx context.Context, ok []int, name string, args ...string) error {
	c := exec.CommandContext(ctx, name, args...)
	c.Cancel = func() error { return c.Process.Signal(syscall.SIGTERM) }
	c.WaitDelay = stopLimit
	var said tailBuffer
	c.Stdout, c.Stderr = &said, &said
	if err := m.start(c); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	err := m.wait(c)
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		for _, code := range ok {
			if exit.ExitCode() == code {
				return nil
			}
		}
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, said.String())
	}
	return nil
}

// read is processor time and memory until now. Of those that still run it is what they
// and their descendants used so far.
func (m *meter) read() (cpu time.Duration, peak int64) {
	m.look()
	m.mu.Lock()
	defer m.mu.Unlock()
	cpu = m.cpu
	for _, c := range m.roots {
		each(c.Process.Pid, func(p process) { cpu += p.cpu })
	}
	return cpu, m.peak
}

func (m *meter) close() {
	close(m.stop)
	m.done.Wait()
}

// process is what /proc says of one.
type process struct {
	cpu, user time.Duration // with the children it waited for; user mode is a part of cpu
	rss, peak int64         // bytes
}

// each calls do with a process and all of its descendants, as far as they still are.
func each(pid int, do func(process)) {
	p, err := look(pid)
	if err != nil {
		return // it has ended
	}
	do(p)
	for _, child := range children(pid) {
		each(child, do)
	}
}

// tick is the unit of the times in /proc/PID/stat (USER_HZ, 100 on every Linux).
const tick = 10 * time.Millisecond

func look(pid int) (p process, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return p, err
	}
	// proc(5): the name is in parentheses and may hold anything; utime is field 14.
	f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	if len(f) < 22 {
		return p, fmt.Errorf("/proc/%d/stat is short", pid)
	}
	for i, s := range f[11:15] { // utime, stime, cutime, cstime
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			return p, err
		}
		p.cpu += time.Duration(n) * tick
		if i%2 == 0 {
			p.user += time.Duration(n) * tick
		}
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return p, err
	}
	for line := range strings.Lines(string(status)) {
		name, rest, _ := strings.Cut(line, ":")
		var to *int64
		switch name {
		case "VmHWM":
			to = &p.peak
		case "VmRSS":
			to = &p.rss
		default:
			continue
		}
		kib, _ := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
		*to = kib << 10
	}
	return p, nil
}

// children are the processes that a process started, and has not waited for.
func children(pid int) []int {
	var list []int
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return nil
	}
	for _, t := range tasks {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/children", pid, t.Name()))
		if err != nil {
			continue
		}
		for _, s := range strings.Fields(string(b)) {
			if n, err := strconv.Atoi(s); err == nil {
				list = append(list, n)
			}
		}
	}
	return list
}
