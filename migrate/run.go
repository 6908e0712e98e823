package migrate

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// Migration takes one plan through its phases. Run is called once, by one
// goroutine, which is the engine; Request and Status may be called by others.
type Migration struct {
	opt    Options
	plan   Plan
	policy Policy
	clock  Clock

	// The engine's goroutine only.
	state      State
	truth      Record
	prepared   bool // the tracker of this process follows the truth
	backlog    Backlog
	progress   Progress
	progressAt time.Time
	slope      slope  // how the backlog moves
	rounds     int    // verifications in a row that found a difference
	different  *Proof // the difference that recopying did not cure
	reverify   time.Time
	asked      *pending // the request under way, answered when it has an outcome
	cause      error    // why it ended without being asked to
	blockers   []Blocker
	deferred   []auditLine // audit lines of a cutover, written after the pause
	quiet      bool        // audit lines are deferred

	mu        sync.Mutex // guards the rest
	view      view
	queue     []*pending
	wake      chan struct{} // one token: the queue is not empty
	interrupt context.CancelCauseFunc
	started   bool
	recovered bool // Run knows where it stands: the phase is not merely the one of the engine before
	ended     bool
}

// Options is what a migration runs with.
type Options struct {
	Plan     Plan
	Subject  Subject // Run closes it
	Store    Store
	Service  Service  // nil: the plan has no service
	Watchdog Watchdog // nil: the fence does not outlive the process
	Events   Events
	Clock    Clock        // nil: SystemClock
	BootID   string       // for the switch records
	PeakRSS  func() int64 // bytes, for the report; nil: not known

	Unpause bool // a migration that was paused goes on

	// Ask is what Run is there for, nil: to go on. It is asked for as soon as Run knows where it
	// stands, and Run ends when it has its outcome: stopped resumably where that is a refusal.
	Ask *Request

	poll time.Duration // how often long operations are looked at; <0: never
}

func (o Options) withDefaults() Options {
	o.Plan = o.Plan.WithDefaults()
	if o.Clock == nil {
		o.Clock = SystemClock
	}
	def(&o.poll, time.Second)
	return o
}

func (o Options) validate() error {
	switch {
	case o.Subject == nil:
		return errors.New("migration: no subject")
	case o.Store == nil:
		return errors.New("migration: no store")
	case (o.Plan.Service.Configured() || o.Plan.Service.Health != "") && o.Service == nil:
		return errors.New("migration: the plan has a service, and there is nothing to stop and start it")
	}
	return o.Plan.Validate()
}

// New makes a migration that Run can start or resume.
func New(o Options) (*Migration, error) {
	o = o.withDefaults()
	if err := o.validate(); err != nil {
		return nil, err
	}
	policy, err := ParsePolicy(o.Plan.Cutover.Policy)
	if err != nil {
		return nil, planProblem(err)
	}
	m := &Migration{opt: o, plan: o.Plan, policy: policy, clock: o.Clock, wake: make(chan struct{}, 1)}
	m.view.plan = &m.plan
	return m, nil
}

// Outcome is where a run ended.
type Outcome struct {
	Phase  Phase
	Truth  Side
	Report Report
}

// errYield is the cause of a context that an operator's request interrupted.
var errYield = errors.New("interrupted by a request")

// move is the outcome of a phase: the next one, and a note for the timeline.
type move struct {
	to   Phase
	note string
}

// Run starts the migration, or resumes it at whatever its durable state says, and
// returns when it has ended or ctx has. It answers nil when the migration is
// finalized, and a *Problem otherwise: WasAborted, WasReverted, or Stopped when ctx ended
// it resumably. Ctx never aborts and never rolls back: before the fence the run
// stops, between fence and record the cutover is undone first, after the record it
// is finished first.
func (m *Migration) Run(ctx context.Context) (Outcome, error) {
	if !m.begin() {
		return Outcome{}, errors.New("migration " + m.plan.ID + ": already run")
	}
	err := m.run(ctx)
	if cerr := m.opt.Subject.Close(); cerr != nil && err == nil {
		err = fmt.Errorf("close %s: %w", m.plan.ID, cerr)
	}
	m.end(err)
	return Outcome{Phase: m.state.Phase, Truth: m.truth.Truth, Report: m.report()}, err
}

