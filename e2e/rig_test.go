package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fsmigrate/fsmigrate/control"
	"github.com/fsmigrate/fsmigrate/e2e/vol"
	"github.com/fsmigrate/fsmigrate/migrate"
)

// rig is one migration to be: a source with an application on it, a spare, and a
// state directory and an fstab of its own.
type rig struct {
	*vol.Lab
	t      *testing.T
	pair   pair
	source string // device
	spare  string // device
	dir    string // where the volume is mounted
	state  string
	fstab  string
	report string

	engine *process // run or resume
}

const id = "t1"

// newRig makes volumes of the size and mounts the source.
func newRig(t *testing.T, p pair, mib int64) *rig {
	t.Helper()
	r := &rig{Lab: vol.New(t), t: t, pair: p}
	r.source, r.dir = r.Volume(p.spec, mib, "data")
	r.spare = r.Device(mib + mib/4)
	r.state, r.fstab, r.report = r.Path("state"), r.Path("fstab"), r.Path("report.json")
	uuid := strings.TrimSpace(vol.Run(t, "blkid", "-p", "-s", "UUID", "-o", "value", r.source))
	line := fmt.Sprintf("# the lab's own\nUUID=%s %s %s defaults 0 2\n", uuid, r.dir, fstypeOf(p.spec))
	if err := errors.Join(os.Mkdir(r.state, 0o700), os.WriteFile(r.fstab, []byte(line), 0o644)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // before the lab's own: the engine first, then the application
		if r.engine != nil {
			r.engine.kill()
		}
		for _, p := range r.processes() {
			_ = syscall.Kill(p.PID, syscall.SIGKILL)
		}
		for _, p := range vol.Processes(r.Dir) {
			_ = syscall.Kill(p.PID, syscall.SIGKILL)
		}
		if t.Failed() {
			r.explain()
		}
	})
	return r
}

// processes are those of the program under test that belong to this rig.
func (r *rig) processes() (out []vol.Process) {
	for _, p := range vol.Processes(r.Dir) {
		if exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", p.PID)); err == nil && strings.HasPrefix(exe, resolved(programs.fsmigrate)) {
			out = append(out, p)
		}
	}
	return out
}

func resolved(path string) string {
	if to, err := os.Readlink(path); err == nil {
		return to
	}
	return path
}

// explain shows what an operator would look at.
func (r *rig) explain() {
	for _, name := range []string{"engine.out", "churn.log.out", "fstab"} {
		if b, err := os.ReadFile(r.Path(name)); err == nil {
			r.t.Logf("--- %s:\n%s", name, tail(b, 6000))
		}
	}
	out, err := exec.Command("bash", "-c", `tail -qn 25 "$0"/*/audit.jsonl | sed -E 's/"who":.*"plan":"[0-9a-f]*",//'; ls "$0"/*`, r.state).CombinedOutput()
	r.t.Logf("--- state: %v\n%s", err, out)
	mounts, _ := exec.Command("grep", r.Dir, "/proc/self/mountinfo").Output()
	r.t.Logf("--- mounts:\n%s", mounts)
}

func tail(b []byte, n int) []byte {
	if len(b) > n {
		return append([]byte("…"), b[len(b)-n:]...)
	}
	return b
}

// env is the environment of every command of the program under test.
func (r *rig) env(extra ...string) []string {
	return append(append(os.Environ(), "FSMIGRATE_STATE="+r.state, "FSMIGRATE_FSTAB="+r.fstab), extra...)
}

// global are the flags of every command.
func (r *rig) global() []string { return []string{"--state", r.state, "--fstab", r.fstab} }

// cmd runs a command of the program to its end and answers exit code and output. A request
// waits for the engine that was started to answer: it would be the engine itself, before the other is.
func (r *rig) cmd(args ...string) (int, string) {
	if _, ends := migrate.RequestKind(args[0]).Ends(); ends {
		r.serving()
	}
	cmd := exec.Command(programs.fsmigrate, append(args, r.global()...)...)
	cmd.Env = r.env()
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		r.t.Fatalf("fsmigrate %v: %v", args, err)
	}
	return cmd.ProcessState.ExitCode(), out.String()
}

