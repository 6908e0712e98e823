package preflight

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/fsmigrate/fsmigrate/blockdev"
	"github.com/fsmigrate/fsmigrate/formats"
	"github.com/fsmigrate/fsmigrate/migrate"
)

// Memory keeps the outcome of the walk over every object, so that planning, checking and the
// engine's own preflight, which follow one another in one run, make it once: cold, a million
// objects take minutes. All else is looked at anew each time. Its zero value remembers nothing; nil
// is a Memory that never does. It may be used by several goroutines.
type Memory struct {
	mu    sync.Mutex
	last  remembered
	walks int // made
}

// remembered is one walk, and of what.
type remembered struct {
	Of    string            `json:"of"`
	Boot  string            `json:"boot_id"`
	At    time.Time         `json:"at"`   // its end
	Took  time.Duration     `json:"took"` // nanoseconds
	Stats formats.TreeStats `json:"stats"`
	Fit   []migrate.Fit     `json:"fit"`
}

// A walk counts for as long as it took, and ten minutes for a person to read the plan. The
// tree changes while any walk lasts, so an estimate is never of one instant; what it misses
// is in the margin, and a misfit that appears later is a blocker then.
const readThePlan = 10 * time.Minute

// subject names what a census depends on.
func subject(t *target) string {
	return strings.Join([]string{t.volume.UUID, t.source.Path, t.mount.Point, t.to.Name(), fmt.Sprintf("%+v", t.limits)}, "\n")
}

// census is that of t: the remembered one where there is one, else a new one.
func (m *Memory) census(ctx context.Context, t *target) (*census, error) {
	if m == nil {
		return take(ctx, t)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	boot, err := blockdev.BootID()
	if err != nil {
		return nil, err
	}
	r := &m.last
	age := time.Since(r.At)
	if r.Of == subject(t) && r.Boot == boot && age >= 0 && age <= r.Took+readThePlan {
		return &census{limits: t.limits, stats: r.Stats, fit: r.Fit}, nil
	}
	began := time.Now()
	m.walks++
	c, err := take(ctx, t)
	if err != nil {
		return nil, err
	}
	m.last = remembered{Of: subject(t), Boot: boot, At: time.Now(), Took: time.Since(began), Stats: c.stats, Fit: c.fit}
	return c, nil
}

const censusName = "census.json"

// Leave writes what is remembered into a migration's state directory, for the engine that
// another process will be. A crash may take it: then the walk is made again.
func (m *Memory) Leave(dir string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.last.Of == "" {
		return nil
	}
	b, err := json.Marshal(m.last)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, censusName), b, 0o600)
	}
	if err != nil {
		return fmt.Errorf("leave the census of %s: %w", dir, err)
	}
	return nil
}

// Pick takes what Leave left, if anything did and it can be read: a census is for saving time.
func (m *Memory) Pick(dir string) {
	path := filepath.Join(dir, censusName)
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return
	}
	_ = os.Remove(path)
	var r remembered
	if err != nil || json.Unmarshal(b, &r) != nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.last.Of == "" {
		m.last = r
	}
}
