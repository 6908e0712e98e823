package statedir

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fsmigrate/fsmigrate/migrate"
)

// Lock makes this process the migration's engine, until Unlock or its death.
func (d *Dir) Lock() error {
	f, err := lockFile(d.Path(), "lock")
	if err != nil {
		return err
	}
	if err := flockSoon(f); err != nil {
		_ = f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return &migrate.Problem{
				Kind: migrate.IsRefused, What: fmt.Sprintf("migration %s is run by process %d", d.id, d.LockedBy()),
				Hint: "fsmigrate status " + d.id,
			}
		}
		return fmt.Errorf("lock %s: %w", d.id, err)
	}
	if err := errors.Join(f.Truncate(0), writeAt(f, strconv.Itoa(os.Getpid())+"\n")); err != nil {
		_ = f.Close()
		return fmt.Errorf("lock %s: %w", d.id, err)
	}
	d.mu.Lock()
	d.guard = f
	d.mu.Unlock()
	return nil
}

// flockSoon takes the lock unless an engine holds it: LockedBy of another process holds it
// too, for an instant.
func flockSoon(f *os.File) error {
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for deadline := time.Now().Add(200 * time.Millisecond); ; <-ticker.C {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) || time.Now().After(deadline) {
			return err
		}
	}
}

// Unlock gives the lock back. Idempotent.
func (d *Dir) Unlock() error {
	d.mu.Lock()
	f := d.guard
	d.guard = nil
	d.mu.Unlock()
	if f == nil {
		return nil
	}
	return errors.Join(f.Truncate(0), f.Close())
}

// LockedBy is the process that holds the lock, 0 when none does.
func (d *Dir) LockedBy() int {
	f, err := lockFile(d.Path(), "lock")
	if err != nil {
		return 0
	}
	defer f.Close()
	if unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB) == nil {
		return 0 // closing f gives it back
	}
	data, _ := os.ReadFile(f.Name())
	pid, _ := strconv.Atoi(strings.TrimSpace(string(data)))
	return pid
}

// SettleLock waits for the right to settle: engine, watchdog and boot take it around
// Settle, so that two of them never move mounts at once.
func (d *Dir) SettleLock(ctx context.Context) (unlock func(), err error) {
	f, err := lockFile(d.Path(), "settle.lock")
	if err != nil {
		return nil, err
	}
	// flock cannot be waited for together with a context.
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { _ = f.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			_ = f.Close()
			return nil, fmt.Errorf("lock the settling of %s: %w", d.id, err)
		}
		select {
		case <-ctx.Done():
			_ = f.Close()
			return nil, fmt.Errorf("wait to settle %s: %w", d.id, context.Cause(ctx))
		case <-ticker.C:
		}
	}
}

func lockFile(dir, name string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, name), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open lock: %w", err)
	}
	return f, nil
}

func writeAt(f *os.File, s string) error {
	_, err := f.WriteAt([]byte(s), 0)
	return err
}
