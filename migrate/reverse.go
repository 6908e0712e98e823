package migrate

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// The states of the way back.
const (
	WayFull   = "full"
	WayStale  = "stale"
	WayClosed = "closed"
)

// keeps says that the old volume stays as it was at the fence.
func (m *Migration) keeps() bool { return m.plan.Cutover.Old == "keep" || m.plan.Cutover.Finalize }

// reverse keeps the old volume in step with the new one until it is decided which
// way to go. Nothing that fails here ends the run: the application is on the truth (I9).
func (m *Migration) reverse(ctx context.Context) (move, error) {
	if m.plan.Cutover.Finalize && m.state.Want != wantBack && m.state.Service == "" {
		return move{Finalizing, "the plan finalizes at cutover"}, nil
	}
	var guard guard
	for failures := 0; ; {
		m.wayBack(ctx)
		if err := m.guardOld(ctx, &guard); err != nil {
			return move{}, err
		}
		err := m.inStep(ctx)
		switch {
		case err == nil:
			failures = 0
		case isYieldOrEnd(ctx, err) || isAmbiguous(err):
			return move{}, err
		default:
			failures++
			m.lag(ctx, err)
		}
		if m.goBack() {
			err := m.canGoBack(ctx)
			if err == nil {
				return move{Rollback, m.reason()}, nil
			}
			if isYieldOrEnd(ctx, err) || isAmbiguous(err) {
				return move{}, err
			}
			if err := m.putOff(ctx, err); err != nil {
				return move{}, err
			}
		}
		if err := m.wait(ctx, min(tick<<min(failures, 6), time.Minute)); err != nil {
			return move{}, err
		}
	}
}

// guardEvery is how often Reverse looks for new roads to the old volume.
const guardEvery = 30 * time.Second

// guard is the last look, and what it found, which is told once.
type guard struct {
	next time.Time
	told string
}

// guardOld has the side that is not the truth looked after. Only the end of the run ends it.
func (m *Migration) guardOld(ctx context.Context, g *guard) error {
	s, ok := m.opt.Subject.(Guard)
	now := m.clock.Now()
	if !ok || now.Before(g.next) {
		return nil
	}
	g.next = now.Add(guardEvery)
	err := m.op(ctx, func(ctx context.Context) error { return s.Guard(ctx, m.truth.Truth.Other()) })
	if err == nil || isYieldOrEnd(ctx, err) || isAmbiguous(err) {
		if err == nil {
			g.told = ""
		}
		return err
	}
	if why := explain(err); why != g.told {
		g.told = why
		m.warn("the old volume may be written by others", why, "end what is listed: what it writes there is in no copy")
		m.audit(ctx, "old-volume-open", map[string]any{"why": why})
	}
	return nil
}

// inStep copies what changed on the new truth to the old one.
func (m *Migration) inStep(ctx context.Context) error {
	if m.keeps() && m.state.Want != wantBack || m.state.Report.WayBack.State == WayClosed {
		return nil
	}
	if err := m.follow(ctx); err != nil {
		return err
	}
	_, err := m.keepUp(ctx)
	m.block(m.standing())
	return err
}

// lag says that the old volume falls behind.
func (m *Migration) lag(ctx context.Context, err error) {
	w := m.state.Report.WayBack
	switch {
	case errors.Is(err, ErrOtherSide):
		w = WayBack{State: WayClosed, Since: m.clock.Now(), Why: err.Error()}
	case w.State != WayStale:
		w = WayBack{State: WayStale, Since: m.clock.Now(), Why: err.Error()}
	}
	m.setWayBack(ctx, w)
}

// wayBack asks the subject and reports a change at the moment it happens.
func (m *Migration) wayBack(ctx context.Context) {
	w := m.opt.Subject.WayBack(ctx)
	old := m.state.Report.WayBack
	switch {
	case old.State == WayClosed:
		return // it never opens again
	case m.keeps() && w.State != WayClosed:
		w.State = WayStale
		def(&w.Why, "the old volume is kept as it was at the fence")
		if w.Since.IsZero() {
			w.Since = old.Since
		}
		if w.Since.IsZero() {
			w.Since = m.truth.At
		}
	}
	m.setWayBack(ctx, w)
}

