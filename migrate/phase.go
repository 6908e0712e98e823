package migrate

// Phase is where a migration stands. It is persisted as its string; code asks
// predicates, never compares order.
type Phase string

// The phases, in the order a migration without incident goes through them.
// "Plan" is a file a person reviews, and no phase of a running migration.
const (
	Preflight  Phase = "preflight"
	Prepare    Phase = "prepare"
	Copy       Phase = "copy"
	CatchUp    Phase = "catch-up"
	Verify     Phase = "verify"
	Hold       Phase = "hold"
	Cutover    Phase = "cutover"
	Reverse    Phase = "reverse"
	Rollback   Phase = "rollback" // a cutover back, under way
	Finalizing Phase = "finalizing"
	Finalized  Phase = "finalized"
	Aborting   Phase = "aborting"
	Aborted    Phase = "aborted"
	RolledBack Phase = "rolled-back"
)

// transitions is the only place that says which phase may follow which.
var transitions = map[Phase][]Phase{
	Preflight:  {Prepare, Aborting},
	Prepare:    {Copy, Aborting},
	Copy:       {CatchUp, Aborting},
	CatchUp:    {Verify, Hold, Aborting},
	Verify:     {CatchUp, Hold, Aborting},
	Hold:       {CatchUp, Verify, Cutover, Aborting},
	Cutover:    {Hold, Reverse, Aborting},
	Reverse:    {Rollback, Finalizing},
	Rollback:   {Reverse, RolledBack},
	Finalizing: {Finalized},
	Aborting:   {Aborted},
	Finalized:  nil,
	Aborted:    nil,
	RolledBack: nil,
}

// CanFollow reports whether next may follow p.
func (p Phase) CanFollow(next Phase) bool {
	for _, q := range transitions[p] {
		if q == next {
			return true
		}
	}
	return false
}

// Known reports whether p is one of the phases above.
func (p Phase) Known() bool { _, ok := transitions[p]; return ok }

// Ended reports whether nothing follows p.
func (p Phase) Ended() bool { return p.Known() && len(transitions[p]) == 0 }

// Abortable reports whether an abort may be asked for in p.
func (p Phase) Abortable() bool { return p.CanFollow(Aborting) || p == Aborting }
