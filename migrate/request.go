package migrate

import (
	"context"
	"fmt"
)

// RequestKind is what an operator asks a running migration for.
type RequestKind string

// The requests.
const (
	AskPause    RequestKind = "pause"
	AskResume   RequestKind = "resume"
	AskCutover  RequestKind = "cutover"
	AskAbort    RequestKind = "abort"
	AskRollback RequestKind = "rollback"
	AskFinalize RequestKind = "finalize"
)

// Ends is the phase in which the migration has ended when k was done; false for what does not end it.
func (k RequestKind) Ends() (Phase, bool) {
	switch k {
	case AskAbort:
		return Aborted, true
	case AskRollback:
		return RolledBack, true
	case AskFinalize:
		return Finalized, true
	}
	return "", false
}

// Request is one request, with what the audit log records of who asks.
type Request struct {
	Kind RequestKind `json:"kind"`
	Who  string      `json:"who,omitempty"`
}

type pending struct {
	Request
	answer chan error  // of capacity 1
	refuse func(error) // nil; or told of an answer that is an error
}

func (p *pending) reply(err error) {
	if p == nil {
		return
	}
	select {
	case p.answer <- err:
		if err != nil && p.refuse != nil {
			p.refuse(err)
		}
	default: // answered already; the first answer stands
	}
}

// Request asks for something and waits until it has an outcome: nil when what was
// asked for is so, a *Problem when it is not allowed now or did not succeed. The end of
// ctx ends the waiting, not the request.
func (m *Migration) Request(ctx context.Context, r Request) error {
	p := m.post(r)
	select {
	case err := <-p.answer:
		return err
	case <-ctx.Done():
		return fmt.Errorf("%s of %s goes on without being waited for: %w", r.Kind, m.plan.ID, context.Cause(ctx))
	}
}

// post queues r, or answers it at once where the phase forbids it.
func (m *Migration) post(r Request) *pending {
	p := &pending{Request: r, answer: make(chan error, 1)}
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.started || m.ended {
		p.reply(&Problem{Kind: IsRefused, What: fmt.Sprintf("migration %s is not running", m.plan.ID), Hint: "fsmigrate resume " + m.plan.ID})
		return p
	}
	// A cutover in progress can end either way: what is asked meanwhile is judged after it.
	if phase := m.view.state.Phase; phase != Cutover && phase != Rollback && phase != "" {
		if err := m.allowed(r.Kind, phase, m.view.state.Paused, m.view.wayBack); err != nil {
			p.reply(err)
			return p
		}
	}
	m.queue = append(m.queue, p)
	select {
	case m.wake <- struct{}{}:
	default:
	}
	if m.interrupt != nil && interrupts(r.Kind) {
		m.interrupt(errYield)
	}
	return p
}

// askFirst queues what Run is there for. refuse ends the run when it did not succeed.
func (m *Migration) askFirst(refuse func(error)) *pending {
	p := &pending{Request: *m.opt.Ask, answer: make(chan error, 1), refuse: refuse}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.queue = append(m.queue, p)
	return p
}

// interrupts says which requests do not wait for a walk or a pass to end.
func interrupts(k RequestKind) bool { return k == AskPause || k == AskAbort || k == AskFinalize }

// interruptible announces what cancels the running operation; nil when it is over.
// False: a request that interrupts is there already.
func (m *Migration) interruptible(cancel context.CancelCauseFunc) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.interrupt = cancel
	if cancel != nil {
		for _, p := range m.queue {
			if interrupts(p.Kind) {
				m.interrupt = nil
				return false
			}
		}
	}
	return true
}

func (m *Migration) requested() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.queue) > 0
}

func (m *Migration) take() []*pending {
	m.mu.Lock()
	defer m.mu.Unlock()
	q := m.queue
	m.queue = nil
	return q
}

func (m *Migration) begin() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.started {
		return false
	}
	m.started = true
	return true
}

// end answers everybody who still waits.
func (m *Migration) end(err error) {
	m.mu.Lock()
	m.ended = true
	m.view.ended = true
	m.mu.Unlock()
	if m.asked != nil {
		m.asked.reply(m.outcomeFor(m.asked.Kind, err))
		m.asked = nil
	}
	for _, p := range m.take() {
		p.reply(m.outcomeFor(p.Kind, err))
	}
}

func (m *Migration) outcomeFor(k RequestKind, err error) error {
	switch want, ends := k.Ends(); {
	case ends && m.state.Phase == want:
		return nil
	case k == AskCutover && m.state.Phase == Finalized:
		return nil
	case err != nil:
		return err
	}
	return &Problem{Kind: IsRefused, What: fmt.Sprintf("migration %s has ended: %s", m.plan.ID, m.state.Phase)}
}

