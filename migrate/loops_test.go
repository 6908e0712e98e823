package migrate

import (
	"context"
	"fmt"
	"slices"
	"testing"
)

// script is a whole migration and where it should end.
type script struct {
	name  string
	plan  func(*Plan)
	world func(*world)
	ask   map[Phase]RequestKind
	want  Phase
	// also lists ends that a failing start or health hook may lead to.
	also []Phase
}

var scripts = []script{
	{name: "rollback", ask: map[Phase]RequestKind{Hold: AskCutover, Reverse: AskRollback}, want: RolledBack},
	{name: "finalize", plan: auto, ask: map[Phase]RequestKind{Reverse: AskFinalize}, want: Finalized, also: []Phase{RolledBack}},
	{name: "at-once", plan: func(p *Plan) { auto(p); p.Cutover.Finalize = true }, want: Finalized},
	{name: "keep", plan: func(p *Plan) { auto(p); p.Cutover.Old = "keep" }, ask: map[Phase]RequestKind{Reverse: AskFinalize}, want: Finalized},
	{name: "abort", ask: map[Phase]RequestKind{Hold: AskAbort}, want: Aborted},
	{
		name: "erofs", plan: func(p *Plan) { auto(p); p.Service = ServiceSpec{AcceptEROFS: true} }, world: func(w *world) { w.erofs = true },
		ask: map[Phase]RequestKind{Reverse: AskRollback}, want: RolledBack,
	},
	{name: "unwell", plan: auto, world: func(w *world) { w.unwell = 1 }, want: RolledBack, ask: map[Phase]RequestKind{Reverse: AskRollback}},
	{name: "busy", plan: auto, world: func(w *world) { w.busy = 1 }, want: Finalized, ask: map[Phase]RequestKind{Reverse: AskFinalize}, also: []Phase{RolledBack}},
}

func auto(p *Plan) { p.Cutover.Policy = "auto" }

func testPlan(change func(*Plan)) Plan {
	p := Plan{
		Version: PlanVersion, ID: "data",
		Source:  SourceSpec{Mount: "/data", Format: "ext4", UUID: "u1", Device: DeviceSpec{Path: "/dev/vdb", IDs: []string{"wwn:1"}, Bytes: 1 << 30}},
		Target:  TargetSpec{Format: "xfs", Spare: DeviceSpec{Path: "/dev/vdc", IDs: []string{"wwn:2"}, Bytes: 1 << 30}},
		Service: ServiceSpec{Unit: "app.service"},
		Persist: PersistSpec{Fstab: "/etc/fstab"},
	}
	if change != nil {
		change(&p)
	}
	return p.WithDefaults()
}