// serving waits until the engine answers, does so no more (it is stopped), or has ended.
func (r *rig) serving() {
	vol.Eventually(toHold, func() bool {
		if r.engine == nil || r.engine.ended() {
			return true
		}
		s, err := r.status()
		if err != nil {
			return false
		}
		silent, _ := s["engine_silent"].(string)
		running, _ := s["running"].(bool)
		return running || silent != ""
	})
}

// must runs a command that has to exit with one of the codes (0 when none is given).
func (r *rig) must(args []string, codes ...int) string {
	r.t.Helper()
	if len(codes) == 0 {
		codes = []int{0}
	}
	got, out := r.cmd(args...)
	for _, c := range codes {
		if got == c {
			return out
		}
	}
	r.t.Fatalf("fsmigrate %s: exit %d, want %v\n%s", strings.Join(args, " "), got, codes, out)
	return ""
}

// process is a program running in the background.
type process struct {
	cmd  *exec.Cmd
	done chan struct{}
}

func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}

func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// code waits for the end; -1 is a signal.
func (p *process) code(t *testing.T, limit time.Duration) int {
	t.Helper()
	select {
	case <-p.done:
		return p.cmd.ProcessState.ExitCode()
	case <-time.After(limit):
		t.Fatalf("%v still runs after %v", p.cmd.Args, limit)
		return 0
	}
}

// background starts the engine: run, or resume.
func (r *rig) background(env []string, args ...string) *process {
	r.t.Helper()
	out, err := os.OpenFile(r.Path("engine.out"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		r.t.Fatal(err)
	}
	defer out.Close()
	fmt.Fprintf(out, "\n$ fsmigrate %s\n", strings.Join(args, " "))
	p := &process{cmd: exec.Command(programs.fsmigrate, append(args, r.global()...)...), done: make(chan struct{})}
	p.cmd.Env, p.cmd.Stdout, p.cmd.Stderr = r.env(env...), out, out
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := p.cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	go func() { _ = p.cmd.Wait(); close(p.done) }()
	r.engine = p
	return p
}

// runArgs is the command line of the migration.
func (r *rig) runArgs(extra ...string) []string {
	args := []string{
		"run", r.dir, "--to", r.pair.to, "--spare", r.spare, "--id", id, "--yes", "--no-supervisor",
		"--policy", "asap", "--pause-budget", "20s", "--report", r.report,
		"--stop", r.churnCommand("stop"), "--start", r.churnCommand("start"),
	}
	for _, w := range r.pair.waive {
		args = append(args, "--waive", w+"=the test knows")
	}
	return append(args, extra...)
}

// ask asks for something until it is answered with success, or the engine is gone:
// the answer may die with the engine, and while what is dirty is copied it is no.
func (r *rig) ask(what string) {
	engine := r.engine
	go func() {
		again := time.NewTicker(50 * time.Millisecond)
		defer again.Stop()
		for !engine.ended() {
			// By the socket: the command would be the engine where this one was killed just now.
			err := control.Do(context.Background(), filepath.Join(r.state, id), control.Verb(what), "a test", nil, nil)
			if kind := migrate.KindOf(err); err == nil || kind == migrate.WasAborted || kind == migrate.WasReverted {
				return
			}
			<-again.C
		}
	}()
}

// status is `status --json`.
func (r *rig) status() (map[string]any, error) {
	code, out := r.cmd("status", id, "--json")
	m := map[string]any{}
	if code != 0 {
		return nil, fmt.Errorf("exit %d: %s", code, out)
	}
	return m, json.Unmarshal([]byte(out), &m)
}

// waitPhase waits for a phase through status, as long as the engine lives.
func (r *rig) waitPhase(limit time.Duration, phases ...string) string {
	r.t.Helper()
	last := ""
	ok := vol.Eventually(limit, func() bool {
		s, err := r.status()
		if err != nil {
			last = err.Error()
			return r.engine.ended()
		}
		last, _ = s["phase"].(string)
		if running, _ := s["running"].(bool); !running {
			last += ", and nobody runs it" // what the state says, before an engine takes it up
			return r.engine.ended()
		}
		for _, p := range phases {
			if p == last {
				return true
			}
		}
		return r.engine.ended()
	})
	for _, p := range phases {
		if p == last {
			return last
		}
	}
	r.t.Fatalf("phase is %q, want %v (reached in time: %t, engine ended: %t)", last, phases, ok, r.engine.ended())
	return ""
}
