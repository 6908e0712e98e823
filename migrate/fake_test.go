package migrate

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

// world is a machine in memory: two volumes, an application that writes to
// whichever is in place whenever nobody looks, a service, a store and a watchdog. It
// survives the engine; what a process holds is in fakeSubject.
type world struct {
	now   time.Time
	rng   *rand.Rand
	erofs bool // the application is not stopped by anybody

	vol      map[Side]map[string]int
	writable map[Side]bool
	inPlace  Side
	running  bool           // the service
	acked    map[string]int // what the application was told is written; 0: deleted
	dirty    map[string]bool
	verified map[string]bool
	hears    map[Side]bool // changes of that side are marked
	missed   bool          // a change was not heard: only a rescan helps
	made     bool          // the shadow exists
	released bool
	next     int

	state   State
	records []Record
	audit   []string
	armed   int // the watchdog's record number; 0: not armed
	lost    func(error)

	ops    int
	log    []string
	fault  fault
	fired  bool
	broken error // an invariant that did not hold

	stick   map[string]bool // keys that never come out equal
	busy    int             // fences that find a holder
	unwell  int             // health checks that fail
	full    int             // copies that find no space
	preflit []Check
	blocks  []Blocker
	pause   time.Duration // predicted
	onOp    func(name string)
	timers  []*timer
	tick    func() // called when the engine waits
}

// fault is what happens at the k-th operation.
type fault struct {
	mode string // "", fail, fail-after, die, watchdog
	at   int
}

var errInjected = errors.New("injected")

type crash struct{}

func newWorld(seed uint64, f fault) *world {
	w := &world{
		now: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC), rng: rand.New(rand.NewPCG(seed, 1)), fault: f,
		vol:      map[Side]map[string]int{Source: {}, Shadow: {}},
		writable: map[Side]bool{Source: true}, inPlace: Source, running: true,
		acked: map[string]int{}, dirty: map[string]bool{}, verified: map[string]bool{}, hears: map[Side]bool{},
		records: []Record{{Truth: Source, By: "engine"}},
	}
	w.state = NewState(w.now)
	for range 10 {
		w.app()
	}
	return w
}

// app is the application: one acknowledged write, if it can.
func (w *world) app() {
	if !w.running && !w.erofs || !w.writable[w.inPlace] {
		return
	}
	w.next++
	key, val := fmt.Sprint("k", w.rng.IntN(12)), w.next
	if w.rng.IntN(5) == 0 {
		val = 0
	}
	put(w.vol[w.inPlace], key, val)
	w.acked[key] = val
	delete(w.verified, key)
	if w.hears[w.inPlace] {
		w.dirty[key] = true
	} else {
		w.missed = true
	}
}

func put(m map[string]int, key string, val int) {
	if val == 0 {
		delete(m, key)
		return
	}
	m[key] = val
}

func (w *world) truth() Side { return w.records[len(w.records)-1].Truth }

// check is the side of the oracle that holds at every instant.
func (w *world) check(when string) {
	if w.broken != nil {
		return
	}
	if w.writable[Source] && w.writable[Shadow] {
		w.broken = fmt.Errorf("%s: both sides are writable", when)
	}
	if w.writable[w.truth().Other()] && w.writable[w.inPlace] && w.inPlace != w.truth() {
		w.broken = fmt.Errorf("%s: the %s is writable, and it is not the truth", when, w.inPlace)
	}
	now := w.vol[w.truth()]
	for key, want := range w.acked {
		if got := now[key]; got != want {
			w.broken = fmt.Errorf("%s: acknowledged %s=%d, the truth (%s) has %d", when, key, want, w.truth(), got)
			return
		}
	}
}

// op is one operation of the engine: the application goes first, then the fault.
// The returned func wraps the error that the operation's effect ends with.
func (w *world) op(name string) (after func(error) error, err error) {
	w.now = w.now.Add(10 * time.Millisecond)
	w.fire()
	w.app()
	w.check("before " + name)
	k := w.ops
	w.ops++
	w.log = append(w.log, name)
	if w.onOp != nil {
		w.onOp(name)
	}
	after = func(err error) error { w.check("after " + name); w.app(); return err }
	if k != w.fault.at {
		return after, nil
	}
	switch w.fault.mode {
	case "fail":
		w.fired = true
		return nil, fmt.Errorf("%s: %w", name, errInjected)
	case "fail-after":
		w.fired = true
		return func(error) error { w.app(); return fmt.Errorf("%s: %w", name, errInjected) }, nil
	case "die":
		w.fired = true
		panic(crash{})
	case "watchdog":
		w.fired = true
		w.watchdog("deadline")
	case "lost":
		w.fired = true
		w.lose()
	}
	return after, nil
}

// lose kills the watchdog, if there is one.
func (w *world) lose() {
	if w.armed != 0 {
		w.armed = 0
		w.lost(errors.New("signal: killed"))
	}
}

