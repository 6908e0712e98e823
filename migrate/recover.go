package migrate

import (
	"context"
	"fmt"
	"time"
)

// recover brings what an earlier process left into order before anything else: the
// truth is settled, the service is started on it, and the phase is made to fit.
func (m *Migration) recover(ctx context.Context) error {
	state, err := m.opt.Store.Load(context.WithoutCancel(ctx))
	if err != nil {
		return fmt.Errorf("load the state of %s: %w", m.plan.ID, err)
	}
	if !state.Phase.Known() {
		return &Ambiguous{Exact: fmt.Sprintf("the state of %s names an unknown phase %q", m.plan.ID, state.Phase), Decide: "use the fsmigrate that wrote it"}
	}
	m.state = state
	m.refill()
	if m.truth, err = m.readTruth(ctx); err != nil {
		return err
	}
	if err := m.contradiction(); err != nil {
		return err
	}
	m.publish()
	if m.state.Phase.Ended() {
		return nil
	}
	m.audit(ctx, "run", map[string]any{"phase": m.state.Phase, "truth": m.truth.Truth, "seq": m.truth.Seq})
	if m.state.Phase == Preflight {
		return m.unpause(ctx) // nothing was touched yet, and nothing is
	}
	// An attempt that nobody decided is decided now, so that no late process can.
	if m.truth.Seq < m.state.Seq {
		if m.truth, err = m.closeRecord(ctx, m.state.Seq, m.truth.Truth, "recovery", "the cutover was interrupted"); err != nil {
			return err
		}
	}
	m.disarm()
	if err := m.insist(ctx, func(ctx context.Context) error { return m.opt.Subject.Settle(ctx, m.truth.Truth) }); err != nil {
		if isAmbiguous(err) {
			return err
		}
		return &Problem{
			Kind: KindOf(err), What: fmt.Sprintf("the %s is the truth, but could not be put in place", m.truth.Truth), Why: err,
			Hint: hintOr(err, "docs/runbook.md: recover by hand with mount(8)"),
		}
	}
	if m.state.Service != "" || m.plan.Service.Health != "" && m.state.Phase == Cutover && m.truth.Truth == Shadow {
		if err := m.restart(ctx); err != nil {
			return err
		}
	}
	if err := m.refit(ctx); err != nil {
		return err
	}
	return m.unpause(ctx)
}

func (m *Migration) unpause(ctx context.Context) error {
	if !m.opt.Unpause || !m.state.Paused {
		return nil
	}
	m.state.Paused, m.state.Why = false, ""
	return m.save(ctx)
}

// Contradiction compares the phase with the record in force and answers *Ambiguous where
// no crash of ours can have left both: evidence is missing, restored or damaged (I8). A
// record that an operator committed is the decision itself. Whoever mounts the truth
// without an engine (the boot) asks it too.
func Contradiction(id string, s State, r Record) error {
	if r.By == Operator {
		return nil
	}
	bad := false
	switch s.Phase {
	case Preflight, Prepare, Copy, CatchUp, Verify, Hold, Aborting, Aborted, RolledBack:
		bad = r.Truth != Source
	case Reverse, Finalizing, Finalized:
		bad = r.Truth != Shadow
	}
	if !bad {
		return nil
	}
	return &Ambiguous{
		Exact:  fmt.Sprintf("the state of %s says %s, its newest switch record (%d, by the %s) says the %s is the truth", id, s.Phase, r.Seq, r.By, r.Truth),
		Decide: "fsmigrate resume " + id + " --truth source|shadow",
	}
}

// Operator is Record.By of a decision that a person made.
const Operator = "operator"

func (m *Migration) contradiction() error { return Contradiction(m.plan.ID, m.state, m.truth) }

// restart starts the service that a crash may have left stopped. What follows a
// cutover includes its health, as it would have.
func (m *Migration) restart(ctx context.Context) error {
	if m.opt.Service == nil {
		m.state.Service = ""
		return nil
	}
	var err error
	if m.plan.Service.Configured() {
		err = m.startService(ctx, m.truth.Truth)
	}
	if err == nil && m.truth.Truth == Shadow && m.state.Phase != Rollback {
		began := m.clock.Now()
		err = m.opt.Service.Health(context.WithoutCancel(ctx), m.env(Shadow))
		m.hooked(ctx, "health", m.clock.Now().Sub(began), err)
	}
	if err != nil && m.truth.Truth == Shadow && m.state.Phase == Cutover {
		if m.plan.Service.Configured() {
			m.state.Service = "starting"
		}
		m.unwell(err) // the phase follows in refit
	}
	return m.save(ctx)
}

// refit moves to the phase that fits the truth.
func (m *Migration) refit(ctx context.Context) error {
	was := m.state.Phase
	undone := move{Hold, "the interrupted cutover was undone"}
	done := move{Reverse, "the interrupted cutover was finished"}
	if m.truth.Truth == Source {
		switch was {
		case Cutover:
			m.state.Want = ""
			if err := m.enter(ctx, undone); err != nil {
				return err
			}
			was = Hold
		case Reverse, Finalizing, Finalized: // an operator decided so
			return m.set(ctx, move{Rollback, "decided by the operator"})
		}
		if was == Hold || was == Verify {
			return m.set(ctx, move{CatchUp, "resumed"})
		}
		return nil
	}
	switch was {
	case Cutover:
		if m.state.Want != wantBack {
			m.state.Want = ""
		}
		m.state.Failures, m.state.NotBefore = 0, time.Time{}
		return m.enter(ctx, done)
	case Rollback:
		if m.state.Want != wantBack {
			m.state.Want = ""
		}
		return m.enter(ctx, move{Reverse, "the interrupted rollback was undone"})
	case Reverse, Finalizing:
		return nil
	}
	return m.set(ctx, move{Reverse, "decided by the operator"})
}
