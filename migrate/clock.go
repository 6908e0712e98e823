package migrate

import (
	"context"
	"errors"
	"time"
)

// Clock is the time the engine waits by. Tests inject one that they move.
type Clock interface {
	Now() time.Time
	// After delivers once d has passed.
	After(d time.Duration) <-chan time.Time
	// AfterFunc calls f once d has passed, unless stop was called before.
	AfterFunc(d time.Duration, f func()) (stop func())
}

// SystemClock is the real one.
var SystemClock Clock = systemClock{}

type systemClock struct{}

func (systemClock) Now() time.Time                         { return time.Now() }
func (systemClock) After(d time.Duration) <-chan time.Time { return time.After(d) }
func (systemClock) AfterFunc(d time.Duration, f func()) func() {
	t := time.AfterFunc(d, f)
	return func() { t.Stop() }
}

// errDeadline is the cause of a context that the cutover's deadline ended.
var errDeadline = errors.New("the cutover's deadline has passed")

// withDeadline is context.WithTimeoutCause by the injected clock. End ends it before
// its time, for a cause of its own; release lets go of the timer.
func withDeadline(ctx context.Context, c Clock, d time.Duration) (limited context.Context, end context.CancelCauseFunc, release func()) {
	limited, end = context.WithCancelCause(ctx)
	stop := c.AfterFunc(d, func() { end(errDeadline) })
	return limited, end, func() {
		stop()
		end(context.Canceled)
	}
}
