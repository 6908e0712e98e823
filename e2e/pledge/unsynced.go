package pledge

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
)

const (
	unsyncedFiles = 500      // so many that most are changed once, and lie there unsynced
	unsyncedBytes = 24 << 10 // of a file
	unsyncedFirst = 250      // operations at each start, at once
)

// dabble changes files and syncs nothing. What a power cut leaves of them on one disk has
// nothing to do with what it leaves on another: a shadow that keeps a future which
// the source never had is found by comparing the two.
func (o Options) dabble(ctx context.Context) error {
	dir := o.path(o.Unsynced)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	rng := rand.New(rand.NewPCG(o.Seed, rand.Uint64())) // each start goes on in another way
	pace := o.pace()
	defer pace.stop()
	for n := 0; ctx.Err() == nil; n++ {
		if err := dabbleOnce(dir, rng); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("without syncing: %w", err)
		}
		if n > unsyncedFirst {
			pace.wait(ctx)
		}
	}
	return nil
}

func dabbleOnce(dir string, rng *rand.Rand) error {
	name := func() string { return filepath.Join(dir, fmt.Sprintf("u%d", rng.IntN(unsyncedFiles))) }
	switch rng.IntN(10) {
	case 0:
		return os.Rename(name(), name())
	case 1:
		return os.Remove(name())
	case 2:
		return os.Truncate(name(), rng.Int64N(unsyncedBytes))
	case 3:
		return os.Chmod(name(), 0o600|os.FileMode(rng.IntN(64)))
	case 4:
		err := os.Link(name(), name())
		if errors.Is(err, os.ErrExist) {
			return nil
		}
		return err
	}
	f, err := os.OpenFile(name(), os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(fill(rng.Uint64(), 1+rng.Int64N(8000)), rng.Int64N(unsyncedBytes))
	return errors.Join(err, f.Close())
}
