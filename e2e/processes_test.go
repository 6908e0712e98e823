package e2e

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fsmigrate/fsmigrate/e2e/vol"
)

// Each process of ours is killed, or stopped and left so, where it hurts most. Whichever
// it is, there is one truth, the application gets on by itself or after one command, and
// what is woken later does no harm. The others are killed in TestKillAtRandomInstants,
// TestCrashAtEveryStep and TestWatchdogKilledBehindTheFence.

// processRig is a rig in Hold whose engine stops itself at a step of the cutover that was asked for.
func processRig(t *testing.T, halt string, extra ...string) *faultRig {
	t.Helper()
	r := &faultRig{rig: newRig(t, pairs[0], 512)}
	r.populate(seeded(t).Uint64(), 150, 300)
	r.background([]string{"FSMIGRATE_CRASH_AT=" + halt}, r.runArgs(extra...)...)
	r.waitPhase(toHold, "hold")
	r.cutover()
	if !r.beforeRecord() {
		t.Fatalf("it does not get to %s: %s", halt, &r.answer)
	}
	return r
}

// watchdog is the process id of the watchdog.
func (r *rig) watchdog() int {
	r.t.Helper()
	for _, p := range r.processes() {
		if len(p.Args) > 1 && p.Args[1] == "watchdog" {
			return p.PID
		}
	}
	r.t.Fatal("there is no watchdog")
	return 0
}

func signal(t *testing.T, pid int, s syscall.Signal) {
	t.Helper()
	if err := syscall.Kill(pid, s); err != nil {
		t.Fatal(err)
	}
}

// through ends a migration by another cutover and a rollback, and judges it.
func (r *faultRig) through() {
	r.t.Helper()
	r.cutOver()
	r.moreChurn(50)
	r.must([]string{"rollback", id}, 0, 6)
	r.engine.code(r.t, toEnd)
	r.hook("stop")
	r.never()
	r.judge("rolled back", r.dir, r.pair.back)
	r.released(r.pair.spec, r.source, "")
}

// The engine is stopped behind the fence: its watchdog undoes the cutover at the deadline,
// and the application runs. When the engine is woken it finds that out.
func TestEngineStoppedBehindTheFence(t *testing.T) {
	r := processRig(t, "halt:drain", "--deadline", "4s", "--pause-budget", "2s")
	r.moreChurn(50)
	if got := r.fsType(); got != fstypeOf(r.pair.spec) {
		t.Errorf("%s is in place", got)
	}
	signal(t, r.engine.cmd.Process.Pid, syscall.SIGCONT)
	if code := r.asked.code(t, toEnd); code != 1 || !strings.Contains(r.answer.String(), "hint: ") {
		t.Errorf("cutover: exit %d\n%s", code, &r.answer)
	}
	r.moreChurn(50)
	r.engine.kill()
	r.background(nil, "resume", id)
	r.through()
}

// The watchdog is stopped behind the fence. The cutover goes on without it, to the end;
// when it is woken, after its deadline, it undoes nothing.
func TestWatchdogStoppedBehindTheFence(t *testing.T) {
	r := processRig(t, "halt:drain", "--deadline", "4s", "--pause-budget", "2s")
	dog := r.watchdog()
	signal(t, dog, syscall.SIGSTOP)
	signal(t, r.engine.cmd.Process.Pid, syscall.SIGCONT)
	if !vol.Eventually(toHold, func() bool { return r.fsType() == fstypeOf(r.pair.to) || r.asked.ended() }) {
		t.Fatalf("the cutover does not end\n%s", r.said())
	}
	r.moreChurn(50)
	if got := r.fsType(); got != fstypeOf(r.pair.to) {
		t.Fatalf("%s is in place: %s", got, &r.answer)
	}
	signal(t, dog, syscall.SIGCONT)
	if code := r.asked.code(t, toEnd); code != 0 {
		t.Errorf("cutover: exit %d\n%s", code, &r.answer)
	}
	r.waitPhase(toEnd, "reverse")
	if got := r.fsType(); got != fstypeOf(r.pair.to) {
		t.Errorf("after the watchdog was woken %s is in place", got)
	}
	r.engine.kill() // it would halt again
	r.background(nil, "resume", id)
	r.waitPhase(toEnd, "reverse")
	r.through()
}

// The watchdog is stopped and the engine is killed behind the fence: nobody is left. What
// resumes does nothing beside a watchdog that may wake, and says so; once that is ended,
// it undoes the cutover.
func TestNobodyLeftBehindTheFence(t *testing.T) {
	r := processRig(t, "halt:drain", "--deadline", "10m")
	dog := r.watchdog()
	signal(t, dog, syscall.SIGSTOP)
	r.engine.kill()
	r.background(nil, "resume", id)
	if vol.Eventually(time.Second, func() bool { return r.engine.ended() && r.engine.cmd.ProcessState.ExitCode() == 0 }) {
		t.Errorf("it resumed beside a watchdog\n%s", r.said())
	}
	if n := len(vol.Mounts(r.dir)); n != 1 || r.fsType() != fstypeOf(r.pair.spec) {
		t.Errorf("%d mounts, and %s is in place", n, r.fsType())
	}
	signal(t, dog, syscall.SIGKILL)
	if r.engine.ended() {
		r.background(nil, "resume", id)
	}
	r.moreChurn(50)
	r.through()
}

