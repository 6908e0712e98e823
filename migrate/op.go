package migrate

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// tries is how often an operation that copies or compares is begun before its
// failure ends the run; every one recopies what the last left dirty (I6).
const tries = 3

// op runs one interruptible operation of the subject. A request that cannot wait
// (pause, abort, finalize) cancels it, and it answers errYield; ctx's end answers ctx's cause.
func (m *Migration) op(ctx context.Context, fn func(context.Context) error) error {
	opCtx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if !m.interruptible(cancel) {
		return errYield
	}
	defer m.interruptible(nil)
	err := m.watch(opCtx, fn)
	switch {
	case err == nil:
		return nil
	case isAmbiguous(err):
		return err
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(context.Cause(opCtx), errYield):
		return errYield
	}
	return err
}

// watch runs fn and meanwhile keeps the status and the progress current.
func (m *Migration) watch(ctx context.Context, fn func(context.Context) error) error {
	if m.opt.poll < 0 {
		return fn(ctx)
	}
	done := make(chan error, 1)
	go func() { done <- fn(ctx) }()
	for {
		select {
		case err := <-done:
			return err
		case <-m.clock.After(m.opt.poll):
			m.look(ctx)
		}
	}
}

// look refreshes what the status shows while an operation runs.
func (m *Migration) look(ctx context.Context) {
	b, err := m.opt.Subject.Backlog(ctx)
	if err != nil {
		return // the operation itself will say what is wrong
	}
	m.backlog = b
	m.slope.sample(m.clock.Now(), b)
	m.progressed(b)
	m.publish()
}

// progressed tells how far the first walk is, or the comparison of everything: what takes long.
func (m *Migration) progressed(b Backlog) {
	s, ok := m.opt.Subject.(Progresser)
	if !ok || m.state.Phase != Copy && m.state.Phase != Verify {
		return
	}
	p, last, now := s.Progress(), m.progress, m.clock.Now()
	if m.state.Phase == Verify { // what was copied is what there is to compare
		p = Progress{Objects: max(0, p.Objects-b.Unverified), TotalObjects: p.Objects}
		if dt := now.Sub(m.progressAt).Seconds(); last.Phase == Verify && dt > 0 {
			p.ObjectsPerSec = max(0, float64(p.Objects-last.Objects)/dt)
		}
		if p.ObjectsPerSec > 0 {
			p.ETA = time.Duration(float64(b.Unverified) / p.ObjectsPerSec * float64(time.Second))
		}
	}
	p.Phase = m.state.Phase
	m.progress, m.progressAt = p, now
	if f := m.opt.Events.Progress; f != nil {
		f(p)
	}
}

// Progresser is what a subject may also be: then its progress is announced about
// once a second during Copy and Verify. Called from another goroutine than these.
type Progresser interface {
	Progress() Progress
}

// try is op for what may fail and be begun again.
func (m *Migration) try(ctx context.Context, name string, fn func(context.Context) error) error {
	for n := 0; ; n++ {
		err := m.op(ctx, fn)
		switch {
		case err == nil, errors.Is(err, errYield), isAmbiguous(err), ctx.Err() != nil:
			return err
		case errors.Is(err, ErrFull):
			return m.pauseFor(ctx, fmt.Errorf("%s: %w", name, err))
		case errors.Is(err, ErrOtherSide):
			return err
		case KindOf(err) != Failed:
			return err // the subject knows what it means
		case n == tries-1:
			return &Problem{Kind: Failed, What: fmt.Sprintf("%s failed %d times", name, tries), Why: err, Hint: hintOr(err, "fsmigrate resume "+m.plan.ID)}
		}
		m.warn(name+" failed, trying again", err.Error(), HintOf(err))
		if err := m.wait(ctx, time.Second<<n); err != nil {
			return err
		}
	}
}

func hintOr(err error, hint string) string {
	if h := HintOf(err); h != "" {
		return h
	}
	return hint
}

// giveUp turns a failure of the shadow before the record into an abort, and passes
// everything else on: the application never pays (I9).
func (m *Migration) giveUp(err error) (move, error) {
	if !errors.Is(err, ErrOtherSide) || m.truth.Truth != Source {
		return move{}, err
	}
	m.cause = err
	m.state.Why = err.Error()
	m.warn("aborting: the spare has failed", err.Error(), "the source is untouched; replace the spare and plan anew")
	return move{Aborting, err.Error()}, nil
}

// wait lasts d, unless a request (errYield) or the end of ctx comes first.
func (m *Migration) wait(ctx context.Context, d time.Duration) error {
	if m.requested() {
		return errYield
	}
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-m.wake:
		return errYield
	case <-m.clock.After(d):
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return nil
	}
}

// insist runs what must be done (settle, start) and is idempotent, a few times, also
// when ctx has ended: half of it is worse than none.
func (m *Migration) insist(ctx context.Context, fn func(context.Context) error) (err error) {
	ctx = context.WithoutCancel(ctx)
	for n := range tries {
		if n > 0 {
			<-m.clock.After(time.Second << n)
		}
		if err = fn(ctx); err == nil || isAmbiguous(err) {
			return err
		}
	}
	return err
}