// attend does what was asked for, between two steps, and waits while paused.
func (m *Migration) attend(ctx context.Context) error {
	for {
		select {
		case <-m.wake:
		default:
		}
		for _, p := range m.take() {
			if err := m.handle(ctx, p); err != nil {
				p.reply(err)
				return err
			}
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if !m.state.Paused {
			return nil
		}
		select {
		case <-m.wake:
		case <-ctx.Done():
		}
	}
}

func (m *Migration) handle(ctx context.Context, p *pending) error {
	if err := m.allowed(p.Kind, m.state.Phase, m.state.Paused, m.state.Report.WayBack); err != nil {
		p.reply(err)
		return nil
	}
	m.audit(ctx, "request", map[string]any{"kind": p.Kind, "by": p.Who, "phase": m.state.Phase})
	switch p.Kind {
	case AskPause:
		m.overtake(p.Kind)
		m.state.Paused, m.state.Why = true, "asked for"
		if err := m.save(ctx); err != nil {
			return err
		}
		p.reply(nil)
		return nil
	case AskResume:
		m.state.Paused, m.state.Why = false, ""
		if err := m.save(ctx); err != nil {
			return err
		}
		p.reply(nil)
		return nil
	}
	m.overtake(p.Kind)
	m.asked = p
	m.state.Paused, m.state.Why, m.state.Want = false, "", string(p.Kind)
	switch {
	case p.Kind == AskAbort && m.state.Phase != Aborting:
		return m.enter(ctx, move{Aborting, "asked for"})
	case p.Kind == AskFinalize && m.state.Phase != Finalizing:
		return m.enter(ctx, move{Finalizing, "asked for"})
	}
	return nil // Hold and Reverse see that a cutover or a rollback is asked for
}

// overtake answers a request that another one makes moot.
func (m *Migration) overtake(by RequestKind) {
	if m.asked == nil {
		return
	}
	m.asked.reply(&Problem{Kind: IsRefused, What: fmt.Sprintf("the %s was overtaken by a request to %s", m.asked.Kind, by)})
	m.asked = nil
}

// answer gives the request under way its outcome.
func (m *Migration) answer(err error) {
	m.asked.reply(err)
	m.asked = nil
}

// pauseFor pauses by itself: there is something that only the operator can mend.
func (m *Migration) pauseFor(ctx context.Context, why error) error {
	m.state.Paused, m.state.Why = true, why.Error()
	m.warn("paused", why.Error(), hintOr(why, "make room, then: fsmigrate resume "+m.plan.ID+"; or fsmigrate abort "+m.plan.ID))
	m.audit(ctx, "paused", map[string]any{"why": why.Error()})
	if err := m.save(ctx); err != nil {
		return err
	}
	return errYield
}

// allowed says whether k may be asked for now, and what to ask for instead.
func (m *Migration) allowed(k RequestKind, phase Phase, paused bool, back WayBack) error {
	id := m.plan.ID
	refuse := func(why, hint string) error {
		return &Problem{Kind: IsRefused, What: fmt.Sprintf("%s is not possible in %s: %s", k, phase, why), Hint: hint}
	}
	over := phase == Reverse || phase == Rollback || phase == Finalizing || phase == Finalized
	switch k {
	case AskPause:
		if phase == Finalizing || phase == Aborting || phase.Ended() {
			return refuse("nothing is copied any more", "fsmigrate status "+id)
		}
	case AskResume:
		if phase.Ended() {
			return refuse("the migration has ended", "fsmigrate status "+id)
		}
	case AskCutover:
		switch {
		case over:
			return refuse("the new volume is in use already", "fsmigrate finalize "+id+", or fsmigrate rollback "+id)
		case phase != Hold:
			return refuse("the two sides are not in step yet", "fsmigrate wait "+id+" --for hold")
		case paused:
			return refuse("it is paused", "fsmigrate resume "+id)
		}
	case AskAbort:
		if over {
			return refuse("the new volume is the truth", "use rollback: fsmigrate rollback "+id)
		}
		if !phase.Abortable() {
			return refuse("the migration has ended", "fsmigrate status "+id)
		}
	case AskRollback:
		if phase == Rollback {
			return nil // it is under way: what is left is to release the new volume
		}
		if phase != Reverse {
			if over || phase.Ended() {
				return refuse("the way back is closed", "fsmigrate status "+id)
			}
			return refuse("the source is still the truth", "use abort: fsmigrate abort "+id)
		}
		if back.State == WayClosed || m.plan.Cutover.Old == "keep" {
			return refuse("the way back is "+back.State+": "+back.Why, "fsmigrate finalize "+id)
		}
	case AskFinalize:
		if phase != Reverse && phase != Finalizing {
			return refuse("there is nothing to finalize", "fsmigrate status "+id)
		}
	default:
		return &Problem{Kind: Usage, What: fmt.Sprintf("unknown request %q", k), Hint: "pause, resume, cutover, abort, rollback, finalize"}
	}
	return nil
}