// The child that runs a hook is killed by somebody.
func TestHookKilled(t *testing.T) {
	for name, want := range map[string]struct {
		exit int // of the cutover
		end  int // of the engine, 0: it holds
		says string
	}{
		"stop":  {1, 0, "the service did not stop"},
		"start": {6, 6, "the service did not start"},
	} {
		t.Run(name, func(t *testing.T) {
			r := &faultRig{rig: newRig(t, pairs[0], 512)}
			r.script("stop", r.churnCommand("stop"))
			r.script("start", r.churnCommand("start"))
			r.script("health", "exit 0")
			r.populate(seeded(t).Uint64(), 150, 300)
			args := append(r.runArgs(), "--stop", "sh "+r.Path("stop.sh"), "--start", "sh "+r.Path("start.sh"), "--stop-timeout", "60s", "--start-timeout", "60s")
			r.background(nil, args...)
			r.waitPhase(toHold, "hold")
			pid := r.Path("hook.pid")
			r.script(name, `if [ "$FSMIGRATE_TRUTH" = shadow ] || [ `+name+` = stop ]; then echo $$ >`+pid+`; mv `+pid+` `+pid+`.done; exec sleep 1000; fi; `+r.churnCommand(name))
			r.cutover()
			var b []byte
			if !vol.Eventually(toHold, func() bool { b, _ = os.ReadFile(pid + ".done"); return len(b) > 0 }) {
				t.Fatalf("the hook does not run\n%s", r.said())
			}
			if out, err := exec.Command("kill", "-9", strings.TrimSpace(string(b))).CombinedOutput(); err != nil {
				t.Fatalf("kill: %v: %s", err, out)
			}
			code := r.asked.code(t, toEnd)
			if code == 0 || want.end == 0 && code != want.exit {
				t.Errorf("cutover: exit %d, want %d\n%s", code, want.exit, &r.answer)
			}
			if !r.says(toEnd, want.says) || !r.says(toEnd, "killed") {
				t.Errorf("it does not say %q:\n%s%s", want.says, &r.answer, r.said())
			}
			r.moreChurn(50)
			if got := r.fsType(); got != fstypeOf(r.pair.spec) {
				t.Errorf("%s is in place", got)
			}
			if want.end == 0 {
				r.must([]string{"abort", id}, 0, 5)
				want.end = 5
			}
			if code := r.engine.code(t, toEnd); code != want.end {
				t.Errorf("exit %d, want %d\n%s", code, want.end, r.said())
			}
			r.hook("stop")
			r.never()
			r.judge("after a killed hook", r.dir, r.pair.back)
			r.released(r.pair.spec, r.source, "")
		})
	}
}

// mount.fsmigrate is killed at any instant of a boot, or stopped and left so while the
// boot is tried again: the next one mounts the one truth, or says that somebody settles.
func TestBootKilled(t *testing.T) {
	rng := seeded(t)
	r := &faultRig{rig: newRig(t, pairs[0], 512)}
	r.populate(rng.Uint64(), 150, 300)
	r.background(nil, r.runArgs()...)
	r.cutOver()
	tries := 6
	if long() {
		tries = 200
	}
	for n := range tries {
		r.powerOff()
		how := []syscall.Signal{syscall.SIGKILL, syscall.SIGSTOP}[n%2]
		cmd := exec.Command(programs.mountHelper, "fsmigrate:"+id, r.dir, "-o", "state="+r.state)
		cmd.Env = r.env()
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		<-time.After(time.Duration(rng.Int64N(int64(60 * time.Millisecond))))
		_ = cmd.Process.Signal(how)
		if how == syscall.SIGSTOP { // an operator ends it, and mounts
			<-time.After(50 * time.Millisecond)
			_ = cmd.Process.Kill()
		}
		_ = cmd.Wait()
		if !cmd.ProcessState.Success() {
			r.boot()
		}
		if n := len(vol.Mounts(r.dir)); n != 1 || r.fsType() != fstypeOf(r.pair.to) {
			t.Fatalf("%d mounts, and %s is in place", n, r.fsType())
		}
		r.judge("booted", r.dir, 0)
		if on := vol.Run(t, "findmnt", "-n", "-o", "VFS-OPTIONS,FS-OPTIONS", "-M", r.dir); strings.Contains(on, "ro,") {
			t.Fatalf("booted read-only: %s", on)
		}
	}
	r.hook("start")
	r.background(nil, "resume", id)
	r.waitPhase(toHold, "reverse")
	r.moreChurn(50)
	r.must([]string{"rollback", id}, 0, 6)
	r.engine.code(t, toEnd)
	r.hook("stop")
	r.released(r.pair.spec, r.source, "")
}
