package migrate

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// preflight checks and changes nothing. What is refused and not waived ends the run.
func (m *Migration) preflight(ctx context.Context) (move, error) {
	var checks []Check
	err := m.op(ctx, func(ctx context.Context) (err error) {
		checks, err = m.opt.Subject.Preflight(ctx)
		return err
	})
	if err != nil {
		return move{}, err
	}
	var refused []string
	var which []Check
	hint := ""
	for _, c := range checks {
		if c.Verdict == Refused {
			if reason, ok := m.plan.Waives(c.Name); ok && c.Waivable {
				c.Verdict = Waived
				m.audit(ctx, "waived", map[string]any{"check": c.Name, "found": c.Found, "reason": reason})
			} else {
				refused = append(refused, fmt.Sprintf("%s (found %s, need %s)", c.Name, c.Found, c.Need))
				which = append(which, c)
				if hint == "" || c.Impossible {
					hint = c.Remedy
				}
			}
		}
		if f := m.opt.Events.Checked; f != nil {
			f(c)
		}
	}
	if len(refused) > 0 {
		return move{}, &Problem{Kind: Refusal(which), What: fmt.Sprintf("%d of %d checks refused, nothing changed: %s", len(refused), len(checks), strings.Join(refused, "; ")), Hint: hint}
	}
	return move{Prepare, ""}, nil
}

// prepare makes the shadow and starts the tracker.
func (m *Migration) prepare(ctx context.Context) (move, error) {
	if err := m.follow(ctx); err != nil {
		return m.giveUp(err)
	}
	return move{Copy, ""}, nil
}

// follow sees to it that the tracker of this process follows the truth.
func (m *Migration) follow(ctx context.Context) error {
	if m.prepared {
		return nil
	}
	to := m.truth.Truth.Other()
	err := m.try(ctx, "prepare", func(ctx context.Context) error { return m.opt.Subject.Prepare(ctx, to) })
	m.prepared = err == nil
	return err
}

// copy is the one walk of the truth.
func (m *Migration) copy(ctx context.Context) (move, error) {
	if err := m.follow(ctx); err != nil {
		return m.giveUp(err)
	}
	began := m.clock.Now()
	err := m.try(ctx, "copy", m.opt.Subject.Copy)
	m.state.Report.CopySeconds += m.clock.Now().Sub(began).Seconds()
	if err != nil {
		return m.giveUp(err)
	}
	return move{CatchUp, ""}, nil
}

// catchUp repeats passes until a cutover now would keep within its budget.
func (m *Migration) catchUp(ctx context.Context) (move, error) {
	if err := m.follow(ctx); err != nil {
		return m.giveUp(err)
	}
	for {
		began := m.clock.Now()
		if _, err := m.pass(ctx); err != nil {
			return m.giveUp(err)
		}
		if m.slope.converged(time.Duration(m.plan.Cutover.PauseBudget)) {
			if m.backlog.Unverified > 0 || m.rounds > 0 {
				return move{Verify, ""}, nil
			}
			return move{Hold, "nothing is left to verify"}, nil
		}
		if m.slope.stalled() {
			if err := m.mirror(ctx); err != nil {
				return move{}, err
			}
		}
		if err := m.wait(ctx, between(m.clock.Now().Sub(began))); err != nil {
			return move{}, err
		}
	}
}

// between is how long to wait after a pass that took as long: the application gets
// at least half of the time, and many changes of one unit are copied once.
func between(took time.Duration) time.Duration {
	return min(max(took, 100*time.Millisecond), time.Second)
}

// mirror answers a stall: with mirror mode where the tracker has it, with the honest
// numbers where it has not. It goes on trying either way.
func (m *Migration) mirror(ctx context.Context) error {
	err := m.op(ctx, func(ctx context.Context) error { return m.opt.Subject.Mirror(ctx, true) })
	yes := err == nil
	switch {
	case yes:
		m.audit(ctx, "mirror", map[string]any{"on": true})
	case isErrNoMirror(err):
	case isYieldOrEnd(ctx, err):
		return err
	default:
		m.warn("mirror mode could not be entered", err.Error(), HintOf(err))
	}
	m.slope.announced(m.clock.Now())
	m.converges(yes)
	return nil
}

func (m *Migration) converges(yes bool) {
	m.slope.diverging = !yes
	m.publish()
	if f := m.opt.Events.Converges; f != nil {
		f(yes, m.backlog.DirtyRate, m.backlog.CopyRate)
	}
}

// pass copies what is dirty and looks at what remains.
func (m *Migration) pass(ctx context.Context) (PassResult, error) {
	var r PassResult
	err := m.try(ctx, "pass", func(ctx context.Context) (err error) {
		r, err = m.opt.Subject.Pass(ctx)
		return err
	})
	if err != nil {
		return r, err
	}
	m.state.Report.Passes++
	if err := m.refresh(ctx); err != nil {
		return r, err
	}
	if f := m.opt.Events.PassDone; f != nil {
		f(r, m.backlog)
	}
	return r, nil
}

// refresh asks what lies between the two sides now.
func (m *Migration) refresh(ctx context.Context) error {
	var b Backlog // the status may be looked at meanwhile, which sets m.backlog
	err := m.try(ctx, "backlog", func(ctx context.Context) (err error) {
		b, err = m.opt.Subject.Backlog(ctx)
		return err
	})
	if err != nil {
		return err
	}
	m.backlog = b
	if m.slope.sample(m.clock.Now(), m.backlog) && m.slope.diverging {
		m.converges(true)
	}
	m.publish()
	return nil
}

// recopies is how often a difference is copied again before it is called a blocker.
const recopies = 2

// verify compares what is not yet verified-clean.
func (m *Migration) verify(ctx context.Context) (move, error) {
	if err := m.follow(ctx); err != nil {
		return m.giveUp(err)
	}
	var p Proof
	err := m.try(ctx, "verify", func(ctx context.Context) (err error) {
		p, err = m.opt.Subject.Verify(ctx)
		return err
	})
	if err != nil {
		return m.giveUp(err)
	}
	m.verified(p)
	if p.Different == 0 {
		m.rounds, m.different = 0, nil
		return move{Hold, ""}, nil
	}
	m.rounds++
	if m.rounds <= recopies {
		return move{CatchUp, fmt.Sprintf("%d objects differ", p.Different)}, nil
	}
	m.different = &p
	m.reverify = m.clock.Now().Add(time.Minute)
	return move{Hold, fmt.Sprintf("%d objects still differ after %d recopies", p.Different, recopies)}, nil
}

// verified notes a proof and tells it. What Verify proves adds up over its calls in the subject.
func (m *Migration) verified(p Proof) {
	r := &m.state.Report
	if p.Objects > 0 {
		r.Objects = p.Objects
	}
	r.Bytes = max(r.Bytes, p.Bytes)
	r.Verified, r.Differences, r.Examples = p.Verified, p.Different, p.Examples
	r.Proof = p
	m.publish()
	if f := m.opt.Events.Verified; f != nil {
		f(p)
	}
}
