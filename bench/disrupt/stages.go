package disrupt

import (
	"bytes"
	"encoding/json"
	"sync"
	"time"

	"github.com/fsmigrate/fsmigrate/bench/result"
	"github.com/fsmigrate/fsmigrate/status"
)

// stages takes in the events that fsmigrate run prints, and keeps when it went from one
// phase of the migration to the next.
type stages struct {
	mu   sync.Mutex
	line []byte
	list []result.Stage
}

// Write never fails: a line that is no event is none of the phases.
func (s *stages) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.line = append(s.line, b...)
	for {
		line, rest, whole := bytes.Cut(s.line, []byte("\n"))
		if !whole {
			return len(b), nil
		}
		var e status.Event
		if json.Unmarshal(line, &e) == nil && e.Event == "phase" {
			s.enter(string(e.Phase), e.At)
		}
		s.line = bytes.Clone(rest)
	}
}

func (s *stages) enter(name string, at time.Time) {
	if n := len(s.list); n > 0 {
		s.list[n-1].To = at
	}
	s.list = append(s.list, result.Stage{Name: name, From: at})
}

// until are the stages so far; the last of them lasts until then.
func (s *stages) until(end time.Time) []result.Stage {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := append([]result.Stage(nil), s.list...)
	if n := len(list); n > 0 {
		list[n-1].To = end
	}
	return list
}
