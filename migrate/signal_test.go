package migrate

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"
)

// TestSignals ends the context at the k-th operation, for every k: the run stops
// resumably with the service running on exactly one truth, and a new one ends as the
// first would have.
func TestSignals(t *testing.T) {
	for _, sc := range scripts {
		t.Run(sc.name, func(t *testing.T) {
			t.Parallel()
			stopped := map[Phase]int{}
			for k := 0; ; k++ {
				w := newWorld(uint64(k%5), fault{"none", -1})
				if sc.world != nil {
					sc.world(w)
				}
				ctx, cancel := context.WithCancel(context.Background())
				r := &rig{w: w, subject: &fakeSubject{w: w}}
				m, err := New(Options{Plan: testPlan(sc.plan), Subject: r.subject, Store: fakeStore{w}, Service: fakeService{w}, Watchdog: fakeWatchdog{w}, Clock: w, poll: -1})
				if err != nil {
					t.Fatal(err)
				}
				w.onOp = func(string) {
					if w.ops-1 == k {
						cancel()
					}
				}
				w.tick = func() {
					if kind, ok := sc.ask[m.Status().Phase]; ok && w.running {
						m.post(Request{Kind: kind})
					}
				}
				out, err := m.Run(ctx)
				cancel()
				w.check("stopped")
				name := fmt.Sprintf("%s, stopped at %d (%s), seed %d", sc.name, k, at(w.log, k), k%5)
				switch {
				case w.broken != nil:
					t.Fatalf("%s: %v", name, w.broken)
				case w.ops <= k:
					if k < 30 || stopped[Hold] == 0 {
						t.Fatalf("%s: %d operations, stops %v", sc.name, k, stopped)
					}
					return
				case out.Phase.Ended():
				case KindOf(err) != Stopped:
					t.Fatalf("%s: %v", name, err)
				case out.Phase == Cutover || out.Phase == Aborting && w.made && slices.Contains(w.log[k:], "abort"):
					t.Fatalf("%s: stopped in %s", name, out.Phase)
				}
				if w.armed != 0 || !w.running || w.inPlace != w.truth() || !w.writable[w.truth()] {
					t.Fatalf("%s: armed %d, running %v, in place %s, writable %v, truth %s\n%v", name, w.armed, w.running, w.inPlace, w.writable, w.truth(), w.log)
				}
				stopped[out.Phase]++
				if out.Phase.Ended() {
					continue
				}
				w.died()
				w.onOp, w.tick = nil, nil
				if out, err, _ := sc.life(w); out.Phase != sc.want {
					t.Fatalf("%s: then ended in %s: %v", name, out.Phase, err)
				}
			}
		})
	}
}

// TestRequestsRace lets operators ask for anything at any time while others read the
// status. Run it with -race.
func TestRequestsRace(t *testing.T) {
	kinds := []RequestKind{AskPause, AskResume, AskCutover, AskRollback, AskFinalize, AskAbort}
	for seed := range uint64(6) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			r := newRig(t, nil, nil)
			ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
			defer cancel()
			over := make(chan struct{})
			var wg sync.WaitGroup
			for g := range uint64(3) {
				wg.Go(func() {
					rng := rand.New(rand.NewPCG(seed, g))
					for i := 0; ; i++ {
						select {
						case <-over:
							return
						default:
						}
						n := len(kinds)
						if i < 300 {
							n-- // no abort yet
						}
						_ = r.Request(ctx, Request{Kind: kinds[rng.IntN(n)]})
						_ = r.Status()
					}
				})
			}
			out, err := r.Run(ctx)
			close(over)
			wg.Wait()
			if !out.Phase.Ended() {
				t.Fatalf("seed %d: %s: %v", seed, out.Phase, err)
			}
			if r.w.check("at the end"); r.w.broken != nil {
				t.Fatalf("seed %d: %v", seed, r.w.broken)
			}
			if err := r.Request(ctx, Request{Kind: AskPause}); KindOf(err) != IsRefused {
				t.Errorf("after the end: %v", err)
			}
		})
	}
}

// TestPauseInterruptsCopy: a walk of hours does not make the operator wait.
func TestPauseInterruptsCopy(t *testing.T) {
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
	if s := r.Status(); !s.Paused || s.Phase != Copy {
		t.Fatalf("%+v", s)
	}
	if err := r.Request(ctx, Request{Kind: AskCutover}); KindOf(err) != IsRefused {
		t.Fatal(err)
	}
	if err := r.Request(ctx, Request{Kind: AskAbort}); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; KindOf(err) != WasAborted {
		t.Fatal(err)
	}
}

func TestAllowed(t *testing.T) {
	r := newRig(t, nil, nil)
	may := map[RequestKind][]Phase{
		AskPause:    {Preflight, Prepare, Copy, CatchUp, Verify, Hold, Cutover, Reverse, Rollback},
		AskResume:   {Preflight, Prepare, Copy, CatchUp, Verify, Hold, Cutover, Reverse, Rollback, Finalizing, Aborting},
		AskCutover:  {Hold},
		AskAbort:    {Preflight, Prepare, Copy, CatchUp, Verify, Hold, Cutover, Aborting},
		AskRollback: {Reverse, Rollback},
		AskFinalize: {Reverse, Finalizing},
	}
	for kind, phases := range may {
		for p := range transitions {
			err := r.allowed(kind, p, false, WayBack{State: WayFull})
			if want := slices.Contains(phases, p); (err == nil) != want {
				t.Errorf("%s in %s: %v", kind, p, err)
			}
			if err != nil && (KindOf(err) != IsRefused || HintOf(err) == "") {
				t.Errorf("%s in %s: %v lacks a hint", kind, p, err)
			}
		}
	}
	if err := r.allowed(AskAbort, Reverse, false, WayBack{}); HintOf(err) != "use rollback: fsmigrate rollback data" {
		t.Error(HintOf(err))
	}
	if err := r.allowed(AskRollback, Reverse, false, WayBack{State: WayClosed}); err == nil {
		t.Error("rollback over a closed way")
	}
}

