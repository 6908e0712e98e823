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
	Phase         Phase         `json:"phase"`
	Objects       int64         `json:"objects"`
	Bytes         int64         `json:"bytes"`
	TotalObjects  int64         `json:"total_objects,omitempty"` // estimate; 0: unknown
	TotalBytes    int64         `json:"total_bytes,omitempty"`   // estimate; 0: unknown
	ObjectsPerSec float64       `json:"objects_per_second"`
	BytesPerSec   float64       `json:"bytes_per_second"`
	ETA           time.Duration `json:"eta_ns,omitempty"` // of convergence; 0: unknown
}
