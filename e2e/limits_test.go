package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fsmigrate/fsmigrate/e2e/vol"
)

// under runs the engine below another program, which sets a limit and executes it.
func (r *rig) under(wrapper []string, args ...string) {
	r.t.Helper()
	out, err := os.OpenFile(r.Path("engine.out"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		r.t.Fatal(err)
	}
	defer out.Close()
	line := append(append(append([]string{}, wrapper...), programs.fsmigrate), append(args, r.global()...)...)
	p := &process{cmd: exec.Command(line[0], line[1:]...), done: make(chan struct{})}
	p.cmd.Env, p.cmd.Stdout, p.cmd.Stderr = r.env(), out, out
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := p.cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	go func() { _ = p.cmd.Wait(); close(p.done) }()
	r.engine = p
}

// unharmed proves that an engine that ended at a limit did the application no harm, that
// it did not crash, and that one without the limit goes on to the end.
func (r *faultRig) unharmed(limit string) {
	t := r.t
	t.Helper()
	said := r.rig.said()
	for _, crash := range []string{"panic:", "goroutine ", "fatal error:"} {
		if strings.Contains(said, crash) {
			t.Errorf("%s: it crashed:\n%s", limit, said)
		}
	}
	r.moreChurn(50)
	if _, err := os.Stat(r.Path("state/" + id + "/state.json")); err != nil {
		return // nothing was begun
	}
	if phase := r.phase(); phase != "rolled-back" && phase != "aborted" {
		if r.engine.ended() {
			r.background(nil, "resume", id)
		}
		r.cutOver()
		r.moreChurn(50)
		r.must([]string{"rollback", id}, 0, 6)
		r.engine.code(t, toEnd)
	}
}

// ends proves the end of a rig of limits.
func (r *faultRig) ends() {
	r.t.Helper()
	r.hook("stop")
	r.never()
	r.judge("at the end", r.dir, r.pair.back)
	r.released(r.pair.spec, r.source, "")
}

// With few descriptors it works, or says that they are too few, and never crashes.
func TestFewDescriptors(t *testing.T) {
	limits := []int{16, 96}
	if long() {
		limits = nil
		for n := 8; n < 160; n += 2 {
			limits = append(limits, n)
		}
	}
	for _, n := range limits {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			r := &faultRig{rig: newRig(t, pairs[0], 400)}
			r.populate(seeded(t).Uint64(), 150, 300)
			r.under([]string{"prlimit", fmt.Sprintf("--nofile=%d:%d", n, n)}, r.runArgs()...)
			at := r.comesTo()
			t.Logf("with %d descriptors it comes to %s", n, at)
			if at == "ended" {
				code := r.engine.cmd.ProcessState.ExitCode()
				if said := r.rig.said(); code <= 0 || !strings.Contains(said, "too many open files") || !strings.Contains(said, "hint: ") {
					t.Errorf("exit %d:\n%s", code, said)
				}
			}
			if n < 96 && !r.engine.ended() {
				r.engine.kill() // the service that it starts would have its limit, and needs more
			}
			r.unharmed(fmt.Sprintf("%d descriptors", n))
			r.ends()
		})
	}
}

// In a control group with little memory it works, or is killed by the kernel; then one with
// more memory goes on.
func TestLittleMemory(t *testing.T) {
	sizes := []int{24}
	if long() {
		sizes = []int{12, 16, 24, 32, 48, 64, 96}
	}
	for _, mib := range sizes {
		t.Run(fmt.Sprint(mib), func(t *testing.T) {
			r := &faultRig{rig: newRig(t, pairs[0], 400)}
			r.populate(seeded(t).Uint64(), 150, 300)
			group := memoryGroup(t, int64(mib)<<20)
			procs := filepath.Join(group, "cgroup.procs")
			r.script("start", "echo $$ >"+filepath.Join(filepath.Dir(group), "cgroup.procs")+"; exec "+r.churnCommand("start"))
			r.under([]string{"sh", "-c", `echo $$ >"$0" && exec "$@"`, procs}, append(r.runArgs(), "--start", "sh "+r.Path("start.sh"))...)
			at := r.comesTo()
			t.Logf("with %d MiB it comes to %s", mib, at)
			if at == "hold" {
				r.cutover() // and perhaps it is killed there
				if !vol.Eventually(toHold, func() bool { return r.asked.ended() || r.engine.ended() }) {
					t.Fatalf("the cutover does not end\n%s", r.rig.said())
				}
				r.asked.code(t, toEnd)
			}
			if !r.engine.ended() && r.phase() == "reverse" {
				r.ask("rollback") // and perhaps it is killed there
				if !vol.Eventually(toHold, r.engine.ended) {
					t.Fatalf("the rollback does not end\n%s", r.rig.said())
				}
			}
			if r.engine.ended() {
				if code := r.engine.cmd.ProcessState.ExitCode(); code == 0 {
					t.Errorf("it ends with success\n%s", r.rig.said())
				}
				if !vol.Eventually(toEnd, func() bool { return len(r.processes()) == 0 }) {
					t.Error("the watchdog does not end")
				}
			}
			r.unharmed(fmt.Sprintf("%d MiB", mib))
			r.ends()
		})
	}
}

// memoryGroup makes a control group with a limit of bytes, of either version.
func memoryGroup(t *testing.T, limit int64) string {
	t.Helper()
	name, file := filepath.Join("/sys/fs/cgroup/memory", "fsmigrate-test-"+strconv.Itoa(os.Getpid())), "memory.limit_in_bytes"
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err == nil {
		name, file = filepath.Join("/sys/fs/cgroup", filepath.Base(name)), "memory.max"
	}
	if err := os.Mkdir(name, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if !vol.Eventually(10*time.Second, func() bool { return os.Remove(name) == nil }) {
			t.Errorf("the control group %s stays", name)
		}
	})
	if err := os.WriteFile(filepath.Join(name, file), strconv.AppendInt(nil, limit, 10), 0o644); err != nil {
		t.Fatal(err)
	}
	return name
}