// life runs the migration once, from New to the end or the crash.
func (sc script) life(w *world) (out Outcome, err error, crashed bool) {
	defer func() {
		if r := recover(); r != nil {
			if _, ok := r.(crash); !ok {
				panic(r)
			}
			crashed = true
		}
	}()
	m, err := New(Options{
		Plan: testPlan(sc.plan), Subject: &fakeSubject{w: w}, Store: fakeStore{w}, Service: fakeService{w}, Watchdog: fakeWatchdog{w},
		Clock: w, Unpause: true, poll: -1,
	})
	if err != nil {
		return out, err, false
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var asked *pending
	waits := 0
	w.tick = func() {
		if waits++; waits > 500 {
			cancel() // stuck; the caller says so
		}
		if why := forgotten(m.state, w.state); why != "" && w.fault.mode != "fail" && w.fault.mode != "fail-after" && w.broken == nil {
			w.broken = fmt.Errorf("the engine waits in %s, and a crash would forget: %s", m.state.Phase, why)
		}
		if asked != nil {
			select {
			case <-asked.answer:
			default:
				return
			}
		}
		asked = nil
		if kind, ok := sc.ask[m.Status().Phase]; ok && (w.running || w.erofs) {
			asked = m.post(Request{Kind: kind})
		}
	}
	out, err = m.Run(ctx)
	return out, err, false
}

// forgotten says what the engine knows and the store does not, of that which a resume needs.
func forgotten(knows, stored State) string {
	for _, f := range []struct {
		what string
		a, b any
	}{
		{"the phase", knows.Phase, stored.Phase},
		{"the service", knows.Service, stored.Service},
		{"the pause", knows.Paused, stored.Paused},
		{"the record's number", knows.Seq, stored.Seq},
		{"the failures", knows.Failures, stored.Failures},
		{"when to try again", knows.NotBefore, stored.NotBefore},
		{"that it goes back", knows.Want == wantBack, stored.Want == wantBack},
		{"the way back", knows.Report.WayBack, stored.Report.WayBack},
	} {
		if f.a != f.b {
			return fmt.Sprintf("%s: %v, stored %v", f.what, f.a, f.b)
		}
	}
	return ""
}

// play runs the script with one fault, resuming as a supervisor would, and judges it.
func (sc script) play(t *testing.T, seed uint64, f fault, after func(*world)) (reached bool) {
	t.Helper()
	w := newWorld(seed, f)
	if sc.world != nil {
		sc.world(w)
	}
	fail := func(format string, args ...any) {
		t.Helper()
		t.Fatalf("%s, seed %d, %s at %d (%s): %s\n%v", sc.name, seed, f.mode, f.at, at(w.log, f.at), fmt.Sprintf(format, args...), w.log)
	}
	for lives := 0; ; lives++ {
		if lives == 8 {
			fail("does not end")
		}
		out, err, crashed := sc.life(w)
		w.check("at the end of a life")
		if w.broken != nil {
			fail("%v", w.broken)
		}
		if crashed {
			w.died()
			after(w)
			w.check("after the crash")
			continue
		}
		if !out.Phase.Ended() {
			w.died()
			if KindOf(err) == Stopped || err == nil {
				fail("stuck in %s: %v", out.Phase, err)
			}
			continue // a supervisor or the operator resumes
		}
		if out.Truth != w.truth() {
			fail("ended believing in the %s, truth %s", out.Truth, w.truth())
		}
		if out.Phase != sc.want && !(f.mode[0] == 'f' && slices.Contains(sc.also, out.Phase)) && !(f.mode[0] == 'f' && out.Phase == RolledBack) {
			fail("ended in %s, want %s: %v", out.Phase, sc.want, err)
		}
		wantTruth := map[Phase]Side{Finalized: Shadow, RolledBack: Source, Aborted: Source}[out.Phase]
		switch {
		case w.truth() != wantTruth:
			fail("%s with truth %s", out.Phase, w.truth())
		case w.inPlace != wantTruth || !w.writable[wantTruth] || w.writable[wantTruth.Other()]:
			fail("%s: in place %s, writable %v", out.Phase, w.inPlace, w.writable)
		case !w.running:
			fail("%s: the service is down", out.Phase)
		case !w.released:
			fail("%s: nothing was released", out.Phase)
		}
		return w.fired
	}
}

func at(log []string, k int) string {
	if k >= 0 && k < len(log) {
		return log[k]
	}
	return "end"
}

// TestLoops fails, or dies at, the k-th operation of whole migrations, for every k
// until a run gets through, and lets the watchdog win at every k.
func TestLoops(t *testing.T) {
	modes := []struct {
		name, mode string
		after      func(*world)
	}{
		{"none", "", nil},
		{"fail", "fail", func(*world) {}},
		{"fail-after", "fail-after", func(*world) {}},
		{"die", "die", func(*world) {}},
		{"die-watchdog", "die", func(w *world) { w.watchdog("engine died") }},
		{"power-cut", "die", (*world).boot},
		{"watchdog", "watchdog", func(*world) {}},
		{"watchdog-lost", "lost", func(*world) {}},
	}
	for _, sc := range scripts {
		for _, mode := range modes {
			t.Run(sc.name+"/"+mode.name, func(t *testing.T) {
				t.Parallel()
				if mode.mode == "" {
					sc.play(t, 1, fault{"none", -1}, nil)
					return
				}
				runs := 0
				for k := 0; sc.play(t, uint64(k%7), fault{mode.mode, k}, mode.after); k++ {
					if runs++; runs > 2000 {
						t.Fatal("no run gets through")
					}
				}
				t.Logf("%d faults, seeds 0 to 6", runs)
				if runs < 20 {
					t.Fatalf("only %d operations were reached", runs)
				}
			})
		}
	}
}

// TestDoubleFaults dies at k and again a few operations later, in the recovery, with
// and without the watchdog and the boot in between.
func TestDoubleFaults(t *testing.T) {
	for _, sc := range scripts {
		t.Run(sc.name, func(t *testing.T) {
			t.Parallel()
			for gap := range 9 {
				deaths := 0
				again := func(w *world) {
					if deaths++; deaths > 1 {
						return
					}
					w.fault.at = w.ops + gap
					switch gap % 3 {
					case 1:
						w.watchdog("engine died")
					case 2:
						w.boot()
					}
				}
				for k := gap % 5; sc.play(t, uint64(gap), fault{"die", k}, again); k += 5 {
					deaths = 0
				}
			}
		})
	}
}
