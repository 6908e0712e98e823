package migrate

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// tick is how often Hold and Reverse look at the backlog.
const tick = time.Second

// Attempts that nobody asked for are at least firstRetry apart, doubling up to lastRetry.
const (
	firstRetry = 30 * time.Second
	lastRetry  = 10 * time.Minute
)

// backoff is the distance to the next attempt after n failed ones.
func backoff(n int) time.Duration {
	if n >= 6 { // 30 s × 2^5 is past 10 min
		return lastRetry
	}
	return min(firstRetry<<n, lastRetry)
}

// notYet says that the next attempt which nobody asked for has to wait. A moment further away
// than any wait was set by a clock that has been set back since, and counts for nothing.
func (m *Migration) notYet() bool {
	left := m.state.NotBefore.Sub(m.clock.Now())
	return left > 0 && left <= lastRetry
}

// hold keeps both sides in step until there is a reason to cut over.
func (m *Migration) hold(ctx context.Context) (move, error) {
	if err := m.follow(ctx); err != nil {
		return m.giveUp(err)
	}
	for over := 0; ; {
		took, err := m.keepUp(ctx)
		if err != nil {
			return m.giveUp(err)
		}
		m.block(m.standing())
		now := m.clock.Now()
		if over++; m.backlog.PredictedPause <= m.budget() {
			over = 0
		}
		switch due := m.policy.Allows(now) && !m.notYet(); {
		case m.asked != nil && m.asked.Kind == AskCutover, due && over == 0 && len(m.blockers) == 0:
			err := m.ready(ctx, Shadow)
			if err == nil {
				return move{Cutover, m.reason()}, nil
			}
			if isYieldOrEnd(ctx, err) || isAmbiguous(err) || errors.Is(err, ErrOtherSide) {
				return m.giveUp(err)
			}
			if err := m.postpone(ctx, err); err != nil {
				return move{}, err
			}
		case over >= 3:
			return move{CatchUp, fmt.Sprintf("predicted pause %v is over the budget", m.backlog.PredictedPause.Round(time.Millisecond))}, nil
		case (m.different != nil || m.backlog.Unverified > m.backlog.Units) && !now.Before(m.reverify):
			m.reverify = now.Add(time.Minute)
			return move{Verify, ""}, nil
		}
		if err := m.wait(ctx, max(tick, min(took, time.Minute))); err != nil {
			return move{}, err
		}
	}
}

func (m *Migration) budget() time.Duration { return time.Duration(m.plan.Cutover.PauseBudget) }

func (m *Migration) reason() string {
	if m.asked != nil {
		return "asked for"
	}
	return "policy " + m.plan.Cutover.Policy
}

// keepUp copies what is dirty now, if anything is.
func (m *Migration) keepUp(ctx context.Context) (took time.Duration, err error) {
	if err := m.refresh(ctx); err != nil || m.backlog.Units == 0 {
		return 0, err
	}
	began := m.clock.Now()
	_, err = m.pass(ctx)
	return m.clock.Now().Sub(began), err
}

// standing lists what forbids a cutover and is not waived, or cannot be.
func (m *Migration) standing() []Blocker {
	var b []Blocker
	for _, x := range m.backlog.Blockers {
		if _, ok := m.plan.Waives(x.Class); !ok || x.Firm {
			b = append(b, x)
		}
	}
	if m.different != nil {
		object := "not named"
		if len(m.different.Examples) > 0 {
			object = m.different.Examples[0]
		}
		b = append(b, Blocker{
			Class: "different", Object: object,
			Why:  fmt.Sprintf("%d objects differ after %d recopies", m.different.Different, recopies),
			Hint: "fsmigrate status " + m.plan.ID + " lists them; look for a failing disk", Firm: true,
		})
	}
	return b
}

// block tells the blockers when they change.
func (m *Migration) block(b []Blocker) {
	if slices.Equal(b, m.blockers) {
		return
	}
	m.blockers = b
	m.publish()
	if f := m.opt.Events.Blocked; f != nil {
		f(b)
	}
}

