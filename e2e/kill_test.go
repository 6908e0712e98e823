package e2e

import (
	"fmt"
	"math/rand/v2"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/fsmigrate/fsmigrate/e2e/vol"
)

// kill -9 at random instants, from the first second of run to the last of the
// rollback, with and without the watchdog, with and without a reboot: whatever is
// in place afterwards is the one truth, and holds all that was acknowledged.
func TestKillAtRandomInstants(t *testing.T) {
	kills, perMigration := 15, 5
	if long() {
		kills = 100
	}
	rng := seeded(t)
	for n := 0; n < kills; {
		p := pairs[rng.IntN(len(pairs))]
		t.Run(fmt.Sprintf("%d_%s", n, p.name), func(t *testing.T) {
			r := newRig(t, p, 512)
			r.populate(rng.Uint64(), 600, 1200)
			done := r.killedOften(rng, perMigration)
			if done == 0 {
				t.Error("not one kill hit a running migration: this tests nothing")
			}
			n += max(done, 1)
		})
		if t.Failed() {
			return
		}
	}
}

// killedOften drives one migration there and back with so many kills on the way.
func (r *rig) killedOften(rng *rand.Rand, kills int) (done int) {
	t := r.t
	args := r.runArgs("--pause-budget", "6s", "--deadline", "10s")
	r.background(nil, args...)
	back := false // rollback was asked for
	for done < kills {
		// Preflight is long and dull: mostly it is left behind first. Of the others
		// each takes from milliseconds to seconds: choose the scale first.
		if !back && rng.IntN(4) > 0 {
			r.waitPhase(toHold, []string{"copy", "catch-up", "verify", "hold", "cutover", "reverse"}[rng.IntN(4):]...)
		}
		wait := time.Duration(rng.Int64N(int64([]time.Duration{50, 300, 1500, 4000}[rng.IntN(4)] * time.Millisecond)))
		select {
		case <-r.engine.done:
			if back {
				r.settled(back)
				return done
			}
			t.Fatalf("the engine ended by itself: exit %d", r.engine.cmd.ProcessState.ExitCode())
		case <-time.After(wait):
		}
		phase := r.phase()
		if phase == "hold" && rng.IntN(2) == 0 {
			r.ask("cutover")
			<-time.After(time.Duration(rng.Int64N(int64(600 * time.Millisecond))))
		}
		if r.engine.ended() {
			break
		}
		how := r.killSomehow(rng)
		done++
		t.Logf("kill %d: in %s after %v: %s", done, phase, wait, how)
		if _, err := os.Stat(r.Path("state/" + id)); err != nil {
			r.background(nil, args...) // nothing was begun yet
		} else if phase := r.phase(); phase == "rolled-back" || phase == "aborted" {
			break
		} else {
			r.background(nil, "resume", id)
		}
		if !back && (done == kills/2 || r.phase() == "reverse") {
			r.cutOver()
			back = true
			r.ask("rollback")
		}
	}
	r.settled(back)
	return done
}

// killSomehow kills the engine, perhaps the watchdog with it, perhaps everything.
func (r *rig) killSomehow(rng *rand.Rand) string {
	r.t.Helper()
	switch rng.IntN(5) {
	case 0, 1:
		r.engine.kill()
		return "the engine"
	case 2:
		for _, p := range r.processes() {
			_ = syscall.Kill(p.PID, syscall.SIGKILL)
		}
		<-r.engine.done
		return "the engine and its watchdog"
	case 3: // the machine comes up by itself, the migration is resumed later
		r.reboot("after a crash")
		return "everything, and booted"
	}
	for _, p := range r.processes() {
		_ = syscall.Kill(p.PID, syscall.SIGSTOP) // what hangs is killed in the end
	}
	for _, p := range r.processes() {
		_ = syscall.Kill(p.PID, syscall.SIGKILL)
	}
	<-r.engine.done
	return "stopped, then killed"
}

func (r *rig) phase() string {
	s, err := r.status()
	if err != nil {
		return "unknown"
	}
	phase, _ := s["phase"].(string)
	return phase
}

// settled brings the migration to its end and judges what is in place.
func (r *rig) settled(back bool) {
	t := r.t
	t.Helper()
	if !back {
		r.cutOver()
		r.moreChurn(100)
		r.must([]string{"rollback", id}, 0, 6)
	}
	if !vol.Eventually(toHold, func() bool {
		if r.phase() == "rolled-back" {
			return true
		}
		if r.engine.ended() {
			r.background(nil, "resume", id)
		} else if r.phase() == "reverse" {
			r.cmd("rollback", id) // what was asked for died before it was recorded
		}
		return false
	}) {
		t.Fatalf("phase %q, want rolled-back", r.phase())
	}
	r.engine.code(t, toEnd)
	r.hook("start") // as an operator would after all this; it runs already
	r.moreChurn(100)
	r.hook("stop")
	r.judge("at the end", r.dir, r.pair.back)
	r.released(r.pair.spec, r.source, "")
}
