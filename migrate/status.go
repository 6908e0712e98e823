package migrate

import (
	"fmt"
	"maps"
	"slices"
	"time"
)

// Status is what an operator reads at three in the morning.
type Status struct {
	ID        string    `json:"id"`
	Source    string    `json:"source"` // the mount point
	From      string    `json:"from"`
	To        string    `json:"to"`
	Phase     Phase     `json:"phase"`
	Since     time.Time `json:"since"`
	Running   bool      `json:"running"`
	Silent    string    `json:"engine_silent,omitempty"` // an engine is there and does not answer: who it is. What is said is then of the state directory
	Paused    bool      `json:"paused,omitempty"`
	Why       string    `json:"why,omitempty"` // why it is paused, aborting or rolling back
	Service   string    `json:"service,omitempty"`
	Policy    string    `json:"policy"`
	Attempts  int       `json:"attempts,omitempty"`
	NotBefore time.Time `json:"next_attempt,omitzero"`

	Truth     Side     `json:"truth"`
	TruthSeq  int      `json:"truth_record"`
	TruthBy   string   `json:"truth_by"`
	Device    string   `json:"truth_device"` // a hint; DeviceIDs name it
	DeviceIDs []string `json:"truth_device_ids,omitempty"`

	Proof Proof `json:"proof"` // n/n verified, different, waived

	Progress *Progress `json:"progress,omitempty"` // of the first walk, or of the comparison of everything, while it lasts

	DirtyUnits     int64     `json:"dirty_units"`
	DirtyBytes     int64     `json:"dirty_bytes"`
	Unverified     int64     `json:"unverified"`
	Trend          string    `json:"trend"` // falling, steady, rising
	DirtyRate      float64   `json:"dirty_bytes_per_second"`
	CopyRate       float64   `json:"copied_bytes_per_second"`
	Converging     bool      `json:"converging"`
	ETASeconds     float64   `json:"eta_seconds,omitempty"` // of convergence; 0: not known
	PredictedMS    float64   `json:"predicted_pause_ms"`
	BudgetMS       float64   `json:"pause_budget_ms"`
	ConsistentAsOf time.Time `json:"consistent_as_of,omitzero"` // the other side equals the truth as of then

	Reboot   string    `json:"reboot_now"`
	WayBack  WayBack   `json:"way_back"`
	Blockers []Blocker `json:"blockers,omitempty"`
	Next     string    `json:"next"` // command
	Undo     string    `json:"undo"` // command
	Report   Report    `json:"report"`
	Timeline []Step    `json:"timeline"`
}

// view is what Status is made of: a copy, so that readers never meet the engine's own.
type view struct {
	plan     *Plan
	state    State
	truth    Record
	backlog  Backlog
	progress Progress
	trend    string
	diverge  bool
	eta      time.Duration
	blockers []Blocker
	wayBack  WayBack
	ended    bool
}

// publish gives readers the state of now.
func (m *Migration) publish() {
	v := view{
		plan: &m.plan, state: m.state, truth: m.truth, backlog: m.backlog, progress: m.progress, trend: m.slope.trend(),
		diverge: m.slope.diverging, eta: m.slope.eta(), blockers: slices.Clone(m.blockers), wayBack: m.state.Report.WayBack,
	}
	v.state.Timeline = slices.Clone(m.state.Timeline)
	v.state.Report = m.report()
	m.mu.Lock()
	v.ended = m.ended
	m.view = v
	m.mu.Unlock()
}

// Status says where the migration stands. Safe from any goroutine.
func (m *Migration) Status() Status {
	m.mu.Lock()
	v, running, recovered := m.view, m.started && !m.ended, m.recovered
	m.mu.Unlock()
	s := StatusOf(*v.plan, v.state, v.truth)
	s.Running = running
	if running && !recovered && (s.Phase == Hold || s.Phase == Verify) {
		s.Phase = CatchUp // nobody followed the changes until now
	}
	b := v.backlog
	s.DirtyUnits, s.DirtyBytes, s.Unverified = b.Units, b.Bytes, b.Unverified
	s.DirtyRate, s.CopyRate = b.DirtyRate, b.CopyRate
	s.PredictedMS, s.ConsistentAsOf = ms(b.PredictedPause), b.ConsistentAsOf
	s.Trend, s.Converging, s.ETASeconds = v.trend, !v.diverge, v.eta.Seconds()
	s.Blockers = v.blockers
	if s.Phase == v.progress.Phase { // Copy or Verify
		s.Progress = &v.progress
	}
	return s
}

