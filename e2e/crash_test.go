package e2e

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fsmigrate/fsmigrate/e2e/vol"
)

// steps of a cutover, in order. FSMIGRATE_CRASH_AT=before:fence makes the engine
// kill itself with SIGKILL right there.
var steps = []string{
	"stop-intent", "stop", "arm", "fence", "drain", "swap-in", "follow", "record", "settle", "start", "health", "disarm",
}

// afterRecord says whether the shadow must be the truth after a crash there.
func afterRecord(at string) bool {
	for i, s := range steps {
		if s == "record" {
			if at == "after:record" {
				return true
			}
			for _, later := range steps[i+1:] {
				if strings.HasSuffix(at, ":"+later) {
					return true
				}
			}
		}
	}
	return false
}

// Died at every named step of the cutover: by itself, with its watchdog alive,
// and as a crash of the machine. The record alone decides which side is the truth.
func TestCrashAtEveryStep(t *testing.T) {
	for i, step := range steps {
		for _, when := range []string{"before:", "after:"} {
			t.Run(when+step, func(t *testing.T) {
				at := when + step
				p := pairs[(i+len(when))%len(pairs)]
				r := newRig(t, p, 512)
				r.populate(seeded(t).Uint64(), 250, 500)
				args := []string{"--pause-budget", "6s", "--deadline", "8s", "--health", "true"}
				r.background([]string{"FSMIGRATE_CRASH_AT=" + at}, r.runArgs(args...)...)
				r.waitPhase(toHold, "hold")
				r.ask("cutover")
				if code := r.engine.code(t, toHold); code != -1 {
					t.Fatalf("run: exit %d, but FSMIGRATE_CRASH_AT=%s was to kill it", code, at)
				}
				want := fstypeOf(p.spec)
				if afterRecord(at) {
					want = fstypeOf(p.to)
				}
				if i%2 == 0 || long() {
					r.reboot("after a crash " + at)
				} else {
					r.watchdogSettles(at)
				}
				if got := r.fsType(); got != want {
					t.Fatalf("%s is in place after a crash %s, want %s", got, at, want)
				}
				r.background(nil, "resume", id)
				r.cutOver()
				r.moreChurn(100)
				r.quiesced(func() { r.judge("resumed after a crash "+at, r.dir, 0) })
				r.must([]string{"rollback", id}, 0, 6)
				r.engine.code(t, toEnd)
				r.hook("stop")
				r.judge("rolled back", r.dir, p.back)
				r.released(p.spec, r.source, "")
			})
		}
	}
}

// cutOver brings a migration into Reverse, wherever it stands: by the cutover that
// was asked for before a crash, or by another.
func (r *rig) cutOver() {
	r.t.Helper()
	last := ""
	if !vol.Eventually(toHold, func() bool {
		switch phase := r.waitPhase(toHold, "hold", "reverse", "cutover"); phase {
		case "reverse":
			return true
		case "hold":
			_, last = r.cmd("cutover", id) // refused for a moment, while what is dirty is copied
		}
		return false
	}) {
		r.t.Fatalf("no cutover: %s", last)
	}
}

// watchdogSettles waits until what the engine left is settled by whoever outlived
// it: the application runs, and gets on, without anybody typing anything. Before
// "arm" nobody outlives the engine, and after "disarm" nothing is left to do.
func (r *rig) watchdogSettles(at string) {
	r.t.Helper()
	vol.Eventually(30*time.Second, func() bool { return len(r.processes()) == 0 })
	if armed(at) {
		r.moreChurn(20)
		return
	}
	if len(vol.Mounts(r.dir)) == 0 {
		r.t.Fatal("nothing is mounted")
	}
}

// armed says whether a watchdog watches at that instant.
func armed(at string) bool {
	switch at {
	case "before:stop-intent", "after:stop-intent", "before:stop", "after:stop", "before:arm", "after:disarm":
		return false
	}
	return true
}

// The watchdog is killed behind the fence: nobody would undo it any more if the engine
// hung now, so the engine undoes it at once, and the application runs on the source.
func TestWatchdogKilledBehindTheFence(t *testing.T) {
	p := pairs[0]
	r := newRig(t, p, 512)
	r.populate(seeded(t).Uint64(), 250, 500)
	r.background([]string{"FSMIGRATE_CRASH_AT=halt:drain"}, r.runArgs("--deadline", "10m")...)
	r.waitPhase(toHold, "hold")
	var asked process
	asked.cmd = exec.Command(programs.fsmigrate, append([]string{"cutover", id}, r.global()...)...)
	var said bytes.Buffer
	asked.cmd.Stdout, asked.cmd.Stderr, asked.done = &said, &said, make(chan struct{})
	if err := asked.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { _ = asked.cmd.Wait(); close(asked.done) }()
	engine := r.engine.cmd.Process.Pid
	if !vol.Eventually(toHold, func() bool { return halted(engine) || asked.ended() }) || asked.ended() {
		t.Fatalf("the engine did not halt behind the fence: %s", &said)
	}
	for _, p := range r.processes() {
		if len(p.Args) > 1 && p.Args[1] == "watchdog" {
			_ = syscall.Kill(p.PID, syscall.SIGKILL)
		}
	}
	if err := syscall.Kill(engine, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if code := asked.code(t, toHold); code != 1 || !strings.Contains(said.String(), "lost its watchdog") {
		t.Fatalf("cutover: exit %d, want 1 and the lost watchdog by name\n%s", code, &said)
	}
	if got := r.fsType(); got != fstypeOf(p.spec) {
		t.Fatalf("%s is in place, want %s", got, p.spec)
	}
	r.moreChurn(50)
	r.must([]string{"abort", id}, 0, 5)
	r.engine.code(t, toEnd)
	r.hook("stop")
	r.judge("after an undone cutover", r.dir, 0)
	r.released(p.spec, r.source, "")
}

// halted says whether a process is stopped by a signal.
func halted(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, after, ok := strings.Cut(string(b), ") ")
	return err == nil && ok && strings.HasPrefix(after, "T")
}

// The way back dies as well.
func TestCrashOnTheWayBack(t *testing.T) {
	for _, at := range []string{"after:stop", "after:fence", "before:record", "after:record", "before:start"} {
		t.Run(at, func(t *testing.T) {
			p := pairs[0]
			r := newRig(t, p, 512)
			r.populate(seeded(t).Uint64(), 250, 500)
			r.background(nil, r.runArgs("--pause-budget", "6s", "--deadline", "8s")...)
			r.cutOver()
			r.engine.kill()
			r.background([]string{"FSMIGRATE_CRASH_AT=" + at}, "resume", id)
			r.waitPhase(toHold, "reverse")
			r.moreChurn(50)
			r.ask("rollback")
			if code := r.engine.code(t, toHold); code != -1 {
				t.Fatalf("resume: exit %d, but FSMIGRATE_CRASH_AT=%s was to kill it", code, at)
			}
			want := fstypeOf(p.to)
			if afterRecord(at) {
				want = fstypeOf(p.spec)
			}
			r.reboot("after a crash on the way back, " + at)
			if got := r.fsType(); got != want {
				t.Fatalf("%s is in place, want %s", got, want)
			}
			r.background(nil, "resume", id)
			r.ask("rollback")
			if code := r.engine.code(t, toHold); code != 6 {
				t.Errorf("resume: exit %d, want 6", code)
			}
			r.hook("stop")
			r.judge("rolled back", r.dir, p.back)
			r.released(p.spec, r.source, "")
		})
	}
}
