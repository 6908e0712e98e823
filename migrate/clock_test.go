package migrate

import (
	"testing"
	"time"
)

// A moment that a clock set before it was put right does not keep the next attempt waiting
// until the clock is there again: a rollback that on_failure wants would be days late.
func TestNotYet(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, c := range []struct {
		wait time.Duration
		want bool
	}{{-time.Hour, false}, {0, false}, {time.Second, true}, {lastRetry, true}, {lastRetry + time.Second, false}, {48 * time.Hour, false}} {
		m := &Migration{clock: &world{now: now}}
		m.state.NotBefore = now.Add(c.wait)
		if got := m.notYet(); got != c.want {
			t.Errorf("in %v: has to wait %v, want %v", c.wait, got, c.want)
		}
	}
}
