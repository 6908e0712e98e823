package churn

import "slices"

// Options say how a churn behaves.
type Options struct {
	Seed     uint64   `json:"seed"`
	Workers  int      `json:"workers"`
	Rate     float64  `json:"rate,omitempty"`     // operations a second of all workers; 0: as fast as it goes
	Objects  int      `json:"objects"`            // the number of objects it hovers about
	MaxFile  int64    `json:"max_file"`           // bytes
	MaxPath  int      `json:"max_path"`           // bytes of a path below the root
	Ops      int64    `json:"ops,omitempty"`      // ends by itself after so many; 0: never
	Tolerate bool     `json:"tolerate,omitempty"` // EROFS is retried on a reopened volume
	Without  []string `json:"without,omitempty"`  // kinds of operations left out, e.g. "project"
}

// withDefaults is the only home of the defaults.
func (o Options) withDefaults() Options {
	if o.Workers == 0 {
		o.Workers = 4
	}
	if o.Objects == 0 {
		o.Objects = 1000
	}
	if o.MaxFile == 0 {
		o.MaxFile = 1 << 20
	}
	if o.MaxPath == 0 {
		o.MaxPath = 1500
	}
	return o
}

func (o Options) without(what string) bool { return slices.Contains(o.Without, what) }
