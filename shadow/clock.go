package shadow

import (
	"sync"
	"time"
)

// clockSteps tells by how much the clock was set back since T0: by then what is younger than T0
// bears stamps from before it. What the clock was set forward makes nothing look older.
type clockSteps struct {
	mu    sync.Mutex
	since time.Time // with its monotonic reading, which no step moves
	back  time.Duration
}

// begin starts anew; it answers now in nanoseconds since 1970.
func (s *clockSteps) begin(now time.Time) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.since, s.back = now, 0
	return now.UnixNano()
}

// see looks at the clock again. It answers how far it was set back at most.
func (s *clockSteps) see(now time.Time) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.note(now.Sub(s.since), now.Round(0).Sub(s.since.Round(0)))
}

// note compares the time that has passed with what the clock says has passed.
func (s *clockSteps) note(passed, clock time.Duration) time.Duration {
	s.back = max(s.back, passed-clock)
	return s.back
}
