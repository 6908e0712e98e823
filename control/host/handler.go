package host

import (
	"context"
	"time"

	"github.com/fsmigrate/fsmigrate/control"
	"github.com/fsmigrate/fsmigrate/migrate"
	"github.com/fsmigrate/fsmigrate/status"
)

var _ control.Handler = (*Host)(nil)

// Do answers a client: Status with one document, Watch with a document each second and
// at every change of phase, a request to the engine with the events until its outcome.
func (h *Host) Do(ctx context.Context, do control.Verb, who string, emit func(any)) (any, error) {
	switch do {
	case control.Status:
		return h.engine.Status(), nil
	case control.Watch:
		return h.watch(ctx, emit)
	}
	events := h.subscribe()
	defer h.unsubscribe(events)
	answer := make(chan error, 1)
	go func() { // ends with ctx at the latest, and its answer is taken before we leave
		answer <- h.engine.Request(ctx, migrate.Request{Kind: migrate.RequestKind(do), Who: who})
	}()
	for {
		select {
		case e := <-events:
			emit(e)
		case err := <-answer:
			for len(events) > 0 {
				emit(<-events)
			}
			if err != nil {
				return nil, err
			}
			return h.outcome(ctx, events), nil
		}
	}
}

// outcome is the status after a request that succeeded. The answer may come before the
// phase that it leads to is entered.
func (h *Host) outcome(ctx context.Context, events <-chan status.Event) migrate.Status {
	for {
		s := h.settled(ctx)
		if s.Phase != migrate.Cutover && s.Phase != migrate.Rollback {
			return s
		}
		select {
		case <-events:
		case <-h.over:
			return h.settled(ctx)
		case <-ctx.Done():
			return s
		}
	}
}

func (h *Host) watch(ctx context.Context, emit func(any)) (any, error) {
	events := h.subscribe()
	defer h.unsubscribe(events)
	t := time.NewTicker(time.Second)
	defer t.Stop()
	for {
		emit(h.settled(ctx))
		for waiting := true; waiting; {
			select {
			case e := <-events:
				waiting = e.Event != "phase"
			case <-t.C:
				waiting = false
			case <-h.over:
				return h.settled(ctx), nil
			case <-ctx.Done():
				return nil, context.Cause(ctx)
			}
		}
	}
}

// settled is the status; that of an end only when the files are written that a script
// which waited for it reads next.
func (h *Host) settled(ctx context.Context) migrate.Status {
	s := h.engine.Status()
	if s.Phase.Ended() {
		select {
		case <-h.files:
		case <-ctx.Done():
		}
	}
	return s
}

func (h *Host) subscribe() chan status.Event {
	c := make(chan status.Event, depth)
	h.mu.Lock()
	h.subscribers[c] = true
	h.mu.Unlock()
	return c
}

func (h *Host) unsubscribe(c chan status.Event) {
	h.mu.Lock()
	delete(h.subscribers, c)
	h.mu.Unlock()
}
