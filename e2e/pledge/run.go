package pledge

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"
)

// Options say how the application works.
type Options struct {
	Dir     string // the volume
	Log     string // what it is about to do: outside of every volume
	Marks   string // the recorder's file of marks, or a disk of acknowledgments
	Seed    uint64
	Mix     string // one of Mixes; "" is "files"
	Workers int
	First   int // the first worker's number: who comes later takes numbers that are free
	// Unsynced is a directory on the volume in which one more works that promises nothing
	// and syncs nothing; "": none.
	Unsynced string
	// Database is a directory on the volume with a database in it, to which one more
	// worker commits rows; "": none. Its mark is "row N", so it needs a file of marks.
	Database string
	Rate     float64 // operations a second of each worker; 0: as fast as it goes
	Ops      int     // of each worker, in all; 0: until ctx ends
	Lie      bool    // sync nothing, and acknowledge all the same
	// Working is called once, when each worker has done a few operations on average: who
	// waits for it has a service that answers.
	Working func()

	acks *atomic.Int64
	mix  mix
}

// few is how many operations say that it works.
const few = 3

// Run works until ctx ends, or the operations are done, and closes everything that it
// opened. It goes on where the log ends.
func Run(ctx context.Context, o Options) error {
	name := o.Mix
	if name == "" {
		name = "files"
	}
	var known bool
	if o.mix, known = mixes[name]; !known {
		return fmt.Errorf("application %q is none of %v", o.Mix, Mixes())
	}
	log, err := os.OpenFile(o.Log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	acks, err := openAcks(o.Marks)
	if err != nil {
		return err
	}
	defer acks.file.Close()
	done, err := ReadLog(o.Log)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	o.acks = new(atomic.Int64)
	failed := make([]error, o.Workers+2)
	var workers, others sync.WaitGroup
	for i, more := range o.others(ctx, acks) {
		others.Go(func() {
			if failed[o.Workers+i] = more(); failed[o.Workers+i] != nil {
				cancel()
			}
		})
	}
	for i := range o.Workers {
		w := o.First + i
		m := NewModel(w)
		if w < len(done) {
			for _, op := range done[w] {
				if err := m.Apply(op); err != nil {
					return err
				}
			}
		}
		workers.Go(func() {
			failed[i] = o.work(ctx, m, log, acks)
			if failed[i] != nil {
				cancel()
			}
		})
	}
	workers.Wait()
	cancel()
	others.Wait()
	return errors.Join(failed...)
}

// others are those who work beside the workers.
func (o Options) others(ctx context.Context, acks *acks) (more []func() error) {
	if o.Unsynced != "" {
		more = append(more, func() error { return o.dabble(ctx) })
	}
	if o.Database != "" {
		more = append(more, func() error { return o.commitRows(ctx, acks) })
	}
	return more
}

// pace makes a worker wait between operations, when it has a rate.
type pace struct{ ticker *time.Ticker }

func (o Options) pace() pace {
	if o.Rate <= 0 {
		return pace{}
	}
	return pace{time.NewTicker(time.Duration(float64(time.Second) / o.Rate))}
}

func (p pace) stop() {
	if p.ticker != nil {
		p.ticker.Stop()
	}
}

func (p pace) wait(ctx context.Context) {
	if p.ticker == nil {
		return
	}
	select {
	case <-ctx.Done():
	case <-p.ticker.C:
	}
}

// work is one worker.
func (o Options) work(ctx context.Context, m *Model, log *os.File, acks *acks) error {
	pace := o.pace()
	defer pace.stop()
	for ctx.Err() == nil && (o.Ops == 0 || m.Done < o.Ops) {
		op := o.mix.next(o.Seed, m)
		line, err := json.Marshal(op)
		if err != nil {
			return err
		}
		if _, err := log.Write(append(line, '\n')); err != nil {
			return err
		}
		if err := o.do(op); err != nil {
			return fmt.Errorf("operation %v: %w", op, err)
		}
		if err := acks.write(op); err != nil {
			return err
		}
		if err := m.Apply(op); err != nil {
			return err
		}
		if o.acks.Add(1) == int64(few*o.Workers) && o.Working != nil {
			o.Working()
		}
		pace.wait(ctx)
	}
	return nil
}

func (o Options) path(p string) string { return filepath.Join(o.Dir, p) }
