package formats

import (
	"errors"
	"fmt"
	"io"
	"sort"
	"sync"
)

var registry struct {
	sync.RWMutex
	byName map[string]Format
}

// Register adds f. Sub-packages call it from init; a second format of one name
// is a programming error and replaces nothing.
func Register(f Format) {
	registry.Lock()
	defer registry.Unlock()
	if registry.byName == nil {
		registry.byName = make(map[string]Format)
	}
	if _, dup := registry.byName[f.Name()]; !dup {
		registry.byName[f.Name()] = f
	}
}

// Lookup finds a registered format.
func Lookup(name string) (Format, bool) {
	registry.RLock()
	defer registry.RUnlock()
	f, ok := registry.byName[name]
	return f, ok
}

// All lists the registered formats by name.
func All() []Format {
	registry.RLock()
	defer registry.RUnlock()
	out := make([]Format, 0, len(registry.byName))
	for _, f := range registry.byName {
		out = append(out, f)
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Name() < out[j].Name() })
	return out
}

// ProbeAny asks every registered format. ErrNotThis says that none knows the
// bytes. Two that do is an error: a stale signature is left, and guessing which
// one is meant would be worse (I8).
func ProbeAny(r io.ReaderAt, size int64) (Volume, Format, error) {
	var (
		vol    Volume
		found  Format
		damage error
	)
	for _, f := range All() {
		v, err := f.Probe(r, size)
		switch {
		case errors.Is(err, ErrNotThis):
		case err != nil:
			if damage == nil {
				damage = fmt.Errorf("probe %s: %w", f.Name(), err)
			}
		case found != nil:
			return Volume{}, nil, fmt.Errorf("probe: both %s and %s signatures are valid", found.Name(), f.Name())
		default:
			vol, found = v, f
		}
	}
	if found != nil {
		return vol, found, nil
	}
	if damage != nil {
		return Volume{}, nil, damage
	}
	return Volume{}, nil, fmt.Errorf("probe: no known format: %w", ErrNotThis)
}
