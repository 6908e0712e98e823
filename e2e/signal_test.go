package e2e

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/fsmigrate/fsmigrate/e2e/vol"
)

// A signal in any phase: before the record what was begun is undone, after it it is finished;
// then the engine stops, the service runs on the truth, and resume goes on from there. After the
// record of a rollback nothing is left to go on with.
func TestBadDaysSignals(t *testing.T) {
	r := small(t, pairs[0], 400)
	vol.Run(t, "dd", "if=/dev/urandom", "of="+filepath.Join(r.dir, "large"), "bs=1M", "count=8", "status=none")
	r.script("stop", "rm -f "+r.Path("up"))
	r.script("start", `echo "$FSMIGRATE_TRUTH" >`+r.Path("up"))
	r.script("health", "test -e "+r.Path("up"))

	stopped := func(condition, fstype string) {
		t.Helper()
		d := dayOf(t, condition)
		before := len(r.said())
		if err := r.engine.cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		_ = r.engine.cmd.Process.Signal(syscall.SIGCONT)
		d.judge(t, r.engine.code(t, toEnd), r.said()[before:])
		if got := r.fsType(); got != fstype {
			t.Errorf("%s: %s is in place, want %s", condition, got, fstype)
		}
		if err := os.WriteFile(filepath.Join(r.dir, "written"), []byte(condition), 0o644); err != nil {
			t.Errorf("%s: what is in place takes no writes: %v", condition, err)
		}
		if s, err := r.status(); err != nil || s["truth"] != d.truth {
			t.Errorf("%s: status says %v, %v", condition, s["truth"], err)
		}
		for _, p := range r.processes() {
			t.Errorf("%s: process %d is left: %v", condition, p.PID, p.Args)
		}
	}
	up := func(want string) {
		t.Helper()
		b, err := os.ReadFile(r.Path("up"))
		if err != nil || strings.TrimSpace(string(b)) != want {
			t.Errorf("the service was started on the %q, want the %s: %v", b, want, err)
		}
	}
	// halt asks for something and waits until the engine halts at the step that its environment names.
	halt := func(what string) func(codes ...int) {
		t.Helper()
		asked := process{cmd: exec.Command(programs.fsmigrate, append([]string{what, id}, r.global()...)...), done: make(chan struct{})}
		var said bytes.Buffer
		asked.cmd.Stdout, asked.cmd.Stderr = &said, &said
		if err := asked.cmd.Start(); err != nil {
			t.Fatal(err)
		}
		go func() { _ = asked.cmd.Wait(); close(asked.done) }()
		engine := r.engine.cmd.Process.Pid
		if !vol.Eventually(toHold, func() bool { return halted(engine) || asked.ended() }) || asked.ended() {
			t.Fatalf("%s: the engine did not halt: %s", what, &said)
		}
		return func(codes ...int) {
			t.Helper()
			got := asked.code(t, toEnd)
			for _, c := range codes {
				if got == c {
					return
				}
			}
			t.Errorf("%s: exit %d, want %v\n%s", what, got, codes, &said)
		}
	}

	r.begin(nil, "copy", "--rate", "2M")
	stopped("SIGTERM during the first walk", "ext4")
	for _, step := range []string{"fence", "drain", "swap-in"} {
		r.background([]string{"FSMIGRATE_CRASH_AT=halt:" + step}, "resume", id)
		r.waitPhase(toHold, "hold")
		answer := halt("cutover")
		stopped("SIGTERM between fence and switch record", "ext4")
		answer(7)
		up("source")
	}
	r.background([]string{"FSMIGRATE_CRASH_AT=halt:settle"}, "resume", id)
	r.waitPhase(toHold, "hold")
	answer := halt("cutover")
	stopped("SIGTERM after the switch record", "xfs")
	answer(0)
	up("shadow")

	r.background([]string{"FSMIGRATE_CRASH_AT=halt:drain"}, "resume", id)
	r.waitPhase(toHold, "reverse")
	answer = halt("rollback")
	stopped("SIGTERM between fence and switch record, on the way back", "xfs")
	answer(7)
	up("shadow")
	r.background([]string{"FSMIGRATE_CRASH_AT=halt:start"}, "resume", id)
	r.waitPhase(toHold, "reverse")
	answer = halt("rollback")
	stopped("SIGTERM after the switch record of the way back", "ext4")
	answer(0, 6)
	up("source")
	r.over(r.source)
}