func (m *Migration) run(ctx context.Context) error {
	if err := m.recover(ctx); err != nil {
		return m.leave(ctx, err)
	}
	m.mu.Lock()
	m.recovered = true
	m.mu.Unlock()
	if m.opt.Ask == nil {
		return m.phases(ctx)
	}
	ctx, refuse := context.WithCancelCause(ctx)
	defer refuse(nil)
	p := m.askFirst(refuse)
	err := m.phases(ctx)
	select {
	case why := <-p.answer:
		if why != nil {
			err = why
		}
	default:
	}
	return err
}

// phases goes through them until the migration has ended.
func (m *Migration) phases(ctx context.Context) error {
	for !m.state.Phase.Ended() {
		if !m.swapping() {
			if err := m.attend(ctx); err != nil {
				return m.leave(ctx, err)
			}
		}
		next, err := m.step(ctx)
		if errors.Is(err, errYield) {
			continue
		}
		if err == nil {
			err = m.enter(ctx, next)
		}
		if err != nil {
			return m.leave(ctx, err)
		}
	}
	return m.verdictOfEnd()
}

// swapping says that a swap is next or under way: requests wait until it is decided,
// and the swap itself sees the end of ctx and undoes what it began.
func (m *Migration) swapping() bool {
	return m.state.Phase == Cutover || m.state.Phase == Rollback && m.truth.Truth == Shadow
}

// step runs the phase that the migration is in and says what follows.
func (m *Migration) step(ctx context.Context) (move, error) {
	switch m.state.Phase {
	case Preflight:
		return m.preflight(ctx)
	case Prepare:
		return m.prepare(ctx)
	case Copy:
		return m.copy(ctx)
	case CatchUp:
		return m.catchUp(ctx)
	case Verify:
		return m.verify(ctx)
	case Hold:
		return m.hold(ctx)
	case Cutover:
		return m.cutover(ctx)
	case Reverse:
		return m.reverse(ctx)
	case Rollback:
		return m.rollback(ctx)
	case Finalizing:
		return m.finalize(ctx)
	case Aborting:
		return m.abort(ctx)
	default:
		return move{}, fmt.Errorf("migration %s: no phase %q", m.plan.ID, m.state.Phase)
	}
}

// enter makes the next phase durable and tells everybody.
func (m *Migration) enter(ctx context.Context, next move) error {
	from := m.state.Phase
	if !from.CanFollow(next.to) {
		return fmt.Errorf("migration %s: phase %s cannot follow %s", m.plan.ID, next.to, from)
	}
	return m.set(ctx, next)
}

// set is enter without the transition table: for recovery, which goes where the record says.
func (m *Migration) set(ctx context.Context, next move) error {
	from := m.state.Phase
	m.state.Phase = next.to
	m.state.Since = m.clock.Now()
	m.state.Timeline = append(m.state.Timeline, Step{Phase: next.to, At: m.state.Since, Note: next.note})
	m.slope = slope{}
	if err := m.save(ctx); err != nil {
		return err
	}
	m.audit(ctx, "phase", map[string]any{"from": from, "to": next.to, "note": next.note})
	if f := m.opt.Events.Phase; f != nil {
		f(from, next.to, next.note)
	}
	return nil
}

// leave turns what ended the loop into what Run answers.
func (m *Migration) leave(ctx context.Context, err error) error {
	m.flushAudit(ctx)
	var ambiguous *Ambiguous
	switch {
	case errors.As(err, &ambiguous):
		err = &Problem{Kind: IsRefused, What: "ownership ambiguous, nothing done", Why: err, Hint: ambiguous.Decide}
	case ctx.Err() != nil && (errors.Is(err, ctx.Err()) || errors.Is(err, context.Cause(ctx))):
		err = &Problem{
			Kind: Stopped,
			What: fmt.Sprintf("stopped in %s, truth is the %s", m.state.Phase, m.truth.Truth),
			Hint: "fsmigrate resume " + m.plan.ID,
		}
	}
	m.audit(ctx, "stopped", map[string]any{"phase": m.state.Phase, "why": err.Error()})
	return err
}

func (m *Migration) verdictOfEnd() error {
	switch m.state.Phase {
	case Aborted:
		return &Problem{Kind: WasAborted, What: "aborted, the source is the truth", Why: m.why()}
	case RolledBack:
		return &Problem{Kind: WasReverted, What: "rolled back, the source is the truth", Why: m.why()}
	default:
		return nil
	}
}

func (m *Migration) why() error {
	if m.cause != nil {
		return m.cause
	}
	if m.state.Why != "" {
		return errors.New(m.state.Why)
	}
	return nil
}
