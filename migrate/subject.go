package migrate

import (
	"context"
	"errors"
	"time"
)

// Side names one of the two volumes. Which of them is the truth is decided by
// the newest switch record and by nothing else (I1).
type Side string

// The two sides. Source is the volume in the old format for the whole
// migration, also after it ceased to be the truth.
const (
	Source Side = "source"
	Shadow Side = "shadow"
)

// Other is the side that s is not.
func (s Side) Other() Side {
	if s == Source {
		return Shadow
	}
	return Source
}

// Subject is data that changes its format: a tree of files, a key-value store,
// a directory of images. The engine drives it and knows nothing else of it.
//
// Every method may be called again after it failed, and after a crash at any
// instant (a new Subject is then opened over the same state, and Settle and
// Prepare are called before anything else). No method waits without observing ctx,
// but for a system call that the kernel does not interrupt.
//
// Directions: until the switch record the truth is Source and changes flow to
// Shadow; in Reverse it is the other way round. Methods that take `to` follow
// or cut over towards that side.
type Subject interface {
	// Preflight proves that the plan can work here and now and changes nothing.
	// A refused check is a value, not an error; the error is for a failure to look.
	Preflight(ctx context.Context) ([]Check, error)

	// Prepare lays the new format down on the spare (once: a shadow that holds
	// this migration's mark is kept), mounts it privately, opens the journal and
	// starts the tracker. When it returns, no later change of the truth is missed.
	// Called on every start with the side that is followed *towards*: Shadow
	// before the record, Source in Reverse. Called again after a cutover was undone,
	// after Settle: a tracker that still hears the truth is kept, and one that did not
	// hear everything since the fence counts as lost (a bounded rescan).
	// In Reverse with a plan that keeps the old volume as it was, it is called only when
	// the service failed and the migration has to go back.
	Prepare(ctx context.Context, to Side) error

	// Copy is one walk of the truth. It resumes: what is durably clean is not
	// copied again.
	Copy(ctx context.Context) error

	// Pass copies the units that were dirty when it began, then makes what it
	// cleaned durable in I3's order.
	Pass(ctx context.Context) (PassResult, error)

	// Backlog says what remains and how fast it grows. Cheap: called every second,
	// also while Prepare, Copy, Pass or Verify runs (from another goroutine).
	Backlog(ctx context.Context) (Backlog, error)

	// Verify compares every object that is not yet verified-clean, reading the
	// other side through its own reader. Differences found are dirty afterwards.
	Verify(ctx context.Context) (Proof, error)

	// Mirror enters or leaves mirror mode. A watch answers ErrNoMirror.
	Mirror(ctx context.Context, on bool) error

	// Fence is the moment after which nobody but us can change the truth.
	// It returns a *Busy error, with the truth untouched, when somebody still could.
	Fence(ctx context.Context, to Side) error

	// Drain empties the tracker behind the fence, copies the last units, syncs
	// both sides and runs the proof that nothing was missed (I5).
	Drain(ctx context.Context, to Side) (Proof, error)

	// SwapIn puts side `to` in place, read-only, such that Settle for either
	// side can finish or undo it. The switch record follows. It refuses when the fence
	// is no longer in force: the watchdog may have undone it.
	SwapIn(ctx context.Context, to Side) error

	// Settle makes `truth` the volume in place, mounted as the plan says and
	// writable, and finishes or undoes whatever an interrupted cutover left. It looks
	// at what is, not at what was meant to be; it is idempotent; it is what the watchdog,
	// resume and the boot call. It does not start the tracker.
	Settle(ctx context.Context, truth Side) error

	// Follow starts following the new truth after a cutover, towards the other
	// side. It is called between SwapIn and the record, so that the first write
	// after the release is already heard (no gap: I2). Not called by a rollback. With a
	// plan that keeps the old volume, or finalizes at cutover, it only marks: until the
	// service is well on the new volume, its failure may mean going back, and then Pass
	// and Drain bring its writes along.
	Follow(ctx context.Context, to Side) error

	// WayBack says whether the side that is not the truth can still become it.
	WayBack(ctx context.Context) WayBack

	// Finalize ends the migration on the truth: tracker stopped, the other
	// volume released (proven by opening it exclusively) and left alone.
	Finalize(ctx context.Context, truth Side) error

	// Abort gives up the shadow and everything that Prepare set up. Never called
	// when the truth is Shadow.
	Abort(ctx context.Context) error

	// Close stops everything in this process and leaves the state resumable.
	Close() error
}

