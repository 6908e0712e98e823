package migrate

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// rig is a migration over a world, with what its events said.
type rig struct {
	*Migration
	w        *world
	subject  *fakeSubject
	steps    []string
	warnings []string
	blocked  [][]Blocker
	converge []bool
	phases   []Phase
}

func newRig(t *testing.T, change func(*Plan), world func(*world)) *rig {
	t.Helper()
	r := &rig{w: newWorld(1, fault{"none", -1})}
	if world != nil {
		world(r.w)
	}
	r.subject = &fakeSubject{w: r.w}
	var err error
	r.Migration, err = New(Options{
		Plan: testPlan(change), Subject: r.subject, Store: fakeStore{r.w}, Service: fakeService{r.w}, Watchdog: fakeWatchdog{r.w}, Clock: r.w, poll: -1,
		Events: Events{
			Phase:     func(_, to Phase, _ string) { r.phases = append(r.phases, to) },
			Cutover:   func(step string, _ time.Duration, err error) { r.steps = append(r.steps, step) },
			Warning:   func(what, why, _ string) { r.warnings = append(r.warnings, what+": "+why) },
			Blocked:   func(b []Blocker) { r.blocked = append(r.blocked, b) },
			Converges: func(yes bool, _, _ float64) { r.converge = append(r.converge, yes) },
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// until runs the migration, calling each(phase) whenever it waits, until each says stop.
func (r *rig) until(t *testing.T, each func(waits int, p Phase) (stop bool)) (Outcome, error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	waits := 0
	r.w.tick = func() {
		waits++
		if why := forgotten(r.state, r.w.state); why != "" && r.w.broken == nil {
			r.w.broken = fmt.Errorf("the engine waits in %s, and a crash would forget: %s", r.state.Phase, why)
		}
		if each(waits, r.Status().Phase) || waits > 20000 {
			cancel()
		}
	}
	out, err := r.Run(ctx)
	if r.w.check("at the end"); r.w.broken != nil {
		t.Fatal(r.w.broken)
	}
	return out, err
}

// askedAt asks once, at the first wait in phase p, and remembers the answer.
func (r *rig) askedAt(p Phase, k RequestKind, answer *error) func(int, Phase) bool {
	var pend *pending
	return func(_ int, now Phase) bool {
		if pend == nil {
			if now == p {
				pend = r.post(Request{Kind: k})
			}
			return false
		}
		select {
		case *answer = <-pend.answer:
			return true
		default:
			return false
		}
	}
}

var everyStep = []string{"stop-intent", "stop", "arm", "fence", "drain", "swap-in", "follow", "record", "settle", "start", "health", "disarm"}

func TestCutoverSteps(t *testing.T) {
	r := newRig(t, nil, nil)
	var answer error
	out, err := r.until(t, r.askedAt(Hold, AskCutover, &answer))
	if KindOf(err) != Stopped || answer != nil || out.Phase != Reverse || out.Truth != Shadow {
		t.Fatalf("%v, %v, %v", out.Phase, err, answer)
	}
	if !slices.Equal(r.steps, everyStep) {
		t.Errorf("steps %v", r.steps)
	}
	rep := out.Report
	if rep.PauseMS <= 0 || rep.GapMS <= rep.PauseMS || rep.HooksMS >= rep.GapMS || rep.Proof.Kind != "lstat-walk" || rep.Passes == 0 {
		t.Errorf("report %+v", rep)
	}
	if rep.Proof.Verified != rep.Proof.Objects || rep.Verified != 12 || rep.WayBack.State != WayFull {
		t.Errorf("report %+v", rep)
	}
	// No durable write but the record's lies in the pause.
	from, to := slices.Index(r.w.log, "fence"), slices.Index(r.w.log, "settle shadow")
	for _, op := range r.w.log[from:to] {
		if strings.HasPrefix(op, "save") || strings.HasPrefix(op, "audit") {
			t.Errorf("%s between fence and settle: %v", op, r.w.log[from:to])
		}
	}
}

func TestRefusedCutovers(t *testing.T) {
	for _, tc := range []struct {
		name  string
		plan  func(*Plan)
		world func(*world)
		kind  Kind
		what  string
	}{
		{"no service", func(p *Plan) { p.Service = ServiceSpec{} }, func(w *world) { w.erofs = true }, IsRefused, "how to stop the application"},
		{"budget", nil, func(w *world) {
			w.onOp = func(op string) {
				if op == "save hold" {
					w.pause = 2500 * time.Millisecond
				}
			}
		}, IsRefused, "over the budget of 2s"},
		{"blocker", nil, func(w *world) {
			w.blocks = []Blocker{{Class: "source-error", Object: "/data/f", Why: "input/output error", Hint: "copy it"}}
		}, IsRefused, "/data/f: input/output error (source-error)"},
		{"different", nil, func(w *world) { w.stick = map[string]bool{"k3": true} }, Differs, "k3: content"},
		{"busy", nil, func(w *world) { w.busy = 1 }, IsRefused, "postgres (pid 42) write /data/base"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := newRig(t, tc.plan, tc.world)
			var answer error
			out, err := r.until(t, r.askedAt(Hold, AskCutover, &answer))
			if KindOf(err) != Stopped || out.Truth != Source {
				t.Fatal(out.Phase, err)
			}
			if KindOf(answer) != tc.kind || !strings.Contains(fmt.Sprint(answer), tc.what) || HintOf(answer) == "" {
				t.Errorf("answer %q (%s), hint %q", answer, KindOf(answer), HintOf(answer))
			}
			if !r.w.running || !r.w.writable[Source] {
				t.Error("the service is down, or the source not writable")
			}
		})
	}
}

func TestWaivedBlocker(t *testing.T) {
	r := newRig(t, func(p *Plan) { p.Waive = []Waiver{{Class: "source-error", Reason: "known"}} },
		func(w *world) { w.blocks = []Blocker{{Class: "source-error"}} })
	var answer error
	if out, _ := r.until(t, r.askedAt(Hold, AskCutover, &answer)); out.Truth != Shadow || answer != nil {
		t.Fatal(out.Phase, answer)
	}
}

// A waiver does not help against what could not be left behind by name.
func TestFirmBlocker(t *testing.T) {
	r := newRig(t, func(p *Plan) { p.Waive = []Waiver{{Class: "different", Reason: "known"}} },
		func(w *world) {
			w.blocks = []Blocker{{Class: "different", Object: "/data/f", Why: "content differs", Hint: "abort", Firm: true}}
		})
	var answer error
	out, _ := r.until(t, r.askedAt(Hold, AskCutover, &answer))
	if out.Truth != Source || KindOf(answer) != IsRefused || slices.Contains(r.w.log, "stop") {
		t.Fatal(out.Phase, answer, r.w.log)
	}
}

func TestNoRetryStorm(t *testing.T) {
	r := newRig(t, auto, func(w *world) { w.busy = 9 })
	var at []time.Time
	r.w.onOp = func(op string) {
		if op == "fence" {
			at = append(at, r.w.now)
		}
	}
	if out, _ := r.until(t, func(_ int, p Phase) bool { return p == Reverse }); out.Truth != Shadow {
		t.Fatal(out.Phase)
	}
	if len(at) != 10 {
		t.Fatalf("%d attempts", len(at))
	}
	for i := 1; i < len(at); i++ {
		if gap, least := at[i].Sub(at[i-1]), min(30*time.Second<<(i-1), 10*time.Minute); gap < least {
			t.Errorf("attempt %d after %v, at least %v", i, gap, least)
		}
	}
}

func TestWindow(t *testing.T) {
	local := time.Local
	time.Local = time.UTC
	defer func() { time.Local = local }()
	r := newRig(t, func(p *Plan) { p.Cutover.Policy = "window:13:00-13:30" }, nil)
	var fenced time.Time
	r.w.onOp = func(op string) {
		if op == "fence" {
			fenced = r.w.now
		}
	}
	out, _ := r.until(t, func(_ int, p Phase) bool { return p == Reverse })
	if out.Truth != Shadow || fenced.Hour() != 13 || fenced.Minute() > 1 {
		t.Fatal(out.Phase, fenced)
	}
}

// TestDeadline: wherever it passes, the cutover is undone and its record number closed.
func TestDeadline(t *testing.T) {
	for _, late := range []string{"fence", "drain", "swap-in", "follow"} {
		t.Run(late, func(t *testing.T) {
			r := newRig(t, nil, nil)
			r.w.onOp = func(op string) {
				if op == late {
					r.w.now = r.w.now.Add(time.Hour)
					r.w.fire()
				}
			}
			var answer error
			out, _ := r.until(t, r.askedAt(Hold, AskCutover, &answer))
			if out.Truth != Source || !errors.Is(answer, errDeadline) || !r.w.running {
				t.Fatal(out.Phase, answer, r.w.log)
			}
			if slices.Contains(r.w.log, "commit shadow") || len(r.w.records) != 2 || r.w.records[1].Truth != Source {
				t.Fatal(r.w.records, r.w.log)
			}
			if i := slices.Index(everyStep, late); slices.Contains(r.w.log, everyStep[i+1]) {
				t.Fatalf("%s after the deadline: %v", everyStep[i+1], r.w.log)
			}
		})
	}
}

// TestWatchdogWins: the engine sees it before it swaps, and lets the watchdog end before
// it settles what was decided.
func TestWatchdogWins(t *testing.T) {
	r := newRig(t, nil, nil)
	r.w.onOp = func(op string) {
		if op == "drain" {
			r.w.onOp = nil
			r.w.watchdog("deadline")
			r.w.writable[Source] = false // as if drain had not noticed
		}
	}
	var answer error
	out, _ := r.until(t, r.askedAt(Hold, AskCutover, &answer))
	if out.Truth != Source || !strings.Contains(fmt.Sprint(answer), "undone by the watchdog") || slices.Contains(r.w.log, "swap-in") {
		t.Fatal(out.Phase, answer, r.w.log)
	}
	if d, s := slices.Index(r.w.log, "disarm"), slices.Index(r.w.log, "settle source"); d < 0 || d > s {
		t.Fatal("two settle at once: ", r.w.log)
	}
}

// TestWatchdogLost: before the record the fence comes down at once, without waiting for
// a deadline that nobody enforces any more; after it the cutover is finished.
func TestWatchdogLost(t *testing.T) {
	for _, at := range []string{"fence", "drain", "swap-in", "follow"} {
		t.Run(at, func(t *testing.T) {
			r := newRig(t, nil, nil)
			r.w.onOp = func(op string) {
				if op == at {
					r.w.lose()
				}
			}
			var answer error
			out, _ := r.until(t, r.askedAt(Hold, AskCutover, &answer))
			if out.Truth != Source || !errors.Is(answer, errUnwatched) || !strings.Contains(fmt.Sprint(answer), "killed") {
				t.Fatal(out.Phase, answer, r.w.log)
			}
			if !r.w.running || !r.w.writable[Source] || len(r.w.records) != 2 || r.w.records[1].Truth != Source {
				t.Fatal(r.w.running, r.w.writable, r.w.records, r.w.log)
			}
			if i := slices.Index(everyStep, at); slices.Contains(r.w.log, everyStep[i+1]) || slices.Contains(r.w.log, "commit shadow") {
				t.Fatalf("it went on without a watchdog: %v", r.w.log)
			}
		})
	}
	for _, at := range []string{"commit shadow", "settle shadow", "start", "health"} {
		t.Run(at, func(t *testing.T) {
			r := newRig(t, nil, nil)
			r.w.onOp = func(op string) {
				if op == at {
					r.w.lose()
				}
			}
			var answer error
			out, _ := r.until(t, r.askedAt(Hold, AskCutover, &answer))
			if out.Phase != Reverse || out.Truth != Shadow || answer != nil || !r.w.running || !r.w.writable[Shadow] {
				t.Fatal(out.Phase, answer, r.w.log)
			}
			if !strings.Contains(strings.Join(r.warnings, "\n"), "finished without its watchdog") {
				t.Errorf("nobody was told: %q", r.warnings)
			}
		})
	}
}

// TestRecoveryClosesTheRecord: a process that was only stopped cannot commit later
// what its successor has undone.
func TestRecoveryClosesTheRecord(t *testing.T) {
	r := newRig(t, nil, func(w *world) {
		w.state = State{Version: 1, Phase: Cutover, Seq: 1, Service: "stopping"}
		w.running, w.made = false, true
	})
	out, _ := r.until(t, func(_ int, p Phase) bool { return p == Hold })
	if out.Phase != Hold || len(r.w.records) != 2 || r.w.records[1].By != "recovery" || r.w.records[1].Truth != Source || !r.w.running {
		t.Fatal(out.Phase, r.w.records)
	}
	if late, _ := (fakeStore{r.w}).Commit(t.Context(), Record{Seq: 1, Truth: Shadow}); late.Truth != Source {
		t.Fatal("the late one won")
	}
}

// TestCrashesMakeNoStorm: an automatic cutover that dies is not begun again at once
// by whoever restarts the process.
func TestCrashesMakeNoStorm(t *testing.T) {
	sc := script{plan: auto}
	w := newWorld(1, fault{"none", -1})
	var at []time.Time
	w.onOp = func(op string) {
		if op == "drain" {
			at = append(at, w.now)
			if len(at) < 5 {
				panic(crash{})
			}
		}
	}
	for lives := 0; len(at) < 5 && lives < 10; lives++ {
		if _, _, crashed := sc.life(w); crashed {
			w.died()
		}
	}
	if len(at) != 5 {
		t.Fatalf("%d attempts", len(at))
	}
	for i := 1; i < len(at); i++ {
		if gap := at[i].Sub(at[i-1]); gap < firstRetry<<(i-1) {
			t.Errorf("attempt %d after %v", i, gap)
		}
	}
}

func TestRefusedPolicyIsNoStorm(t *testing.T) {
	r := newRig(t, func(p *Plan) { auto(p); p.Service = ServiceSpec{} }, func(w *world) { w.erofs = true })
	r.until(t, func(waits int, _ Phase) bool { return waits > 1000 })
	n := 0
	for _, e := range r.w.audit {
		if e == "postponed" {
			n++
		}
	}
	if n == 0 || n > 8 {
		t.Fatalf("postponed %d times in 1000 s", n)
	}
}

func TestStall(t *testing.T) {
	r := newRig(t, nil, func(w *world) { w.pause = time.Minute })
	out, err := r.until(t, func(waits int, _ Phase) bool { return waits > 400 })
	if KindOf(err) != Stopped || out.Phase != CatchUp {
		t.Fatal(out.Phase, err)
	}
	mirrored := 0
	for _, op := range r.w.log {
		if op == "mirror" {
			mirrored++
		}
	}
	if mirrored == 0 || !slices.Contains(r.converge, false) {
		t.Fatalf("mirror tried %d times, converges %v", mirrored, r.converge)
	}
}

func TestDifferencesBlock(t *testing.T) {
	r := newRig(t, auto, func(w *world) { w.stick = map[string]bool{"k3": true} })
	healed := false
	out, _ := r.until(t, func(waits int, p Phase) bool {
		if s := r.Status(); p == Hold && !healed && len(s.Blockers) > 0 {
			if s.Blockers[0].Class != "different" || s.Proof.Different == 0 {
				t.Errorf("blockers %+v", s.Blockers)
			}
			healed, r.w.stick = true, nil
		}
		return p == Reverse
	})
	if !healed || out.Truth != Shadow {
		t.Fatal(healed, out.Phase)
	}
	verifies := 0
	for _, p := range r.phases {
		if p == Verify {
			verifies++
		}
	}
	if verifies < recopies+1 {
		t.Errorf("%d verifications", verifies)
	}
}

func TestProofBehindFenceRefuses(t *testing.T) {
	r := newRig(t, nil, nil)
	r.w.onOp = func(op string) {
		if op == "drain" {
			r.w.stick = map[string]bool{"k5": true}
		}
	}
	var answer error
	out, _ := r.until(t, r.askedAt(Hold, AskCutover, &answer))
	if out.Truth != Source || KindOf(answer) != Differs || !r.w.running {
		t.Fatal(out.Phase, answer)
	}
}

func TestUnwell(t *testing.T) {
	for policy, want := range map[string]Phase{"rollback": RolledBack, "hold": Reverse} {
		t.Run(policy, func(t *testing.T) {
			r := newRig(t, func(p *Plan) { auto(p); p.Service.OnFailure = policy }, func(w *world) { w.unwell = 1 })
			out, err := r.until(t, func(waits int, p Phase) bool { return waits > 100 })
			if out.Phase != want {
				t.Fatal(out.Phase, err)
			}
			if policy == "rollback" && (KindOf(err) != WasReverted || !strings.Contains(err.Error(), "not healthy")) {
				t.Error(err)
			}
			if policy == "hold" && r.Status().Service != "starting" {
				t.Errorf("service %q", r.Status().Service)
			}
		})
	}
}

func TestPauseWhenFull(t *testing.T) {
	r := newRig(t, nil, func(w *world) { w.full = 1 })
	stop := make(chan struct{})
	resumed := make(chan error, 1)
	go func() { // the engine waits without a clock while it is paused
		for {
			if s := r.Status(); s.Paused {
				if !strings.Contains(s.Why, "no space") || s.Next != "fsmigrate resume data" {
					t.Errorf("status %+v", s)
				}
				resumed <- r.Request(context.Background(), Request{Kind: AskResume})
				return
			}
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond):
			}
		}
	}()
	out, err := r.until(t, func(_ int, p Phase) bool { return p == Hold })
	close(stop)
	if KindOf(err) != Stopped || out.Phase != Hold {
		t.Fatal(out.Phase, err)
	}
	if err := <-resumed; err != nil {
		t.Fatal(err)
	}
}

func TestPreflightChangesNothing(t *testing.T) {
	checks := []Check{
		{Name: "kernel", Verdict: OK},
		{Name: "spare-image", Verdict: Refused, Waivable: true, Found: "an image", Need: "a device", Remedy: "waive spare-image"},
		{Name: "space", Verdict: Refused, Found: "1 GiB", Need: "2 GiB", Remedy: "a larger spare"},
	}
	waive := func(p *Plan) {
		p.Waive = []Waiver{{Class: "spare-image", Reason: "a test"}, {Class: "space", Reason: "cannot be waived"}}
	}
	r := newRig(t, waive, func(w *world) { w.preflit = checks })
	out, err := r.until(t, func(int, Phase) bool { return false })
	if KindOf(err) != IsRefused || out.Phase != Preflight || HintOf(err) != "a larger spare" || !strings.HasPrefix(err.Error(), "1 of 3 checks refused") {
		t.Fatal(out.Phase, err, HintOf(err))
	}
	for _, op := range r.w.log {
		if strings.HasPrefix(op, "prepare") || strings.HasPrefix(op, "settle") || strings.HasPrefix(op, "save") {
			t.Errorf("refused, but %s", op)
		}
	}
	checks[2].Verdict = Warning
	r = newRig(t, waive, func(w *world) { w.preflit = checks })
	if out, _ := r.until(t, func(_ int, p Phase) bool { return p == Hold }); out.Phase != Hold || len(out.Report.Waived) != 2 {
		t.Fatal(out.Phase)
	}
}

func TestAmbiguousTouchesNothing(t *testing.T) {
	probe := newRig(t, auto, nil)
	probe.until(t, func(_ int, p Phase) bool { return p == Reverse })
	k := slices.Index(probe.w.log, "commit shadow")
	r := newRig(t, auto, func(w *world) { w.fault = fault{"fail-after", k} })
	out, err := r.until(t, func(_ int, p Phase) bool { return p == Reverse })
	if KindOf(err) != IsRefused || !isAmbiguous(err) || !strings.Contains(HintOf(err), "--truth") || out.Phase != Cutover {
		t.Fatal(out.Phase, err, HintOf(err))
	}
	for _, op := range r.w.log[k+1:] {
		if !strings.HasPrefix(op, "audit") {
			t.Errorf("after the doubt: %s", op)
		}
	}
}

func TestContradiction(t *testing.T) {
	for _, p := range []Phase{Hold, Copy, Aborting, Reverse, Finalizing, Cutover, Rollback} {
		for _, side := range []Side{Source, Shadow} {
			err := Contradiction("data", State{Phase: p}, Record{Truth: side, By: "engine"})
			bad := p != Cutover && p != Rollback && (side == Shadow) != (p == Reverse || p == Finalizing)
			if (err != nil) != bad || err != nil && !isAmbiguous(err) {
				t.Errorf("%s with truth %s: %v", p, side, err)
			}
			if err := Contradiction("data", State{Phase: p}, Record{Truth: side, By: Operator}); err != nil {
				t.Errorf("%s, operator: %v", p, err)
			}
		}
	}
}

func TestOperatorDecides(t *testing.T) {
	r := newRig(t, nil, func(w *world) {
		w.state = State{Version: 1, Phase: Reverse}
		w.records = append(w.records, Record{Seq: 1, Truth: Source, By: Operator})
	})
	out, err := r.until(t, func(waits int, _ Phase) bool { return waits > 10 })
	if KindOf(err) != WasReverted || out.Phase != RolledBack || r.w.inPlace != Source {
		t.Fatal(out.Phase, err)
	}
}

// TestRecoveryAsksForHealth: a crash after the record leaves the service as it was
// stopped; started again on the new volume, it is judged as the cutover would have.
func TestRecoveryAsksForHealth(t *testing.T) {
	r := newRig(t, nil, func(w *world) {
		w.state = State{Version: 1, Phase: Cutover, Seq: 1, Service: "stopping"}
		w.records = append(w.records, Record{Seq: 1, Truth: Shadow, By: "engine"})
		w.vol[Shadow] = w.vol[Source]
		w.vol[Source] = map[string]int{}
		w.running, w.made, w.missed, w.unwell = false, true, true, 1
		w.settle(Shadow)
	})
	out, err := r.until(t, func(waits int, _ Phase) bool { return waits > 100 })
	if out.Phase != RolledBack || KindOf(err) != WasReverted || !strings.Contains(err.Error(), "unwell") {
		t.Fatal(out.Phase, err, r.w.log)
	}
}

// An application that nobody stops is still asked whether it is well, also after a crash.
func TestHealthOfWhatIsNotStopped(t *testing.T) {
	spec := func(p *Plan) { auto(p); p.Service = ServiceSpec{AcceptEROFS: true, Health: "true"} }
	r := newRig(t, spec, func(w *world) { w.erofs, w.unwell = true, 1 })
	if out, err := r.until(t, func(int, Phase) bool { return false }); out.Phase != RolledBack || KindOf(err) != WasReverted {
		t.Errorf("unwell on the new volume: %s, %v", out.Phase, err)
	}
	sc := script{name: "crash before health", plan: spec, world: func(w *world) { w.erofs, w.unwell = true, 1 }}
	w := newWorld(1, fault{"none", -1})
	sc.world(w)
	w.onOp = func(op string) {
		if op == "health" {
			w.onOp = nil
			panic(crash{})
		}
	}
	if _, _, crashed := sc.life(w); !crashed {
		t.Fatalf("no crash: %v", w.log)
	}
	w.died()
	if out, err, _ := sc.life(w); out.Phase != RolledBack {
		t.Errorf("after a crash before its health was asked: %s, %v\n%v", out.Phase, err, w.log)
	}
}
