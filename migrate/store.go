package migrate

import (
	"context"
	"errors"
	"fmt"
)

// The engine's side of the Store. What is written here is written to the end also
// when ctx has ended: a state half written is none, and the stop follows soon enough.

func (m *Migration) save(ctx context.Context) error {
	m.state.Report = m.report()
	m.publish()
	if err := m.opt.Store.Save(context.WithoutCancel(ctx), m.state); err != nil {
		return &Problem{
			Kind: Failed, What: fmt.Sprintf("the state of %s was not saved in %s", m.plan.ID, m.state.Phase), Why: err,
			Hint: "make the state directory writable, then: fsmigrate resume " + m.plan.ID,
		}
	}
	return nil
}

// commit makes who the truth is a record, or learns what somebody else recorded.
func (m *Migration) commit(ctx context.Context, seq int, truth Side, by, why string) (Record, error) {
	r := Record{Seq: seq, Truth: truth, By: by, Why: why, At: m.clock.Now(), BootID: m.opt.BootID}
	got, err := m.opt.Store.Commit(context.WithoutCancel(ctx), r)
	if err != nil {
		return Record{}, fmt.Errorf("commit switch record %d: %w", seq, err)
	}
	return got, nil
}

func (m *Migration) readTruth(ctx context.Context) (Record, error) {
	r, err := m.opt.Store.Truth(context.WithoutCancel(ctx))
	if err != nil {
		return Record{}, fmt.Errorf("read switch record of %s: %w", m.plan.ID, err)
	}
	return r, nil
}

func isAmbiguous(err error) bool {
	var a *Ambiguous
	return errors.As(err, &a)
}

type auditLine struct {
	event  string
	fields map[string]any
}

// audit appends to the audit log. Between fence and settle nothing is written, so
// that the log's fsync is not in the pause; those lines follow after it.
func (m *Migration) audit(ctx context.Context, event string, fields map[string]any) {
	m.deferred = append(m.deferred, auditLine{event, fields})
	if !m.quiet {
		m.flushAudit(ctx)
	}
}

func (m *Migration) flushAudit(ctx context.Context) {
	m.quiet = false
	lines := m.deferred
	m.deferred = nil
	for _, l := range lines {
		if err := m.opt.Store.Audit(context.WithoutCancel(ctx), l.event, l.fields); err != nil {
			m.warn("the audit log misses "+l.event, err.Error(), "make the state directory writable")
		}
	}
}

func (m *Migration) warn(what, why, hint string) {
	if f := m.opt.Events.Warning; f != nil {
		f(what, why, hint)
	}
}
