package migrate

import (
	"fmt"
	"strings"
	"time"
)

// Policy says when a cutover may begin without being asked for.
type Policy struct {
	Auto   bool // whenever it can be done
	Window bool // between From and To, local time; past midnight when To ≤ From
	From   time.Duration
	To     time.Duration
}

const policyForms = "manual, auto, window:HH:MM-HH:MM"

// ParsePolicy reads "manual", "auto" or "window:HH:MM-HH:MM".
func ParsePolicy(s string) (Policy, error) {
	switch s {
	case "manual":
		return Policy{}, nil
	case "auto":
		return Policy{Auto: true}, nil
	}
	span, ok := strings.CutPrefix(s, "window:")
	if !ok {
		return Policy{}, fmt.Errorf("%q is not one of: %s", s, policyForms)
	}
	from, to, ok := strings.Cut(span, "-")
	if !ok {
		return Policy{}, fmt.Errorf("%q lacks an end; allowed: %s", s, policyForms)
	}
	p := Policy{Window: true}
	var err error
	if p.From, err = clockTime(from); err != nil {
		return Policy{}, fmt.Errorf("%q: %w; allowed: %s", s, err, policyForms)
	}
	if p.To, err = clockTime(to); err != nil {
		return Policy{}, fmt.Errorf("%q: %w; allowed: %s", s, err, policyForms)
	}
	if p.From == p.To {
		return Policy{}, fmt.Errorf("%q: the window is empty; for any time use auto", s)
	}
	return p, nil
}

func clockTime(s string) (time.Duration, error) {
	t, err := time.Parse("15:04", s)
	if err != nil || len(s) != len("15:04") {
		return 0, fmt.Errorf("%q is not a time of day from 00:00 to 23:59", s)
	}
	return time.Duration(t.Hour())*time.Hour + time.Duration(t.Minute())*time.Minute, nil
}

// Allows reports whether a cutover may begin by itself at t. The window
// includes its first minute and excludes its last.
func (p Policy) Allows(t time.Time) bool {
	if p.Auto {
		return true
	}
	if !p.Window {
		return false
	}
	h, m, s := t.Local().Clock()
	at := time.Duration(h)*time.Hour + time.Duration(m)*time.Minute + time.Duration(s)*time.Second
	if p.From < p.To {
		return at >= p.From && at < p.To
	}
	return at >= p.From || at < p.To
}