// StatusOf is the status of a migration that nobody runs now, from its durable state.
func StatusOf(p Plan, st State, truth Record) Status {
	p = p.WithDefaults()
	s := Status{
		ID: p.ID, Source: p.Source.Mount, From: p.Source.Format, To: p.Target.Format,
		Phase: st.Phase, Since: st.Since, Paused: st.Paused, Why: st.Why, Service: st.Service,
		Policy: p.Cutover.Policy, Attempts: st.Attempt, NotBefore: st.NotBefore,
		Truth: truth.Truth, TruthSeq: truth.Seq, TruthBy: truth.By,
		Proof: st.Report.Proof, PredictedMS: st.Report.PredictedMS, BudgetMS: ms(time.Duration(p.Cutover.PauseBudget)),
		Trend: "steady", Converging: true, WayBack: st.Report.WayBack, Report: st.Report, Timeline: st.Timeline,
	}
	d := p.Source.Device
	if truth.Truth == Shadow {
		d = p.Target.Spare
	}
	s.Device, s.DeviceIDs = d.Path, d.IDs
	def(&s.Device, d.File)
	s.Reboot = reboot(p, st, truth)
	s.Next, s.Undo = commands(p.ID, st)
	return s
}

// reboot says what happens if the machine goes down now.
func reboot(p Plan, st State, truth Record) string {
	switch {
	case truth.Truth == "":
		return "not known: the switch record was not read"
	case st.Phase == Preflight:
		return "safe: nothing was changed"
	case st.Phase.Ended():
		return "safe: the migration has ended"
	case p.Persist.Fstab == "":
		return fmt.Sprintf("the %s stays the truth, but %s is not in fstab: mount it by hand, then resume", truth.Truth, p.Source.Mount)
	case st.Phase == Cutover || st.Phase == Rollback:
		return fmt.Sprintf("safe: before the record it is undone, after it finished; the %s is the truth now", truth.Truth)
	}
	if p.Persist.NoSuper {
		return fmt.Sprintf("safe: the boot mounts the %s; resume it then: fsmigrate resume %s", truth.Truth, p.ID)
	}
	return fmt.Sprintf("safe: the boot mounts the %s, and fsmigrate@%s.service resumes where run --detach enabled it; else: fsmigrate resume %s",
		truth.Truth, p.ID, p.ID)
}

var nextCommand = map[Phase][2]string{ // next, undo
	Preflight: {"wait %s --for hold", "abort %s"}, Prepare: {"wait %s --for hold", "abort %s"}, Copy: {"wait %s --for hold", "abort %s"},
	CatchUp: {"wait %s --for hold", "abort %s"}, Verify: {"wait %s --for hold", "abort %s"},
	Hold: {"cutover %s", "abort %s"}, Cutover: {"wait %s --for reverse", ""},
	Reverse: {"finalize %s", "rollback %s"}, Rollback: {"wait %s --for done", ""},
	Finalizing: {"wait %s --for done", ""}, Aborting: {"wait %s --for done", ""},
}

// Commands lists the phases that name a next or an undo command. For documents and tests.
func Commands() []Phase { return slices.Sorted(maps.Keys(nextCommand)) }

func commands(id string, st State) (next, undo string) {
	c := nextCommand[st.Phase]
	fill := func(s string) string {
		if s == "" {
			return ""
		}
		return "fsmigrate " + fmt.Sprintf(s, id)
	}
	next, undo = fill(c[0]), fill(c[1])
	if st.Paused {
		next = fill("resume %s")
	}
	if st.Phase == Reverse && st.Report.WayBack.State != WayFull && st.Report.WayBack.State != "" {
		undo = ""
	}
	return next, undo
}
