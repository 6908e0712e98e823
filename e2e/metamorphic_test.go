package e2e

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fsmigrate/fsmigrate/e2e/oracle"
	"github.com/fsmigrate/fsmigrate/e2e/program"
	"github.com/fsmigrate/fsmigrate/e2e/vol"
)

// The same random program, with no migration, with one, with ten back and forth, with
// crashes: every answer that it got and the tree that it leaves are equal. What lies
// between the application and its volume may be moved, but nobody may see it.
func TestMetamorphic(t *testing.T) {
	rounds := 1
	if long() {
		rounds = 20
	}
	rng := seeded(t)
	for round := range rounds {
		seed := rng.Uint64()
		want := programRun(t, seed, func(r *programRig) {})
		for _, v := range []struct {
			name string
			do   func(*programRig)
		}{
			{"one", (*programRig).one},
			{"ten", (*programRig).ten},
			{"crashes", func(r *programRig) { r.crashes(rng) }},
		} {
			t.Run(fmt.Sprintf("%d_%s", round, v.name), func(t *testing.T) { programRun(t, seed, v.do).equal(t, want) })
		}
	}
}

// programRig is a rig whose application is a program.
type programRig struct {
	*rig
	o     program.Options
	steps int // how far the program was let go
	n     int // of migrations so far
}

// seen is what a program saw and left.
type seen struct {
	transcripts []string
	tree        oracle.Snapshot
}

// programRun runs a program while do migrates its volume, and answers what it saw.
func programRun(t *testing.T, seed uint64, do func(*programRig)) seen {
	t.Helper()
	r := &programRig{rig: newRig(t, pair{name: "program", spec: "ext4-128", to: "xfs", back: time.Second}, 640)}
	r.o = program.Options{Dir: r.dir, Log: r.Path("program.log"), Limit: r.Path("limit"), Seed: seed, Workers: 3, Ops: 4000}
	run := fmt.Sprintf("%s %%s --pidfile %s", programs.program, r.Path("program.pid"))
	r.script("stop", fmt.Sprintf(run, "stop"))
	r.script("start", fmt.Sprintf(run, "start")+fmt.Sprintf(" --dir %s --log %s --limit %s --seed %d --workers %d --ops %d --rate 400",
		r.o.Dir, r.o.Log, r.o.Limit, r.o.Seed, r.o.Workers, r.o.Ops))
	r.script("health", "exit 0")
	r.advance(200)
	r.start()
	do(r)
	r.let(r.o.Ops)
	r.reached(r.o.Ops)
	vol.Run(t, "sh", r.Path("stop.sh"))
	out := seen{}
	for w := range r.o.Workers {
		b, err := os.ReadFile(program.Transcript(r.o.Log, w))
		if err != nil {
			t.Fatal(err)
		}
		out.transcripts = append(out.transcripts, string(b))
	}
	err := program.Stamp(r.o)
	if err == nil {
		out.tree, err = oracle.Take(r.dir, oracle.Options{})
	}
	if err != nil {
		t.Fatal(err)
	}
	r.released(r.fsType(), r.device(), "")
	return out
}

func (s seen) equal(t *testing.T, want seen) {
	t.Helper()
	for w := range want.transcripts {
		got, wanted := strings.Split(s.transcripts[w], "\n"), strings.Split(want.transcripts[w], "\n")
		for i := range wanted {
			if i >= len(got) || got[i] != wanted[i] {
				t.Errorf("worker %d: answer %q, without a migration %q", w, got[min(i, len(got)-1)], wanted[i])
				break
			}
		}
	}
	if d := want.tree.Compare(s.tree); len(d) > 0 {
		t.Errorf("the tree is not that of a run without a migration:\n%s", strings.Join(d, "\n"))
	}
}

// device is that of the volume in place.
func (r *programRig) device() string {
	return strings.TrimSpace(vol.Run(r.t, "findmnt", "-n", "-o", "SOURCE", "-M", r.dir))
}

func (r *programRig) start() {
	if out, err := exec.Command("sh", r.Path("start.sh")).CombinedOutput(); err != nil {
		r.t.Fatalf("start the program: %v: %s", err, out)
	}
}

func (r *programRig) let(n int) {
	r.t.Helper()
	r.steps = min(n, r.o.Ops)
	if err := os.WriteFile(r.o.Limit, fmt.Append(nil, r.steps), 0o600); err != nil {
		r.t.Fatal(err)
	}
}

