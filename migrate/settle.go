package migrate

import (
	"context"
	"errors"
	"fmt"
)

// undo takes back everything before the record, for cause. Done says that it cannot:
// the record of this attempt is `to` after all, and the only way is forward.
func (a *attempt) undo(ctx context.Context, cause error) (done bool, err error) {
	m, old := a.m, a.to.Other()
	if isAmbiguous(cause) {
		return false, cause // neither side may become writable
	}
	if !a.armed {
		m.truth.Truth = old
		return false, a.startOld(ctx, cause)
	}
	rec, err := m.closeRecord(ctx, a.seq, old, "engine", cause.Error())
	if err != nil {
		return false, fmt.Errorf("%w: %w: %w", errBroken, err, cause)
	}
	m.truth = rec
	if rec.Truth == a.to {
		return true, nil
	}
	if rec.By != "engine" {
		m.disarm() // it is settling, or has: it ends before we look
		cause = fmt.Errorf("undone by the %s: %w", rec.By, cause)
	}
	if err := m.announce(ctx, "undo", func(ctx context.Context) error {
		return m.insist(ctx, func(ctx context.Context) error { return m.opt.Subject.Settle(ctx, old) })
	}); err != nil {
		return false, a.broken(cause, err)
	}
	m.prepared = false
	if HintOf(cause) == "" && KindOf(cause) == Failed && ctx.Err() == nil {
		cause = &Problem{Kind: Failed, What: fmt.Sprintf("undone, and the %s is the truth and writable", old), Why: cause,
			Hint: "see the kernel log for what hung or failed, then ask again"}
	}
	err = a.startOld(ctx, cause)
	m.disarm()
	return false, err
}

// closeRecord sees to it that there is a record of number seq, "unchanged" unless
// somebody has decided otherwise, or that at least nobody can decide otherwise.
func (m *Migration) closeRecord(ctx context.Context, seq int, truth Side, by, why string) (Record, error) {
	rec, err := m.commit(ctx, seq, truth, by, why)
	if err == nil || isAmbiguous(err) {
		return rec, err
	}
	// The store is not writable. This process will not commit the other side under this
	// number any more, and the watchdog never does: what is recorded now stays in force.
	rec, terr := m.readTruth(ctx)
	if terr != nil {
		return rec, fmt.Errorf("%w: %w", terr, err)
	}
	return rec, nil
}

// startOld starts the service again on the truth that did not change.
func (a *attempt) startOld(ctx context.Context, cause error) error {
	m := a.m
	if m.state.Service == "" || a.stopping.IsZero() && m.state.Service != "stopped" {
		m.state.Service = ""
		return cause
	}
	if err := m.startService(ctx, a.to.Other()); err != nil {
		return errors.Join(cause, err)
	}
	return cause
}

// startService starts the service on the truth, whatever state it is in.
func (m *Migration) startService(ctx context.Context, truth Side) error {
	m.state.Service = "starting"
	began := m.clock.Now()
	err := m.insist(ctx, func(ctx context.Context) error { return m.opt.Service.Start(ctx, m.env(truth)) })
	m.hooked(ctx, "start", m.clock.Now().Sub(began), err)
	if err != nil {
		err = &Problem{
			Kind: Failed, What: fmt.Sprintf("the service did not start on the %s, which is the truth and writable", truth), Why: err,
			Hint: hintOr(err, "see its log and start it; the data is in place"),
		}
		m.warn("the service is down", err.Error(), HintOf(err))
		return err
	}
	m.state.Service = ""
	return nil
}

func (m *Migration) disarm() {
	if m.opt.Watchdog == nil {
		return
	}
	if err := m.opt.Watchdog.Disarm(); err != nil {
		m.warn("the watchdog was not disarmed", err.Error(), "it finds the record and changes nothing")
	}
}

func (a *attempt) broken(why ...error) error {
	return fmt.Errorf("%w: %w", errBroken, &Problem{
		Kind: Failed, What: fmt.Sprintf("the %s is the truth, but could not be made writable", a.m.truth.Truth), Why: errors.Join(why...),
		Hint: "fsmigrate resume " + a.m.plan.ID + ", or by hand: docs/runbook.md",
	})
}

// release is everything after the record. It goes on when ctx has ended: the swap is
// decided and half of it helps nobody.
func (a *attempt) release(ctx context.Context) error {
	m := a.m
	ctx = context.WithoutCancel(ctx)
	if err := m.announce(ctx, "settle", func(ctx context.Context) error {
		return m.insist(ctx, func(ctx context.Context) error { return m.opt.Subject.Settle(ctx, a.to) })
	}); err != nil {
		return a.broken(err)
	}
	settled := m.clock.Now()
	if !a.fencing.IsZero() {
		m.state.Report.PauseMS = ms(settled.Sub(a.fencing))
	}
	err := m.announce(ctx, "start", a.start)
	if !a.stopping.IsZero() {
		m.state.Report.GapMS = ms(m.clock.Now().Sub(a.stopping))
	}
	m.state.Report.HooksMS = ms(a.hooks)
	m.flushAudit(ctx)
	if err == nil {
		err = m.announce(ctx, "health", a.health)
	}
	_ = m.announce(ctx, "disarm", func(context.Context) error { m.disarm(); return nil })
	a.unwatched()
	return err
}

func (a *attempt) start(ctx context.Context) error {
	if !a.service() {
		return nil
	}
	a.m.state.Service = "starting"
	if a.to == Source { // there is nothing to go back to: insist
		return a.m.startService(ctx, Source)
	}
	if err := a.hook(ctx, "start", a.to, a.m.opt.Service.Start); err != nil {
		return &Problem{Kind: Failed, What: fmt.Sprintf("the service did not start on the %s", a.to), Why: err, Hint: HintOf(err)}
	}
	return nil
}

func (a *attempt) health(ctx context.Context) error {
	if !a.service() && a.m.plan.Service.Health == "" { // also of an application that is not stopped
		return nil
	}
	if err := a.hook(ctx, "health", a.to, a.m.opt.Service.Health); err != nil {
		return &Problem{Kind: Failed, What: fmt.Sprintf("the service is not healthy on the %s", a.to), Why: err, Hint: HintOf(err)}
	}
	a.m.state.Service = ""
	return nil
}
