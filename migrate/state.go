package migrate

import (
	"context"
	"time"
)

// State is what a migration durably is, apart from its plan and its switch
// records. It never says who is the truth: the newest switch record does (I1).
type State struct {
	Version  int       `json:"version"`
	Phase    Phase     `json:"phase"`
	Since    time.Time `json:"since"`
	Paused   bool      `json:"paused,omitempty"`
	Service  string    `json:"service,omitempty"` // intent, written first: "stopping", "stopped", "starting", "" (running, or none)
	Attempt  int       `json:"attempt,omitempty"` // cutovers begun
	Seq      int       `json:"seq,omitempty"`     // the record number that the last attempt owns; on resume an open one is closed as "unchanged"
	Want     string    `json:"want,omitempty"`    // what was asked for and not yet reached: cutover, rollback, abort, finalize
	Why      string    `json:"why,omitempty"`     // why it is paused, aborting or rolling back
	Failures int       `json:"failures,omitempty"`
	// NotBefore is the earliest moment of the next attempt that nobody asked for:
	// saved before an attempt, so that a crash in it cannot make a storm of them.
	NotBefore time.Time `json:"not_before,omitzero"`
	Timeline  []Step    `json:"timeline"`
	Report    Report    `json:"report"`
}

// StateVersion is the version of the state's layout that this code writes.
const StateVersion = 1

// NewState is the state of a migration that has not begun.
func NewState(now time.Time) State {
	return State{Version: StateVersion, Phase: Preflight, Since: now, Timeline: []Step{{Phase: Preflight, At: now}}}
}

// Step is one line of the timeline.
type Step struct {
	Phase Phase     `json:"phase"`
	At    time.Time `json:"at"`
	Note  string    `json:"note,omitempty"`
}

// Record is a switch record: the one durable statement of who is the truth.
type Record struct {
	Seq    int       `json:"seq"` // 0, 1, 2 …: the highest is in force
	Truth  Side      `json:"truth"`
	By     string    `json:"by"` // engine, watchdog, recovery
	Why    string    `json:"why,omitempty"`
	At     time.Time `json:"at"`
	BootID string    `json:"boot_id"`
}

// Store keeps a migration's durable state. statedir has the one on disk.
type Store interface {
	Load(ctx context.Context) (State, error)
	// Save replaces the state, durably: file → fsync → rename → fsync of the directory.
	Save(ctx context.Context, s State) error
	// Truth reads the newest switch record. Any doubt is an *Ambiguous error (I8).
	Truth(ctx context.Context) (Record, error)
	// Commit makes r the record r.Seq if there is none of that number yet, durably
	// (link(2), which only one of several processes can win), and returns the one in force
	// of that number: r, or the one that somebody else committed first.
	// When it fails after the link it answers *Ambiguous: neither side may become writable.
	Commit(ctx context.Context, r Record) (Record, error)
	// Audit appends one event to the audit log, durably.
	Audit(ctx context.Context, event string, fields map[string]any) error
}

// Ambiguous says that the evidence of who is the truth cannot be read: nothing was done.
type Ambiguous struct {
	Exact  string // the exact state
	Decide string // the command that decides it
	Err    error
}

func (a *Ambiguous) Error() string {
	return "ownership ambiguous, nothing done: " + a.Exact
}

func (a *Ambiguous) Unwrap() error { return a.Err }

// Service stops and starts the application around the fence.
type Service interface {
	// Stop, Start and Health are idempotent and honour the plan's time limits;
	// what they started is killed as a group past them.
	Stop(ctx context.Context, env Env) error
	Start(ctx context.Context, env Env) error
	Health(ctx context.Context, env Env) error
}

// Env is what a hook may know: FSMIGRATE_ID, FSMIGRATE_PHASE, FSMIGRATE_TRUTH.
type Env struct {
	ID    string
	Phase Phase
	Truth Side
}

// Watchdog owns the cutover's one deadline and outlives the engine. When the engine
// dies or the deadline passes, it commits "truth unchanged" under the attempt's record number; whoever
// commits first decides. Then it settles what was decided and starts the service.
//
// The deadline is that of the record: once there is a record of its number, by whomever,
// only the engine's death makes it act (a slow start hook is not run twice at once).
type Watchdog interface {
	// Arm returns when it watches. Lost is called when it ends before it is disarmed:
	// killed, or done acting because the deadline passed. At most once, from another
	// goroutine, and not after Disarm returned. It must not block.
	Arm(ctx context.Context, seq int, deadline time.Duration, lost func(error)) error
	// Disarm ends it after the record was committed and settled, and returns when it
	// has ended: one that is settling is waited for, so that two never settle at once.
	// Idempotent, also without Arm, also for one that an earlier process armed.
	Disarm() error
}

// Report is what --report writes. Times are milliseconds or seconds as named.
type Report struct {
	ID          string    `json:"id"`
	Source      string    `json:"source"`
	From        string    `json:"from"`
	To          string    `json:"to"`
	Tracker     string    `json:"tracker"`
	Phase       Phase     `json:"phase"`
	Truth       Side      `json:"truth"`
	Objects     int64     `json:"objects"`
	Bytes       int64     `json:"bytes"`
	Passes      int64     `json:"passes"`
	PauseMS     float64   `json:"pause_ms"` // of the last swap, as the next three: first moment the old truth refuses writes → new truth writable
	PredictedMS float64   `json:"predicted_pause_ms"`
	HooksMS     float64   `json:"hooks_ms"`
	GapMS       float64   `json:"gap_ms"` // stop hook begins → start hook done
	Verified    int64     `json:"verified_objects"`
	Differences int64     `json:"differences"`
	Waived      []Waiver  `json:"waived"`
	CopySeconds float64   `json:"copy_seconds"` // walk begun → shadow durable
	PeakRSS     int64     `json:"peak_rss_bytes"`
	Proof       Proof     `json:"proof"` // the one behind the fence
	ProofMS     float64   `json:"proof_ms"`
	WayBack     WayBack   `json:"way_back"`
	Examples    []string  `json:"different_examples,omitempty"`
	Timeline    []Step    `json:"timeline"`
	WrittenAt   time.Time `json:"written_at"`
}
