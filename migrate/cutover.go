package migrate

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// attempt is one try to change who the truth is, in either direction. It owns one
// record number, and everything it does before that record exists can be undone.
type attempt struct {
	m       *Migration
	to      Side
	seq     int
	limited context.Context // ends with the deadline or with the run
	cancel  func()
	armed   bool       // the watchdog may act, and the fence may be up
	lost    chan error // of capacity 1: the watchdog has ended before it was told to

	stopping time.Time // stop hook begun
	fencing  time.Time // fence begun
	hooks    time.Duration
}

// cutover makes the shadow the truth, or leaves everything as it was.
func (m *Migration) cutover(ctx context.Context) (move, error) {
	done, err := m.swap(ctx, Shadow)
	switch {
	case err != nil && swapBroken(err):
		return move{}, err
	case !done:
		if perr := m.postpone(ctx, err); perr != nil {
			return move{}, perr
		}
		return move{Hold, "undone: " + explain(err)}, nil
	}
	m.state.Failures, m.state.NotBefore, m.state.Want = 0, time.Time{}, ""
	if err == nil {
		m.state.Service = ""
		m.answerUnlessFinal(nil)
		return move{Reverse, ""}, nil
	}
	return m.unwell(err), nil
}

// answerUnlessFinal answers the cutover now, unless the plan finalizes it at once:
// then the answer is that of the end.
func (m *Migration) answerUnlessFinal(err error) {
	if !m.plan.Cutover.Finalize {
		m.answer(err)
	}
}

// wantBack is State.Want of a rollback that on_failure asks for.
const wantBack = "rollback-on-failure"

// unwell decides what follows a cutover after which the service did not start or is not healthy.
func (m *Migration) unwell(err error) move {
	if m.plan.Service.OnFailure == "hold" {
		m.warn("the cutover is done, but the service is not well", err.Error(), "mend it, or fsmigrate rollback "+m.plan.ID)
		m.answer(err)
		return move{Reverse, err.Error()}
	}
	m.state.Want, m.state.Why = wantBack, err.Error()
	m.cause = err
	m.warn("rolling back", err.Error(), "")
	return move{Reverse, "to be rolled back: " + err.Error()}
}

// errBroken marks a failure after which this process can neither finish nor undo.
var errBroken = errors.New("neither finished nor undone")

func swapBroken(err error) bool {
	return isAmbiguous(err) || errors.Is(err, errBroken)
}

// swap is a cutover towards side `to`, step by step. Done says that the record is
// `to`: then err is what is wrong after it. Not done: err is why, and everything is
// undone unless swapBroken(err).
func (m *Migration) swap(ctx context.Context, to Side) (done bool, err error) {
	rec, err := m.readTruth(ctx)
	if err != nil {
		return false, err
	}
	m.truth = rec
	a := &attempt{m: m, to: to, seq: rec.Seq + 1, lost: make(chan error, 1)}
	if err = a.approach(ctx); err == nil {
		err = m.announce(ctx, "record", a.record)
	}
	if a.cancel != nil {
		a.cancel()
	}
	if err != nil {
		done, err = a.undo(ctx, err)
		if !done {
			m.flushAudit(ctx)
			return false, m.toldToStop(ctx, err)
		}
	}
	return true, a.release(ctx)
}

// toldToStop is err, for whoever asked for a swap that was undone since this engine was told to stop.
func (m *Migration) toldToStop(ctx context.Context, err error) error {
	var said *Problem // has words of its own, of a service that did not start perhaps
	if ctx.Err() == nil || swapBroken(err) || errors.As(err, &said) {
		return err
	}
	return &Problem{
		Kind: Stopped, What: fmt.Sprintf("undone, the %s stays the truth: the engine was told to stop", m.truth.Truth), Why: err,
		Hint: "fsmigrate resume " + m.plan.ID + ", then ask again",
	}
}

// approach is everything before the record. Each step sees the end of ctx; from "arm" on also the deadline.
func (a *attempt) approach(ctx context.Context) error {
	steps := []struct {
		name string
		run  func(context.Context) error
	}{
		{"stop-intent", a.intend},
		{"stop", a.stop},
		{"arm", a.arm},
		{"fence", a.fence},
		{"drain", a.drain},
		{"swap-in", a.swapIn},
		{"follow", a.follow},
	}
	for _, s := range steps {
		in := ctx
		if a.limited != nil {
			in = a.limited
		}
		if in.Err() != nil {
			return fmt.Errorf("before %s: %w", s.name, context.Cause(in))
		}
		if err := a.m.announce(in, s.name, s.run); err != nil {
			return err
		}
	}
	return nil
}