// slowSubject copies until it was looked at twice.
type slowSubject struct {
	fakeSubject
	looks chan struct{}
}

func (s *slowSubject) Copy(ctx context.Context) error {
	for range 2 {
		select {
		case s.looks <- struct{}{}:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return s.fakeSubject.Copy(ctx)
}

func (s *slowSubject) Backlog(ctx context.Context) (Backlog, error) {
	select {
	case <-s.looks:
		return Backlog{Units: 7, Bytes: 70}, nil
	default:
		return Backlog{}, nil
	}
}

func (s *slowSubject) Progress() Progress { return Progress{Objects: 5, TotalObjects: 12} }

func TestProgress(t *testing.T) {
	w := newWorld(1, fault{"none", -1})
	var told []Progress
	s := &slowSubject{fakeSubject: fakeSubject{w: w}, looks: make(chan struct{})}
	ctx, cancel := context.WithCancel(context.Background())
	m, err := New(Options{
		Plan: testPlan(nil), Subject: s, Store: fakeStore{w}, Service: fakeService{w}, poll: time.Millisecond,
		Events: Events{
			Progress: func(p Progress) { told = append(told, p) },
			Phase: func(_, to Phase, _ string) {
				if to == CatchUp {
					cancel()
				}
			},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.Run(ctx); KindOf(err) != Stopped {
		t.Fatal(err)
	}
	if len(told) < 2 || told[0].Phase != Copy && told[len(told)-1].Phase != Copy || told[0].Objects != 5 {
		t.Fatalf("%+v", told)
	}
}

// settling looks at the status while a resumed engine is not yet where it stood.
type settling struct {
	*fakeSubject
	seen func()
}

func (s settling) Settle(ctx context.Context, truth Side) error {
	s.seen()
	return s.fakeSubject.Settle(ctx, truth)
}

// An engine that resumes in Hold does not say that it holds before it follows the
// changes again: who waits for Hold would cut over into a refusal.
func TestResumingIsNotHold(t *testing.T) {
	r := newRig(t, nil, nil)
	if _, err := r.until(t, func(_ int, p Phase) bool { return p == Hold }); KindOf(err) != Stopped {
		t.Fatal(err)
	}
	again := newRig(t, nil, nil)
	again.w = r.w
	var seen []Phase
	subject := settling{&fakeSubject{w: r.w}, func() { seen = append(seen, again.Status().Phase) }}
	var err error
	again.Migration, err = New(Options{Plan: testPlan(nil), Subject: subject, Store: fakeStore{r.w}, Service: fakeService{r.w},
		Watchdog: fakeWatchdog{r.w}, Clock: r.w, poll: -1})
	if err != nil {
		t.Fatal(err)
	}
	if out, err := again.until(t, func(_ int, p Phase) bool { return p == Hold }); KindOf(err) != Stopped || out.Phase != Hold {
		t.Fatal(out, err)
	}
	if !slices.Equal(seen, []Phase{CatchUp}) {
		t.Errorf("while it settled: %v", seen)
	}
}

// A pass back that compares everything, as after a reboot, takes hours on a large volume: who
// finalizes gives up what it is for.
func TestFinalizeInterruptsAPass(t *testing.T) {
	r := newRig(t, nil, func(w *world) {
		w.state = State{Version: 1, Phase: Reverse, Seq: 1}
		w.records = append(w.records, Record{Seq: 1, Truth: Shadow, By: "engine"})
		w.made = true
		w.dirty["a"] = true
	})
	comparing := make(chan struct{})
	r.subject.comparing = comparing
	ended := make(chan error, 1)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		_, err := r.Run(ctx)
		ended <- err
	}()
	select {
	case <-comparing:
	case err := <-ended:
		t.Fatalf("it ended before it compared anything: %v", err)
	}
	if err := r.Request(ctx, Request{Kind: AskFinalize}); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil || r.Status().Phase != Finalized {
		t.Fatalf("%s: %v", r.Status().Phase, err)
	}
}

// A rollback that is under way, the old volume in place again, may be asked for again: who
// does is not told that the way back is closed, and a process that is there for it finishes it.
func TestRollbackAskedForAgain(t *testing.T) {
	r := newRig(t, nil, func(w *world) {
		w.state = State{Version: 1, Phase: Rollback, Seq: 2}
		w.records = append(w.records, Record{Seq: 1, Truth: Shadow, By: "engine"}, Record{Seq: 2, Truth: Source, By: "engine"})
		w.made = true
	})
	r.opt.Ask = &Request{Kind: AskRollback}
	out, err := r.until(t, func(int, Phase) bool { return false })
	if out.Phase != RolledBack || KindOf(err) != WasReverted || !r.w.released {
		t.Fatalf("%s, released %v: %v", out.Phase, r.w.released, err)
	}
}
