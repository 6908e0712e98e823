package churn

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Runner is a running churn.
type Runner struct {
	Model *Model

	dir  string
	o    Options
	log  *Log
	vol  *volume
	gate sync.RWMutex // held shared by an operation, exclusively while paused

	mu      sync.Mutex
	handles map[*Node]*handle
	fault   error

	paused bool        // Pause, Continue and Stop are called by one goroutine
	stale  atomic.Bool // the volume answered EROFS: reopen it
	ops    atomic.Int64
	done   chan struct{}
	stop   context.CancelFunc
}

// Start begins a churn on the empty directory dir with a new log.
func Start(ctx context.Context, dir, log string, o Options) (*Runner, error) {
	o = o.withDefaults()
	l, err := CreateLog(log, Header{Dir: dir, Options: o})
	if err != nil {
		return nil, err
	}
	r := &Runner{Model: NewModel(), dir: dir, o: o, log: l}
	return r, r.begin(ctx)
}

// Resume goes on with the log of an earlier churn, on the directory it names.
// Rate, Ops, Tolerate and, where given, Without are those of now.
func Resume(ctx context.Context, log string, now Options) (*Runner, error) {
	rp, err := ReadLog(log)
	if err != nil {
		return nil, err
	}
	l, err := continueLog(log, rp)
	if err != nil {
		return nil, err
	}
	o := rp.Header.Options
	o.Rate, o.Ops, o.Tolerate = now.Rate, now.Ops, now.Tolerate
	if len(now.Without) > 0 {
		o.Without = now.Without
	}
	o.Seed += uint64(rp.last) // the same seed would only collide with what is there
	r := &Runner{Model: rp.Model, dir: rp.Header.Dir, o: o, log: l}
	if err := r.settle(rp.Dangling); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return r, r.begin(ctx)
}

func (r *Runner) begin(ctx context.Context) (err error) {
	r.handles = map[*Node]*handle{}
	r.done = make(chan struct{})
	ctx, r.stop = context.WithCancel(ctx)
	if err = r.open(); err != nil {
		r.stop()
		return err
	}
	rate := newPacer(r.o.Rate)
	var wg sync.WaitGroup
	for w := range r.o.Workers {
		wg.Go(func() {
			debug.SetPanicOnFault(true) // a store past what the volume can hold is an answer, not a crash
			rng := rand.New(rand.NewPCG(r.o.Seed, uint64(w)))
			for ctx.Err() == nil && rate.wait(ctx) {
				if err := r.turn(ctx, rng, w); err != nil {
					r.fail(fmt.Errorf("worker %d: %w", w, err))
					return
				}
			}
		})
	}
	go func() {
		wg.Wait()
		r.gate.Lock()
		r.quiesce()
		r.gate.Unlock()
		r.fail(r.log.Close())
		close(r.done)
	}()
	return nil
}

// open opens the volume and logs what its root looks like.
func (r *Runner) open() (err error) {
	if r.vol, err = openVolume(r.dir); err != nil {
		return err
	}
	// Writing to the directory beneath a volume that is not mounted would
	// look like the loss of everything.
	for _, n := range r.Model.root.Entries {
		fd, err := r.vol.node(n, 0)
		if err != nil {
			return errors.Join(fmt.Errorf("%s is not the volume of the log: %w", r.dir, err), r.vol.close())
		}
		unix.Close(fd)
		break
	}
	f, err := readFacts(r.vol.root)
	if err != nil {
		return errors.Join(err, r.vol.close())
	}
	if len(r.Model.nodes) > 1 {
		return nil // the root's attributes are part of the model already
	}
	op, res := &Op{Kind: Open}, &Result{Attrs: map[int64]Attrs{RootID: f.Attrs}}
	if err = errors.Join(r.log.Begin(op), r.log.End(op, res)); err != nil {
		return err
	}
	return r.Model.Apply(op, res)
}

// turn does one operation, or a few that belong together.
func (r *Runner) turn(ctx context.Context, rng *rand.Rand, w int) error {
	if r.stale.Load() {
		if err := r.refresh(ctx); err != nil || ctx.Err() != nil {
			return err
		}
	}
	r.gate.RLock()
	defer r.gate.RUnlock()
	if ctx.Err() != nil || r.vol == nil {
		return nil // ended while it was paused
	}
	if err := r.step(rng, w); err != nil {
		return err
	}
	if n := r.ops.Add(1); r.o.Ops > 0 && n >= r.o.Ops {
		r.stop()
	}
	return nil
}

// refresh reopens the volume after EROFS, as an application that retries would.
func (r *Runner) refresh(ctx context.Context) error {
	retry := time.NewTicker(20 * time.Millisecond)
	defer retry.Stop()
	select {
	case <-ctx.Done():
		return nil
	case <-retry.C:
	}
	r.gate.Lock()
	defer r.gate.Unlock()
	if !r.stale.Swap(false) {
		return nil
	}
	r.quiesce()
	return r.open()
}

// Pause waits for the operations in flight and closes every descriptor and
// mapping: nothing of the churn keeps the volume busy until Resume.
func (r *Runner) Pause() {
	r.gate.Lock()
	r.quiesce()
	r.paused = true
}

// Continue undoes Pause. The volume may be another one by now.
func (r *Runner) Continue() {
	r.paused = false
	if err := r.open(); err != nil {
		r.fail(err)
		r.stop()
	}
	r.gate.Unlock()
}

// Stop ends the churn, closes everything and answers the first thing that the
// volume did wrong.
func (r *Runner) Stop() error {
	r.stop()
	if r.paused {
		r.paused = false
		r.gate.Unlock()
	}
	return r.Wait()
}

// Wait waits for the end.
func (r *Runner) Wait() error {
	<-r.done
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.fault
}

// Done is closed at the end.
func (r *Runner) Done() <-chan struct{} { return r.done }

// Ops counts the turns so far.
func (r *Runner) Ops() int64 { return r.ops.Load() }

func (r *Runner) fail(err error) {
	if err == nil {
		return
	}
	r.mu.Lock()
	if r.fault == nil {
		r.fault = err
	}
	r.mu.Unlock()
	r.stop()
}

// quiesce closes everything. The gate is held exclusively.
func (r *Runner) quiesce() {
	if r.vol == nil {
		return
	}
	for n, h := range r.handles {
		h.close()
		n.held = nil
		delete(r.handles, n)
	}
	r.fail(r.vol.close())
	r.vol = nil
	op := &Op{Kind: Quiesce}
	r.fail(errors.Join(r.log.Begin(op), r.log.End(op, &Result{})))
}

// pacer spreads operations over time.
type pacer struct {
	every time.Duration
	mu    sync.Mutex
	next  time.Time
}

func newPacer(rate float64) *pacer {
	p := &pacer{next: time.Now()}
	if rate > 0 {
		p.every = time.Duration(float64(time.Second) / rate)
	}
	return p
}

// wait returns false when ctx ended first.
func (p *pacer) wait(ctx context.Context) bool {
	if p.every == 0 {
		return true
	}
	p.mu.Lock()
	now := time.Now()
	if p.next.Before(now) {
		p.next = now
	}
	at := p.next
	p.next = p.next.Add(p.every)
	p.mu.Unlock()
	t := time.NewTimer(time.Until(at))
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