// announce runs one step of a cutover and announces it by name.
func (m *Migration) announce(ctx context.Context, name string, run func(context.Context) error) error {
	if f := m.opt.Events.Step; f != nil {
		f(name)
	}
	began := m.clock.Now()
	err := run(ctx)
	took := m.clock.Now().Sub(began)
	if err != nil && ctx.Err() != nil && !isAmbiguous(err) {
		err = fmt.Errorf("%w: %w", context.Cause(ctx), err)
	}
	if f := m.opt.Events.Cutover; f != nil {
		f(name, took, err)
	}
	fields := map[string]any{"step": name, "ms": ms(took)}
	if err != nil {
		fields["error"] = explain(err)
	}
	m.audit(ctx, "cutover", fields)
	return err
}

func (a *attempt) service() bool { return a.m.plan.Service.Configured() }

// intend makes durable what is about to happen: whoever finds this state after a
// crash starts the service, and closes the record number.
func (a *attempt) intend(ctx context.Context) error {
	if r, ok := a.m.opt.Subject.(Readier); ok {
		if err := r.Ready(ctx, a.to); err != nil {
			return fmt.Errorf("prepare the fence of the %s: %w", a.to.Other(), err)
		}
	}
	s := &a.m.state
	s.Attempt++
	s.Seq = a.seq
	if a.service() && s.Service != "stopped" {
		s.Service = "stopping"
	}
	s.Report.PredictedMS = ms(a.m.backlog.PredictedPause)
	if a.m.asked == nil {
		s.NotBefore = a.m.clock.Now().Add(backoff(s.Failures))
		s.Failures++
	}
	return a.m.save(ctx)
}

func (a *attempt) stop(ctx context.Context) error {
	a.stopping = a.m.clock.Now()
	if !a.service() || a.m.state.Service == "stopped" {
		return nil
	}
	if err := a.hook(ctx, "stop", a.to.Other(), a.m.opt.Service.Stop); err != nil {
		return &Problem{Kind: Failed, What: "the service did not stop", Why: err, Hint: hintOr(err, "see its log; a longer service.stop_timeout may help")}
	}
	a.m.state.Service = "stopped"
	return nil
}

func (a *attempt) hook(ctx context.Context, name string, truth Side, run func(context.Context, Env) error) error {
	began := a.m.clock.Now()
	err := run(ctx, a.m.env(truth))
	took := a.m.clock.Now().Sub(began)
	if name != "health" {
		a.hooks += took
	}
	a.m.hooked(ctx, name, took, err)
	return err
}

func (m *Migration) env(truth Side) Env {
	return Env{ID: m.plan.ID, Phase: m.state.Phase, Truth: truth}
}

func (m *Migration) hooked(ctx context.Context, name string, took time.Duration, err error) {
	if f := m.opt.Events.Hook; f != nil {
		f(name, took, err)
	}
	fields := map[string]any{"hook": name, "ms": ms(took)}
	if err != nil {
		fields["error"] = err.Error()
	}
	m.audit(ctx, "hook", fields)
}

// arm starts the one deadline, here and in the watchdog. A watchdog that ends before its
// time ends the attempt too, as long as it is not recorded: from then on nobody would
// undo a fence whose engine hangs or dies, so the fence comes down at once (I9, I10).
func (a *attempt) arm(ctx context.Context) error {
	a.m.quiet = true // no fsync of the audit log from here to settle
	a.armed = true   // also when it fails: half armed is armed
	deadline := time.Duration(a.m.plan.Cutover.Deadline)
	var end context.CancelCauseFunc
	a.limited, end, a.cancel = withDeadline(ctx, a.m.clock, deadline)
	if a.m.opt.Watchdog == nil {
		return nil
	}
	lost := func(err error) {
		err = fmt.Errorf("%w: %w", errUnwatched, err)
		a.lost <- err
		end(err)
	}
	if err := a.m.opt.Watchdog.Arm(ctx, a.seq, deadline, lost); err != nil {
		return fmt.Errorf("arm watchdog: %w", err)
	}
	return nil
}

