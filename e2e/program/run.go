package program

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Options say how a program runs.
type Options struct {
	Dir     string // the volume
	Log     string // where the transcripts lie: Transcript(Log, worker)
	Limit   string // a file with the number of the operation that no worker goes beyond yet; "": none
	Seed    uint64
	Workers int
	Ops     int     // of each worker
	Rate    float64 // operations a second of each worker; 0: as fast as it goes
}

// Transcript is the name of a worker's transcript.
func Transcript(log string, worker int) string { return fmt.Sprintf("%s.w%d", log, worker) }

type runner struct {
	o          Options
	transcript *os.File
}

// Run goes on with the program until it is done or ctx has ended. It answers the first
// thing that the volume did wrong; between operations nothing is open.
func Run(ctx context.Context, o Options) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	failed := make([]error, o.Workers)
	var all sync.WaitGroup
	for w := range o.Workers {
		all.Go(func() {
			if failed[w] = work(ctx, o, w); failed[w] != nil {
				cancel()
			}
		})
	}
	all.Wait()
	return errors.Join(failed...)
}

// work is one worker.
func work(ctx context.Context, o Options, w int) error {
	r, done, err := open(o, w)
	if err != nil {
		return err
	}
	defer r.transcript.Close()
	m, err := replay(o.Seed, w, done)
	if err != nil {
		return err
	}
	var pace <-chan time.Time
	if o.Rate > 0 {
		t := time.NewTicker(time.Duration(float64(time.Second) / o.Rate))
		defer t.Stop()
		pace = t.C
	}
	// The first may have been begun by a process that was killed.
	for again := true; m.done < o.Ops && r.mayGo(ctx, m.done); again = false {
		op := next(o.Seed, m)
		answer, err := r.do(m, op, again)
		if err != nil {
			return fmt.Errorf("worker %d: %w", w, err)
		}
		if _, err := fmt.Fprintf(r.transcript, "%v = %s\n", op, strconv.Quote(answer)); err != nil {
			return err
		}
		m.apply(op)
		if pace != nil {
			select {
			case <-ctx.Done():
			case <-pace:
			}
		}
	}
	return nil
}

// open opens a transcript behind its last whole line and counts its lines.
func open(o Options, w int) (*runner, int, error) {
	name := Transcript(o.Log, w)
	f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		return nil, 0, err
	}
	b, err := os.ReadFile(name)
	if err == nil {
		err = f.Truncate(int64(bytes.LastIndexByte(b, '\n') + 1)) // a torn line was never said
	}
	if err != nil {
		return nil, 0, errors.Join(err, f.Close())
	}
	return &runner{o: o, transcript: f}, bytes.Count(b, []byte{'\n'}), nil
}

// mayGo waits until the operation behind so many may be done; false: ctx has ended.
func (r *runner) mayGo(ctx context.Context, done int) bool {
	again := time.NewTicker(10 * time.Millisecond)
	defer again.Stop()
	for ctx.Err() == nil {
		if r.o.Limit == "" {
			return true
		}
		b, err := os.ReadFile(r.o.Limit)
		n, perr := strconv.Atoi(string(bytes.TrimSpace(b)))
		if err == nil && perr == nil && done < n { // a limit that is being written is none yet
			return true
		}
		select {
		case <-ctx.Done():
		case <-again.C:
		}
	}
	return false
}

// Done is how far the slowest worker got.
func Done(o Options) (int, error) {
	least := -1
	for w := range o.Workers {
		b, err := os.ReadFile(Transcript(o.Log, w))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return 0, err
		}
		if n := bytes.Count(b, []byte{'\n'}); least < 0 || n < least {
			least = n
		}
	}
	return max(least, 0), nil
}

// Stamp gives every object of a finished program a time that follows from its path, the
// entries of a directory before itself: what is left of the run's own times goes.
func Stamp(o Options) error {
	paths := []string{"."}
	for w := range o.Workers {
		m, err := replay(o.Seed, w, o.Ops)
		if err != nil {
			return err
		}
		paths = append(paths, m.sorted("")...)
	}
	slices.Reverse(paths)
	for _, p := range paths {
		ts := []unix.Timespec{{Sec: 1_000_000_000 + int64(len(p))}, {Sec: 1_000_000_000 + int64(len(p))}}
		if err := unix.UtimesNanoAt(unix.AT_FDCWD, filepath.Join(o.Dir, p), ts, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return &os.PathError{Op: "utimes", Path: p, Err: err}
		}
	}
	return nil
}