// watchdog is the deadline, or the engine's death, as another process sees it.
func (w *world) watchdog(why string) {
	if w.armed == 0 {
		return
	}
	last := w.records[len(w.records)-1]
	if last.Seq >= w.armed && why == "deadline" {
		return
	}
	if last.Seq < w.armed {
		w.records = append(w.records, Record{Seq: w.armed, Truth: last.Truth, By: "watchdog", Why: why, At: w.now})
	}
	w.settle(w.truth())
	w.running = true
}

func (w *world) settle(truth Side) {
	w.writable[truth.Other()] = false
	w.inPlace = truth
	w.writable[truth] = true
}

// died is what the kernel does when the engine is gone.
func (w *world) died() {
	w.hears = map[Side]bool{}
	w.missed = true
	w.timers = nil
}

// boot is what a power cut and the next boot do.
func (w *world) boot() {
	w.armed = 0
	w.settle(w.truth())               // mount.fsmigrate
	w.running = w.state.Service == "" // a unit that was stopped is not started behind our back
}

func (w *world) differing(a, b Side) (keys []string) {
	for i := range 12 {
		if key := fmt.Sprint("k", i); w.vol[a][key] != w.vol[b][key] || w.stick[key] {
			keys = append(keys, key)
		}
	}
	return keys
}

// Clock: waiting moves the time.

type timer struct {
	at time.Time
	f  func()
}

func (w *world) Now() time.Time { return w.now }

func (w *world) After(d time.Duration) <-chan time.Time {
	w.now = w.now.Add(d)
	w.fire()
	if w.tick != nil {
		w.tick()
	}
	c := make(chan time.Time, 1)
	c <- w.now
	return c
}

func (w *world) AfterFunc(d time.Duration, f func()) func() {
	t := &timer{w.now.Add(d), f}
	w.timers = append(w.timers, t)
	return func() { t.f = nil }
}

func (w *world) fire() {
	for _, t := range w.timers {
		if t.f != nil && !t.at.After(w.now) {
			t.f()
			t.f = nil
		}
	}
}

// Store.

type fakeStore struct{ w *world }

func (s fakeStore) Load(context.Context) (st State, err error) {
	after, err := s.w.op("load")
	if err != nil {
		return st, err
	}
	return clone(s.w.state), after(nil)
}

func (s fakeStore) Save(_ context.Context, st State) error {
	after, err := s.w.op("save " + string(st.Phase))
	if err != nil {
		return err
	}
	s.w.state = clone(st)
	return after(nil)
}

func clone(st State) State {
	st.Timeline = slices.Clone(st.Timeline)
	return st
}

func (s fakeStore) Truth(context.Context) (Record, error) {
	after, err := s.w.op("truth")
	if err != nil {
		return Record{}, err
	}
	return s.w.records[len(s.w.records)-1], after(nil)
}

func (s fakeStore) Commit(_ context.Context, r Record) (Record, error) {
	after, err := s.w.op("commit " + string(r.Truth))
	if err != nil {
		return Record{}, err
	}
	last := s.w.records[len(s.w.records)-1]
	switch {
	case r.Seq <= last.Seq:
		r = s.w.records[r.Seq]
	case r.Seq == last.Seq+1:
		s.w.records = append(s.w.records, r)
	default:
		return Record{}, fmt.Errorf("record %d after %d", r.Seq, last.Seq)
	}
	if err := after(nil); err != nil {
		return Record{}, &Ambiguous{Exact: "linked, not synced", Decide: "fsmigrate resume x --truth source|shadow", Err: err}
	}
	return r, nil
}

func (s fakeStore) Audit(_ context.Context, event string, _ map[string]any) error {
	after, err := s.w.op("audit " + event)
	if err != nil {
		return err
	}
	s.w.audit = append(s.w.audit, event)
	return after(nil)
}

// Service and watchdog.

type fakeService struct{ w *world }

func (s fakeService) Stop(ctx context.Context, _ Env) error {
	after, err := s.w.op("stop")
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return err
	}
	s.w.running = false
	return after(nil)
}

func (s fakeService) Start(ctx context.Context, e Env) error {
	after, err := s.w.op("start")
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return err
	}
	if !s.w.writable[s.w.inPlace] || e.Truth != s.w.truth() {
		s.w.broken = fmt.Errorf("service started for the %s, truth %s, in place %s, writable %v", e.Truth, s.w.truth(), s.w.inPlace, s.w.writable)
	}
	s.w.running = true
	return after(nil)
}

func (s fakeService) Health(ctx context.Context, _ Env) error {
	after, err := s.w.op("health")
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return err
	}
	if s.w.unwell > 0 {
		s.w.unwell--
		return after(errors.New("unwell"))
	}
	return after(nil)
}

type fakeWatchdog struct{ w *world }

func (d fakeWatchdog) Arm(_ context.Context, seq int, _ time.Duration, lost func(error)) error {
	after, err := d.w.op("arm")
	if err != nil {
		return err
	}
	d.w.armed, d.w.lost = seq, lost
	return after(nil)
}

func (d fakeWatchdog) Disarm() error {
	after, err := d.w.op("disarm")
	if err != nil {
		return err
	}
	d.w.armed = 0
	return after(nil)
}