// errUnwatched is the cause of an attempt that lost its watchdog.
var errUnwatched = errors.New("the cutover lost its watchdog")

// unwatched tells of a watchdog that was lost when it could not be undone any more.
func (a *attempt) unwatched() {
	select {
	case err := <-a.lost:
		a.m.warn("the cutover was finished without its watchdog", err.Error(), "nothing is left to do; look in its log, watchdog.log in the state directory, for who ended it")
	default:
	}
}

func (a *attempt) fence(ctx context.Context) error {
	a.fencing = a.m.clock.Now()
	err := a.m.opt.Subject.Fence(ctx, a.to)
	var busy *Busy
	if errors.As(err, &busy) {
		return &Problem{
			Kind: IsRefused, What: busy.What + " is still in use", Why: fmt.Errorf("%w: %s", err, holders(busy.Holders)),
			Hint: "stop or unmount what is listed, then ask again",
		}
	}
	if err != nil {
		return fmt.Errorf("fence the %s: %w", a.to.Other(), err)
	}
	if f, ok := a.m.opt.Subject.(Fencer); ok {
		if at := f.FencedAt(); at.After(a.fencing) {
			a.fencing = at
		}
	}
	return nil
}

// Fencer is what a subject may also be: then the pause is counted from the first
// moment that the truth refused writes, and not from where the looking began.
type Fencer interface {
	FencedAt() time.Time
}

// Readier is what a subject may also be: what makes the fence short, and can be done
// before, is done while the service still runs. It changes nothing that would have to be undone.
type Readier interface {
	Ready(ctx context.Context, to Side) error
}

// drain copies the last units. What it proves must leave nothing unexplained (I5).
func (a *attempt) drain(ctx context.Context) error {
	began := a.m.clock.Now()
	p, err := a.m.opt.Subject.Drain(ctx, a.to)
	if err != nil {
		return fmt.Errorf("drain towards the %s: %w", a.to, err)
	}
	a.m.verified(p)
	a.m.state.Report.ProofMS = ms(p.Took)
	if p.Took == 0 {
		a.m.state.Report.ProofMS = ms(a.m.clock.Now().Sub(began))
	}
	if p.Different > 0 || p.Verified+p.Waived != p.Objects {
		return &Problem{
			Kind: Differs, What: fmt.Sprintf("behind the fence %d of %d objects were equal, %d different, %d waived", p.Verified, p.Objects, p.Different, p.Waived),
			Hint: "fsmigrate status " + a.m.plan.ID + " lists them",
		}
	}
	return nil
}

// swapIn puts the other side in place, unless the watchdog has already decided.
func (a *attempt) swapIn(ctx context.Context) error {
	rec, err := a.m.readTruth(ctx)
	if err != nil {
		return err
	}
	if rec.Seq >= a.seq {
		return lost(rec)
	}
	if err := a.m.opt.Subject.SwapIn(ctx, a.to); err != nil {
		return fmt.Errorf("swap in the %s: %w", a.to, err)
	}
	return nil
}

// follow starts the way back. Also where the old volume is to stay as it was: until
// the service is well on the new one, a rollback may have to bring its writes along.
func (a *attempt) follow(ctx context.Context) error {
	if a.to == Source {
		return nil
	}
	if err := a.m.opt.Subject.Follow(ctx, a.to.Other()); err != nil {
		return fmt.Errorf("follow the %s: %w", a.to, err)
	}
	return nil
}

// record is the commit point.
func (a *attempt) record(ctx context.Context) error {
	if a.limited.Err() != nil {
		return fmt.Errorf("before record: %w", context.Cause(a.limited))
	}
	got, err := a.m.commit(ctx, a.seq, a.to, "engine", "")
	if err != nil {
		return err
	}
	a.m.truth = got
	if got.Truth != a.to {
		return lost(got)
	}
	return nil
}

// lost says that somebody else has decided this attempt.
func lost(r Record) error {
	return fmt.Errorf("the %s recorded first that the %s stays the truth (record %d: %s)", r.By, r.Truth, r.Seq, r.Why)
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
