package watchdog

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fsmigrate/fsmigrate/migrate"
)

// What is said on the socket, a line each.
const (
	sayArmed  = "armed"
	sayDisarm = "disarm"
	sayFailed = "failed: " // and why
)

// byWatchdog is who a record says it is by.
const byWatchdog = "watchdog"

// lockName is held, with flock(2), by the watchdog that is alive.
const lockName = "watchdog.lock"

// Options is what a watchdog runs with.
type Options struct {
	Dir      string // the migration's state directory
	ID       string
	Seq      int           // the record number of the attempt
	Deadline time.Duration // from now until it is undone
	Engine   io.ReadWriter // the engine's socket; its end is the engine's death

	Store  migrate.Store
	Settle func(ctx context.Context, truth migrate.Side) error
	Start  func(ctx context.Context, env migrate.Env) error // starts the service; nil: there is none

	retry time.Duration // between attempts at what must be done; 0: 1 s
}

// tries is how often settling and starting are tried.
const tries = 5

// dog is a watchdog at work.
type dog struct {
	Options
	unchanged migrate.Side
}

// Run watches until it is disarmed, which is nil, or has had to act, which is nil when
// all of it went well. It holds the lock until it returns.
func Run(ctx context.Context, o Options) error {
	if o.retry == 0 {
		o.retry = time.Second
	}
	d := &dog{Options: o}
	lock, err := d.ready(ctx)
	if err != nil {
		_, _ = fmt.Fprintf(o.Engine, "%s%v\n", sayFailed, err) // the engine may be gone
		return err
	}
	defer lock.Close()
	lines := make(chan string, 1)
	go listen(o.Engine, lines) // ends with the engine's socket, or with this process
	timer := time.NewTimer(o.Deadline)
	defer timer.Stop()
	if _, err := fmt.Fprintln(o.Engine, sayArmed); err != nil {
		return fmt.Errorf("watchdog of %s: the engine left while it was armed: %w", o.ID, err)
	}
	for {
		select {
		case line, ok := <-lines:
			if !ok {
				r, err := d.commit(ctx, "the engine died")
				return d.effect(ctx, r, err)
			}
			if line == sayDisarm {
				return nil
			}
		case <-timer.C:
			if r, err := o.Store.Truth(ctx); err == nil && r.Seq >= o.Seq {
				continue // recorded in time; the rest has no deadline
			}
			r, err := d.commit(ctx, fmt.Sprintf("not recorded within %s", o.Deadline))
			if err == nil && r.By != byWatchdog {
				continue // the engine was first after all, and is alive to settle it
			}
			return d.effect(ctx, r, err)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// ready takes the lock and learns what "unchanged" means.
func (d *dog) ready(ctx context.Context) (*os.File, error) {
	lock, err := tryLock(d.Dir)
	if err != nil {
		return nil, err
	}
	r, err := d.Store.Truth(ctx)
	if err == nil && r.Seq >= d.Seq {
		err = fmt.Errorf("record %d is there already, the attempt was for %d", r.Seq, d.Seq)
	}
	if err != nil {
		_ = lock.Close()
		return nil, fmt.Errorf("watchdog of %s: %w", d.ID, err)
	}
	d.unchanged = r.Truth
	return lock, nil
}

// effect puts into effect what was decided, unless nothing could be.
func (d *dog) effect(ctx context.Context, r migrate.Record, err error) error {
	if err != nil {
		d.audit(ctx, "watchdog-failed", map[string]any{"step": "commit", "error": err.Error()})
		return fmt.Errorf("watchdog of %s: commit record %d: %w", d.ID, d.Seq, err)
	}
	d.audit(ctx, "watchdog", map[string]any{"why": r.Why, "truth": r.Truth, "by": r.By})
	err = d.insist(ctx, func() error { return d.Settle(ctx, r.Truth) })
	if err != nil { // the service would meet a volume that is not the truth, or a read-only one
		d.audit(ctx, "watchdog-failed", map[string]any{"step": "settle", "error": err.Error()})
		return fmt.Errorf("watchdog of %s: settle on %s: %w", d.ID, r.Truth, err)
	}
	if err := d.start(ctx, r.Truth); err != nil {
		d.audit(ctx, "watchdog-failed", map[string]any{"step": "start", "error": err.Error()})
		return fmt.Errorf("watchdog of %s: start the service: %w", d.ID, err)
	}
	d.audit(ctx, "watchdog-done", map[string]any{"truth": r.Truth})
	return nil
}

// commit makes "unchanged" the record of this attempt, or learns which is. What is
// ambiguous stays so; any other failure is tried again, because until it succeeds the
// application stands still.
func (d *dog) commit(ctx context.Context, why string) (r migrate.Record, err error) {
	boot, _ := os.ReadFile("/proc/sys/kernel/random/boot_id") // a record without one is still a record
	for n := 0; ; n++ {
		r, err = d.Store.Commit(ctx, migrate.Record{
			Seq: d.Seq, Truth: d.unchanged, By: byWatchdog, Why: why, At: time.Now(), BootID: string(trim(boot)),
		})
		var a *migrate.Ambiguous
		if err == nil || errors.As(err, &a) {
			return r, err
		}
		if n == 0 {
			d.audit(ctx, "watchdog-retries", map[string]any{"error": err.Error()})
		}
		if d.wait(ctx) != nil {
			return r, err
		}
	}
}

// start starts the service where the state says that it was stopped, or does not say.
func (d *dog) start(ctx context.Context, truth migrate.Side) error {
	if d.Start == nil {
		return nil
	}
	phase := migrate.Cutover
	if st, err := d.Store.Load(ctx); err == nil {
		phase = st.Phase
		if st.Service == "" {
			return nil
		}
	}
	return d.insist(ctx, func() error { return d.Start(ctx, migrate.Env{ID: d.ID, Phase: phase, Truth: truth}) })
}

func (d *dog) insist(ctx context.Context, do func() error) (err error) {
	for n := range tries {
		if n > 0 && d.wait(ctx) != nil {
			return err
		}
		if err = do(); err == nil {
			return nil
		}
	}
	return err
}

func (d *dog) wait(ctx context.Context) error {
	t := time.NewTimer(d.retry)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}

func (d *dog) audit(ctx context.Context, event string, fields map[string]any) {
	fields["seq"] = d.Seq
	_ = d.Store.Audit(ctx, event, fields) // there is nobody left to tell
}

func listen(r io.Reader, lines chan<- string) {
	defer close(lines)
	in := bufio.NewScanner(r)
	in.Buffer(make([]byte, 256), 256)
	for in.Scan() {
		lines <- in.Text()
	}
}

// tryLock takes the lock, or says that another watchdog has it.
func tryLock(dir string) (*os.File, error) {
	path := filepath.Join(dir, lockName)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return f, nil
}

func trim(b []byte) []byte {
	for len(b) > 0 && (b[len(b)-1] == '\n' || b[len(b)-1] == ' ') {
		b = b[:len(b)-1]
	}
	return b
}

// Harden makes this process the last one to be killed when memory runs out, and keeps
// its memory from being paged. What the kernel refuses, it refuses: no promise.
func Harden() {
	_ = os.WriteFile("/proc/self/oom_score_adj", []byte("-900"), 0o644)
	_ = unix.Mlockall(unix.MCL_CURRENT | unix.MCL_FUTURE | unix.MCL_ONFAULT)
}
