package shadow

import (
	"testing"
	"time"
)

// Set back by an hour, forward again, and further back: what counts is how far back it was.
func TestClockSteps(t *testing.T) {
	var s clockSteps
	now := time.Now()
	if s.begin(now) != now.UnixNano() || s.see(now.Add(time.Second)) != 0 {
		t.Error("a clock that only ran was set back")
	}
	for _, c := range []struct{ passed, clock, back time.Duration }{
		{time.Minute, time.Minute, 0},
		{2 * time.Minute, 2*time.Minute + time.Hour, 0}, // forward
		{3 * time.Minute, 3*time.Minute - time.Hour, time.Hour},
		{4 * time.Minute, 4 * time.Minute, time.Hour}, // what is stamped in between stays so
		{5 * time.Minute, 5*time.Minute - 2*time.Hour, 2 * time.Hour},
	} {
		if got := s.note(c.passed, c.clock); got != c.back {
			t.Errorf("after %v the clock shows %v: set back by %v, want %v", c.passed, c.clock, got, c.back)
		}
	}
	if s.begin(now); s.see(now) != 0 {
		t.Error("a new beginning remembers the old one")
	}
}
