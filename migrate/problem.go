package migrate

import "errors"

// Kind is what a failure means to whoever waits for the exit code.
type Kind string

// The kinds, with the exit code that the command gives them.
const (
	Failed      Kind = "error"       // 1
	Usage       Kind = "usage"       // 2
	IsRefused   Kind = "refused"     // 3
	Impossible  Kind = "impossible"  // 4
	WasAborted  Kind = "aborted"     // 5: aborted, source is the truth
	WasReverted Kind = "rolled-back" // 6: rolled back, as asked
	Stopped     Kind = "stopped"     // 7: stopped, resumable
	Differs     Kind = "differs"     // 8
)

// Problem is an error made for a tired operator: what, why, hint.
type Problem struct {
	Kind Kind
	What string // one line: what happened, naming the object
	Why  error  // the cause; nil where What says it all
	Hint string // what to do, a command where there is one
}

func (p *Problem) Error() string {
	if p.Why == nil {
		return p.What
	}
	return p.What + ": " + p.Why.Error()
}

func (p *Problem) Unwrap() error { return p.Why }

// KindOf finds the kind of err: that of the first Problem in its chain, Failed otherwise.
func KindOf(err error) Kind {
	var p *Problem
	if errors.As(err, &p) {
		return p.Kind
	}
	return Failed
}

// HintOf finds the first hint in err's chain.
func HintOf(err error) string {
	for err != nil {
		var p *Problem
		if !errors.As(err, &p) {
			return ""
		}
		if p.Hint != "" {
			return p.Hint
		}
		err = p.Why
	}
	return ""
}