// ready says whether a cutover towards side `to` can begin: nil, or the *Problem
// that says what is missing. It first copies and compares what is left over.
func (m *Migration) ready(ctx context.Context, to Side) error {
	id := m.plan.ID
	if !m.plan.Service.Configured() && !m.plan.Service.AcceptEROFS {
		return &Problem{
			Kind: IsRefused, What: "the plan does not say how to stop the application, which a watch needs to lose no write",
			Hint: "plan with --unit, with --stop and --start, or with --accept-erofs",
		}
	}
	for n := 0; n < 3 && (m.backlog.Units > 0 || n == 0); n++ {
		if _, err := m.pass(ctx); err != nil {
			return err
		}
	}
	if m.different != nil || m.backlog.Unverified > m.backlog.Units {
		if err := m.compare(ctx); err != nil {
			return err
		}
	}
	m.block(m.standing())
	switch b := m.backlog; {
	case m.different != nil:
		return &Problem{
			Kind: Differs, What: fmt.Sprintf("%d objects differ from the truth: %s", m.different.Different, strings.Join(m.different.Examples, "; ")),
			Hint: "look for a failing disk, or fsmigrate abort " + id,
		}
	case len(m.blockers) > 0:
		x := m.blockers[0]
		return &Problem{
			Kind: IsRefused, What: fmt.Sprintf("%d blockers, the first: %s: %s (%s)", len(m.blockers), x.Object, x.Why, x.Class), Hint: x.Hint,
		}
	case b.Unverified > b.Units:
		return &Problem{Kind: IsRefused, What: fmt.Sprintf("%d objects are not verified", b.Unverified), Hint: "fsmigrate wait " + id + " --for hold"}
	case b.PredictedPause > m.budget() && m.state.Want != wantBack:
		return &Problem{
			Kind: IsRefused,
			What: fmt.Sprintf("the predicted pause of %v is over the budget of %v", b.PredictedPause.Round(time.Millisecond), m.budget()),
			Hint: "wait until less is written, or plan with a larger --pause-budget",
		}
	}
	return nil
}

// compare verifies what is left, and copies again what differs.
func (m *Migration) compare(ctx context.Context) error {
	for n := 0; ; n++ {
		var p Proof
		err := m.try(ctx, "verify", func(ctx context.Context) (err error) {
			p, err = m.opt.Subject.Verify(ctx)
			return err
		})
		if err != nil {
			return err
		}
		m.verified(p)
		if p.Different == 0 {
			m.rounds, m.different = 0, nil
			return m.refresh(ctx)
		}
		if n == recopies {
			m.different = &p
			return m.refresh(ctx)
		}
		if _, err := m.pass(ctx); err != nil {
			return err
		}
	}
}

// postpone answers whoever asked, or puts off the next attempt that nobody asked for.
func (m *Migration) postpone(ctx context.Context, why error) error {
	m.state.Want = ""
	if m.asked != nil {
		m.answer(why)
		return m.save(ctx)
	}
	if !m.notYet() { // not counted by an attempt that began
		m.state.Failures++
	}
	wait := backoff(m.state.Failures - 1)
	m.state.NotBefore = m.clock.Now().Add(wait)
	m.warn("cutover postponed for "+wait.String(), explain(why), HintOf(why))
	m.audit(ctx, "postponed", map[string]any{"why": explain(why), "until": m.state.NotBefore})
	return m.save(ctx)
}

// explain is an error with the holders it may name.
func explain(err error) string {
	var busy *Busy
	if !errors.As(err, &busy) || len(busy.Holders) == 0 {
		return err.Error()
	}
	return err.Error() + ": " + holders(busy.Holders)
}

func holders(h []Holder) string {
	var s []string
	for i, x := range h {
		if i == 5 {
			s = append(s, fmt.Sprintf("and %d more", len(h)-i))
			break
		}
		s = append(s, fmt.Sprintf("%s (pid %d) %s %s", x.Command, x.PID, x.Kind, x.Path))
	}
	return strings.Join(s, ", ")
}