func (m *Migration) setWayBack(ctx context.Context, w WayBack) {
	old := m.state.Report.WayBack
	m.state.Report.WayBack = w
	if old.State == w.State && old.Why == w.Why {
		return
	}
	m.publish()
	m.audit(ctx, "way-back", map[string]any{"state": w.State, "since": w.Since, "why": w.Why})
	if w.State != WayFull {
		m.warn("the way back is "+w.State, w.Why, "")
	}
	if err := m.save(ctx); err != nil {
		m.warn("the way back was not saved", err.Error(), HintOf(err))
	}
}

// goBack says whether a rollback is due: asked for, or wanted since the service failed.
func (m *Migration) goBack() bool {
	if m.asked != nil && m.asked.Kind == AskRollback {
		return true
	}
	return m.state.Want == wantBack && !m.notYet()
}

func (m *Migration) canGoBack(ctx context.Context) error {
	if w := m.state.Report.WayBack; w.State == WayClosed || m.keeps() && m.state.Want != wantBack {
		return &Problem{Kind: IsRefused, What: fmt.Sprintf("the way back is %s: %s", w.State, w.Why), Hint: "mend the service on the new volume, then fsmigrate finalize " + m.plan.ID}
	}
	if err := m.follow(ctx); err != nil {
		return err
	}
	return m.ready(ctx, Source)
}

// putOff answers whoever asked for the rollback; one that on_failure wants is tried again later.
func (m *Migration) putOff(ctx context.Context, why error) error {
	if m.state.Want != wantBack {
		return m.postpone(ctx, why)
	}
	m.answer(why)
	if err := m.postpone(ctx, why); err != nil || m.state.Report.WayBack.State == WayClosed {
		return err
	}
	m.state.Want = wantBack
	return m.save(ctx)
}

// rollback is a cutover back, and the end of the migration on the source.
func (m *Migration) rollback(ctx context.Context) (move, error) {
	if m.truth.Truth == Shadow {
		done, err := m.swap(ctx, Source)
		switch {
		case err != nil && swapBroken(err):
			return move{}, err
		case !done:
			if perr := m.putOff(ctx, err); perr != nil {
				return move{}, perr
			}
			return move{Reverse, "undone: " + explain(err)}, nil
		case err != nil:
			m.warn("rolled back, but the service is not well", err.Error(), HintOf(err))
		}
		if err := m.save(ctx); err != nil {
			return move{}, err
		}
	}
	if err := m.finish(ctx, "release the shadow", func(ctx context.Context) error { return m.opt.Subject.Finalize(ctx, Source) }); err != nil {
		return move{}, err
	}
	return move{RolledBack, ""}, nil
}

// finalize ends the migration on the shadow.
func (m *Migration) finalize(ctx context.Context) (move, error) {
	if m.truth.Truth != Shadow {
		return move{}, fmt.Errorf("finalize %s: the truth is the %s", m.plan.ID, m.truth.Truth)
	}
	if err := m.finish(ctx, "finalize", func(ctx context.Context) error { return m.opt.Subject.Finalize(ctx, Shadow) }); err != nil {
		return move{}, err
	}
	m.setWayBack(ctx, WayBack{State: WayClosed, Since: m.clock.Now(), Why: "finalized"})
	return move{Finalized, ""}, nil
}

// abort gives up the shadow.
func (m *Migration) abort(ctx context.Context) (move, error) {
	if m.truth.Truth != Source {
		return move{}, fmt.Errorf("abort %s: the truth is the %s", m.plan.ID, m.truth.Truth)
	}
	if err := m.finish(ctx, "abort", m.opt.Subject.Abort); err != nil {
		return move{}, err
	}
	return move{Aborted, m.state.Why}, nil
}

// finish repeats what ends a migration until it succeeds, in growing distances, or
// when it is asked for again. Whoever asked is told of the first failure.
func (m *Migration) finish(ctx context.Context, name string, fn func(context.Context) error) error {
	for n := 0; ; n++ {
		err := m.op(ctx, fn)
		if err == nil || isYieldOrEnd(ctx, err) || isAmbiguous(err) {
			return err
		}
		err = &Problem{Kind: KindOf(err), What: name + " failed and will be tried again", Why: errors.New(explain(err)), Hint: HintOf(err)}
		m.warn(err.Error(), "", HintOf(err))
		m.answer(err)
		if err := m.wait(ctx, backoff(n)); err != nil {
			return err
		}
	}
}