// Guard is what a subject may also be: then it is asked from time to time in Reverse
// whether anybody but us can write the side that is not the truth (I10). It closes such a road
// and tells of it; the error is for one that it could not close.
type Guard interface {
	Guard(ctx context.Context, old Side) error
}

// ErrFull is in the chain of an error of Prepare, Copy, Pass or Verify when the
// other side (or the state directory) has no space left: the migration pauses.
var ErrFull = errors.New("no space left")

// ErrOtherSide is in the chain of an error when the side that is not the truth cannot
// be relied on any more (I/O errors): before the record the migration aborts, in
// Reverse the way back is closed.
var ErrOtherSide = errors.New("the side that is not the truth has failed")

// ErrNoMirror is the answer of a tracker that observes changes after the fact.
var ErrNoMirror = errors.New("this tracker cannot mirror")

// Busy says who keeps the truth from being fenced, or a volume from being used alone.
type Busy struct {
	What    string // the volume
	Holders []Holder
}

func (b *Busy) Error() string { return b.What + " is in use" }

// Holder is a process (or the kernel, PID 0) that keeps a volume busy.
type Holder struct {
	PID     int    `json:"pid"`
	Command string `json:"command"`
	Path    string `json:"path"`
	Kind    string `json:"kind"` // write, read, cwd, root, map, exe, swap, loop, export, mount, device
	Writes  bool   `json:"writes"`
}

// PassResult is what one pass did.
type PassResult struct {
	Units   int64
	Bytes   int64
	Took    time.Duration
	Differs int64 // objects that a read-back found different and that are dirty again
}

// Backlog is what lies between the two sides now.
type Backlog struct {
	Units          int64         // dirty units
	Bytes          int64         // upper bound of the bytes behind them
	DirtyRate      float64       // bytes/s marked, over the last 10 s
	CopyRate       float64       // bytes/s copied, over the last 10 s
	PredictedPause time.Duration // of a cutover that began now
	Unverified     int64         // objects that are not verified-clean; the dirty ones may be counted, they are read back behind the fence
	Blockers       []Blocker     // what forbids a cutover now
	ConsistentAsOf time.Time     // the other side equals the truth as of this moment; zero: never yet
}

// Blocker is one reason against a cutover, with the class that a waiver names.
//
// A firm one stands against any waiver. A waiver is given before anybody has seen the
// object it will be for, so it can only be for what is then left behind by name, and
// counted as waived in the proof behind the fence (I5). It is no consent to a copy
// under the object's own name that is not the object.
type Blocker struct {
	Class  string `json:"class"`
	Object string `json:"object"`
	Why    string `json:"why"`
	Hint   string `json:"hint"`
	Firm   bool   `json:"firm,omitempty"`
}

// Proof is the outcome of a comparison: Objects = Verified + Different + Waived.
// One behind the fence that does not add up, or with anything different, is no proof (I5).
type Proof struct {
	Kind      string        `json:"kind"` // what proved it: "ext-inode-table", "xfs-bulkstat", "btrfs-tree-search", "lstat-walk", "read-back"
	Objects   int64         `json:"objects"`
	Verified  int64         `json:"verified"`
	Different int64         `json:"different"`
	Waived    int64         `json:"waived"`
	Bytes     int64         `json:"bytes"`
	Took      time.Duration `json:"-"`
	Examples  []string      `json:"examples,omitempty"` // at most 20 differences, "path: what"
}

// WayBack is the state of the road to the side that is not the truth.
type WayBack struct {
	State string    `json:"state"` // full, stale, closed
	Since time.Time `json:"since,omitzero"`
	Why   string    `json:"why,omitempty"`
}
