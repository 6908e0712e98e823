package copier

import "context"

// Throttle keeps a copy out of the application's way.
type Throttle struct{}

// Wait returns when n more bytes may be moved, or with the context's error. A
// nil Throttle never waits.
func (t *Throttle) Wait(ctx context.Context, n int) error { return ctx.Err() }
