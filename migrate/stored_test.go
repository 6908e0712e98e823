package migrate

import (
	"context"
	"slices"
	"strings"
	"testing"
)

// Who asked for a pause, or for its end, and was told that it is so, finds it so after a crash.
func TestPauseIsStoredBeforeItIsAnswered(t *testing.T) {
	r := newRig(t, nil, nil)
	walking := make(chan struct{})
	r.subject.copied = walking
	ended := make(chan error, 1)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		_, err := r.Run(ctx)
		ended <- err
	}()
	<-walking
	if err := r.Request(ctx, Request{Kind: AskPause}); err != nil {
		t.Fatal(err)
	}
	// It waits without a clock while it is paused: nobody else looks at the store.
	if !r.w.state.Paused || r.w.state.Why != "asked for" {
		t.Errorf("stored after a pause: %+v", r.w.state)
	}
	stored := make(chan bool, 1)
	r.w.onOp = func(name string) {
		if name == "copy" && len(stored) == 0 {
			stored <- !r.w.state.Paused
		}
	}
	if err := r.Request(ctx, Request{Kind: AskResume}); err != nil {
		t.Fatal(err)
	}
	if !<-stored {
		t.Error("it goes on, and a crash would find it paused")
	}
	cancel()
	if err := <-ended; KindOf(err) != Stopped {
		t.Fatal(err)
	}
}

// A pause of its own is stored before it waits.
func TestPauseOfItsOwnIsStored(t *testing.T) {
	r := newRig(t, nil, func(w *world) { w.full = 1 })
	saved := make(chan State, 100)
	r.w.onOp = func(name string) {
		if name == "audit paused" {
			r.w.onOp = func(string) { // the operation after it, and its effect
				r.w.onOp = nil
				saved <- State{}
			}
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		_, err := r.Run(ctx)
		ended <- err
	}()
	<-saved
	cancel()
	if err := <-ended; KindOf(err) != Stopped {
		t.Fatal(err)
	}
	if !r.w.state.Paused {
		t.Errorf("stored: %+v", r.w.state)
	}
}

// What a resume undoes of a pause is stored before anything is done on the strength of it.
func TestResumeIsStored(t *testing.T) {
	for _, phase := range []Phase{Preflight, Copy} {
		r := newRig(t, nil, nil)
		r.opt.Unpause = true
		r.w.state.Phase, r.w.state.Paused, r.w.state.Why = phase, true, "asked for"
		stored := true
		r.w.onOp = func(name string) {
			if slices.Contains([]string{"preflight", "prepare shadow", "copy"}, name) && r.w.state.Paused {
				stored = false
			}
		}
		_, err := r.until(t, func(int, Phase) bool { return true })
		if KindOf(err) != Stopped || !stored {
			t.Errorf("%s: %v, stored %v", phase, err, stored)
		}
	}
}

// After a rollback the service runs on the source, and a crash while the shadow is
// released must not have it started again.
func TestRollbackIsStoredBeforeTheRelease(t *testing.T) {
	r := newRig(t, nil, nil)
	var answer error
	stored := "not looked at"
	r.w.onOp = func(name string) {
		if name == "finalize" {
			stored = "service " + r.w.state.Service
		}
	}
	asked := r.askedAt(Hold, AskCutover, &answer)
	var back func(int, Phase) bool
	if _, err := r.until(t, func(n int, p Phase) bool {
		if p == Reverse && back == nil {
			back = r.askedAt(Reverse, AskRollback, &answer)
		}
		if back != nil {
			return back(n, p)
		}
		return asked(n, p) && false
	}); KindOf(err) != WasReverted {
		t.Fatal(err)
	}
	if stored != "service " {
		t.Errorf("stored when the shadow was released: %q", stored)
	}
}

// A service that a crash left stopped is started once: that it runs is stored.
func TestRestartIsStored(t *testing.T) {
	for _, phase := range []Phase{Copy, Reverse} {
		r := newRig(t, nil, nil)
		r.w.state.Phase, r.w.state.Service = phase, "stopping"
		if phase == Reverse {
			r.w.records = append(r.w.records, Record{Seq: 1, Truth: Shadow, By: "engine"})
			r.w.state.Seq = 1
			r.w.vol[Shadow], r.w.made = r.w.vol[Source], true
			r.w.vol[Source] = map[string]int{}
			r.w.settle(Shadow)
		}
		stored := "not looked at"
		started := false
		r.w.onOp = func(name string) {
			if name == "start" {
				started = true
			}
			if started && stored == "not looked at" && slices.Contains([]string{"prepare shadow", "prepare source", "copy", "pass"}, name) {
				stored = r.w.state.Service
			}
		}
		_, err := r.until(t, func(waits int, _ Phase) bool { return waits > 3 })
		if KindOf(err) != Stopped || !started || stored != "" {
			t.Errorf("%s: %v, started %v, stored %q\n%v", phase, err, started, stored, r.w.log)
		}
	}
}

// A rollback that a failing service asks for, and that has to wait, is still asked for
// after a crash (until looks at what is stored whenever the engine waits).
func TestRollbackThatWaitsIsStored(t *testing.T) {
	r := newRig(t, auto, func(w *world) { w.unwell = 1 })
	r.w.onOp = func(name string) {
		if name == "health" && r.w.unwell > 0 {
			r.w.blocks = []Blocker{{Class: "different", Object: "f", Why: "for a while"}}
		}
	}
	waited := false
	out, err := r.until(t, func(waits int, p Phase) bool {
		if p == Reverse && r.w.state.Want == wantBack && r.w.state.NotBefore.After(r.w.now) {
			waited = true
			r.w.blocks = nil
		}
		return waits > 300
	})
	if out.Phase != RolledBack || !waited {
		t.Fatalf("%s, waited %v: %v", out.Phase, waited, err)
	}
}

// Who asks for the rollback that waits, and is told that it cannot be, has ended the waiting: a
// crash does not bring it back (until looks at what is stored whenever the engine waits).
func TestRefusedRollbackIsStored(t *testing.T) {
	r := newRig(t, auto, func(w *world) { w.unwell = 1 })
	r.w.onOp = func(name string) {
		if name == "health" && r.w.unwell > 0 {
			r.w.blocks = []Blocker{{Class: "different", Object: "f", Why: "for good"}}
		}
	}
	var answer error
	wanted := false
	ask := r.askedAt(Reverse, AskRollback, &answer)
	out, err := r.until(t, func(waits int, p Phase) bool {
		wanted = wanted || p == Reverse && r.w.state.Want == wantBack
		return ask(waits, p)
	})
	if out.Phase != Reverse || !wanted || answer == nil {
		t.Fatalf("%s, wanted %v, answered %v: %v", out.Phase, wanted, answer, err)
	}
}

// The end of the way back is told to whoever listens, at the moment it comes.
func TestWayBackIsTold(t *testing.T) {
	r := newRig(t, func(p *Plan) { auto(p); p.Cutover.Old = "keep" }, nil)
	out, err := r.until(t, func(waits int, p Phase) bool { return p == Reverse })
	if out.Phase != Reverse {
		t.Fatal(out.Phase, err)
	}
	if !slices.ContainsFunc(r.warnings, func(w string) bool {
		return strings.HasPrefix(w, "the way back is stale: the old volume is kept as it was")
	}) {
		t.Errorf("warnings %q", r.warnings)
	}
}
