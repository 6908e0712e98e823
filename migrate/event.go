package migrate

import "time"

// Events are the typed events of a migration: a struct of funcs, any of which
// may be nil. The log, the progress bar, JSON lines, metrics and the status page
// are listeners. They are called from the engine's goroutine and must not block.
type Events struct {
	Phase     func(from, to Phase, note string)
	Checked   func(Check)
	Progress  func(Progress)
	PassDone  func(PassResult, Backlog)
	Verified  func(Proof)
	Step      func(name string)                                // a step of a cutover begins
	Cutover   func(step string, took time.Duration, err error) // one per step of a cutover, by name
	Hook      func(name string, took time.Duration, err error)
	Blocked   func([]Blocker)
	Warning   func(what, why, hint string)
	Converges func(yes bool, dirtyRate, copyRate float64)
}

// Progress is a moment of a phase that takes long.
type Progress struct {
	Phase         Phase
	Objects       int64
	Bytes         int64
	TotalObjects  int64 // estimate; 0: unknown
	TotalBytes    int64 // estimate; 0: unknown
	ObjectsPerSec float64
	BytesPerSec   float64
	ETA           time.Duration // of convergence; 0: unknown
}