// advance lets the program go on by n operations; where it was let go before, it has
// got to by then.
func (r *programRig) advance(n int) {
	r.t.Helper()
	r.reached(r.steps)
	r.let(r.steps + n)
}

func (r *programRig) reached(n int) {
	r.t.Helper()
	if n > 0 && !vol.Eventually(toHold, func() bool { done, err := program.Done(r.o); return err == nil && done >= n }) {
		done, err := program.Done(r.o)
		out, _ := os.ReadFile(r.o.Log + ".out")
		r.t.Fatalf("the program stands at %d of %d: %v\n%s", done, n, err, out)
	}
}

// follow begins a migration with a state directory of its own and waits until it holds.
func (r *programRig) follow(extra ...string) {
	r.t.Helper()
	r.n++
	r.state = r.Path(fmt.Sprintf("state%d", r.n))
	if err := os.Mkdir(r.state, 0o700); err != nil {
		r.t.Fatal(err)
	}
	r.begin(nil, "hold", append([]string{"--wipe", "--stop-timeout", "30s", "--start-timeout", "30s"}, extra...)...)
}

// end waits for the end of a migration and its exit code.
func (r *programRig) end(code int) {
	r.t.Helper()
	if got := r.engine.code(r.t, toEnd); got != code {
		r.t.Fatalf("exit %d, want %d\n%s", got, code, r.said())
	}
}

func (r *programRig) one() {
	r.advance(800)
	r.follow()
	r.advance(400)
	r.insist("cutover")
	r.advance(400)
	r.insist("finalize")
	r.end(0)
}

// ten goes there and back again, there for good, and on to another format from there.
func (r *programRig) ten() {
	for n, to := range []string{"xfs", "xfs", "btrfs", "btrfs", "ext4", "ext4", "xfs", "xfs", "ext4", "ext4"} {
		r.pair.to = to
		r.advance(120)
		r.follow()
		r.advance(120)
		r.insist("cutover")
		r.advance(120)
		if n%2 == 0 {
			r.insist("rollback")
			r.end(6)
			continue
		}
		r.insist("finalize")
		r.end(0)
		r.source, r.spare = r.spare, r.source
		r.pair.spec, r.pair.back = to, 0
	}
}

// crashes goes there and back while whoever works on it is killed in each phase, and the
// machine is switched off with the program in the middle of an operation.
func (r *programRig) crashes(rng *rand.Rand) {
	kill := func() {
		for _, p := range r.processes() {
			_ = syscall.Kill(p.PID, syscall.SIGKILL)
		}
		<-r.engine.done
	}
	off := func() {
		r.powerOff()
		r.boot()
		r.start()
	}
	soon := func(limit time.Duration) { <-time.After(time.Duration(rng.Int64N(int64(limit)))) }
	r.advance(600)
	r.follow("--pause-budget", "6s", "--deadline", "10s")
	for _, crash := range []func(){kill, off, r.engineOnly, off, kill} {
		r.advance(120)
		r.ask("cutover")
		soon(600 * time.Millisecond)
		crash()
		r.background(nil, "resume", id)
	}
	r.cutOver()
	for _, crash := range []func(){off, r.engineOnly, kill} {
		r.advance(120)
		soon(300 * time.Millisecond)
		crash()
		r.background(nil, "resume", id)
		r.waitPhase(toHold, "reverse")
	}
	r.advance(120)
	r.ask("rollback")
	soon(600 * time.Millisecond)
	off()
	if !vol.Eventually(toHold, func() bool {
		if r.phase() == "rolled-back" {
			return true
		}
		if r.engine.ended() {
			r.background(nil, "resume", id)
		} else if r.phase() == "reverse" {
			r.cmd("rollback", id)
		}
		return false
	}) {
		r.t.Fatalf("phase %q, want rolled-back\n%s", r.phase(), r.said())
	}
	r.engine.code(r.t, toEnd)
	r.start() // as an operator would after all this; it runs already
}

// engineOnly leaves the watchdog alive: it settles what the engine left.
func (r *programRig) engineOnly() {
	r.engine.kill()
	if !vol.Eventually(30*time.Second, func() bool { return len(r.processes()) == 0 }) {
		r.t.Fatal("the watchdog does not end")
	}
}
