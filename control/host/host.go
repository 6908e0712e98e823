package host

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fsmigrate/fsmigrate/control"
	"github.com/fsmigrate/fsmigrate/migrate"
	"github.com/fsmigrate/fsmigrate/service"
	"github.com/fsmigrate/fsmigrate/status"
)

// Engine is a migration that can be run: *migrate.Migration.
type Engine interface {
	Run(ctx context.Context) (migrate.Outcome, error)
	Request(ctx context.Context, r migrate.Request) error
	Status() migrate.Status
}

// Options are where an engine can be seen.
type Options struct {
	Dir     string         // the state directory, locked by the caller
	Display status.Display // nil: none
	Extras  Extras
	// Advise is told each phase that is entered, and may answer lines for the display:
	// what to do next. Nil: none.
	Advise func(migrate.Status) []string
}

// Host is the world around one engine. Make it first: the engine needs its Events.
type Host struct {
	opt    Options
	copied atomic.Int64
	phase  chan struct{} // one token: the phase has changed
	over   chan struct{} // closed when the engine has ended
	files  chan struct{} // closed when report and metrics say so too

	mu          sync.Mutex
	subscribers map[chan status.Event]bool
	display     chan status.Event
	engine      Engine
}

// depth is how many events wait for a reader that is slow.
const depth = 512

// New makes a host.
func New(o Options) *Host {
	return &Host{
		opt: o, phase: make(chan struct{}, 1), over: make(chan struct{}), files: make(chan struct{}),
		subscribers: map[chan status.Event]bool{}, display: make(chan status.Event, depth),
	}
}

// Events is what the engine tells the host.
func (h *Host) Events() migrate.Events { return status.Listen(h.event) }

// Warn adds a warning of somebody else than the engine, such as a watchdog that was lost.
func (h *Host) Warn(what, why, hint string) {
	h.event(status.Event{Event: "warning", At: time.Now(), What: what, Why: why, Hint: hint})
}

func (h *Host) event(e status.Event) {
	if e.Pass != nil {
		h.copied.Add(e.Pass.Bytes)
	}
	put(h.display, e)
	h.mu.Lock()
	for c := range h.subscribers {
		put(c, e)
	}
	h.mu.Unlock()
	if e.Event == "phase" {
		select {
		case h.phase <- struct{}{}:
		default:
		}
	}
}

// put never blocks: progress has no room when the queue is half full, so that what
// matters is the last to be dropped.
func put(c chan status.Event, e status.Event) {
	if e.Event == "progress" && len(c) > cap(c)/2 {
		return
	}
	select {
	case c <- e:
	default:
	}
}

// Run runs the engine to its end, or until ctx ends, and answers as it does.
func (h *Host) Run(ctx context.Context, e Engine) (migrate.Outcome, error) {
	h.mu.Lock()
	h.engine = e
	h.mu.Unlock()
	server, err := control.Serve(h.opt.Dir, h)
	if err != nil {
		return migrate.Outcome{}, err
	}
	var wg sync.WaitGroup
	published := make(chan struct{})
	for _, work := range []func(){h.show, h.notify, func() { defer close(published); h.publish() }} {
		wg.Add(1)
		go func() {
			defer wg.Done()
			work()
		}()
	}
	outcome, runErr := e.Run(ctx)
	close(h.over)
	err = h.report(outcome)
	<-published
	close(h.files)
	err = errors.Join(err, server.Drain(2*time.Second))
	wg.Wait()
	if runErr != nil {
		if err != nil && h.opt.Display != nil { // nobody shows what comes after the end
			h.opt.Display.Event(status.Event{Event: "warning", At: time.Now(), What: "not all was written after the end", Why: err.Error(),
				Hint: "fsmigrate status says how it ended, and --json has the report"})
		}
		return outcome, runErr
	}
	return outcome, err
}

// show feeds the display, to the last event.
func (h *Host) show() {
	d := h.opt.Display
	for {
		select {
		case e := <-h.display:
			if d == nil {
				continue
			}
			d.Event(e)
			if e.Event == "phase" && h.opt.Advise != nil {
				if s := h.engine.Status(); s.Phase == e.Phase { // it may have gone on
					for _, line := range h.opt.Advise(s) {
						d.Say(line)
					}
				}
			}
		case <-h.over:
			for len(h.display) > 0 {
				if e := <-h.display; d != nil {
					d.Event(e)
				}
			}
			return
		}
	}
}

// notify tells systemd that we are up, how we stand, and that we live.
func (h *Host) notify() {
	every := service.KeepAlive()
	if every == 0 {
		every = time.Minute
	}
	t := time.NewTicker(every)
	defer t.Stop()
	_ = service.Notify("READY=1") // where nobody listens there is nobody to miss it
	for {
		s := h.engine.Status() // answers only while the engine's lock is free
		_ = service.Notify("WATCHDOG=1\nSTATUS=" + string(s.Phase) + ", truth " + string(s.Truth))
		select {
		case <-h.over:
			_ = service.Notify("STOPPING=1")
			return
		case <-t.C:
		}
	}
}

// publish keeps the metrics file.
func (h *Host) publish() {
	t := time.NewTicker(5 * time.Second)
	defer t.Stop()
	failed := false
	write := func() {
		if h.opt.Extras.Metrics == "" {
			return
		}
		err := status.WriteMetrics(h.opt.Extras.Metrics, status.Metrics(h.engine.Status(), h.copied.Load(), time.Now()))
		if err != nil && !failed {
			h.Warn("the metrics file is not written", err.Error(), "the migration goes on; make its directory writable")
		}
		failed = err != nil
	}
	for {
		write()
		select {
		case <-t.C:
		case <-h.phase:
		case <-h.over:
			write()
			return
		}
	}
}

func (h *Host) report(o migrate.Outcome) error {
	if h.opt.Extras.Report == "" || o.Report.ID == "" {
		return nil
	}
	return writeReport(h.opt.Extras.Report, o.Report)
}
