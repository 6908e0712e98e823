package migrate

import "slices"

// refill gives the report of a loaded state what does not change.
func (m *Migration) refill() {
	r := &m.state.Report
	r.ID, r.Source, r.Tracker = m.plan.ID, m.plan.Source.Mount, m.plan.Tracker
	r.From, r.To = m.plan.Source.Format, m.plan.Target.Format
	r.Waived = slices.Clone(m.plan.Waive)
	if r.Waived == nil {
		r.Waived = []Waiver{}
	}
	if r.WayBack.State == "" {
		r.WayBack = WayBack{State: WayFull, Why: "nothing was cut over yet: abort leaves the source as it is"}
	}
}

// report is the report as of now.
func (m *Migration) report() Report {
	r := m.state.Report
	r.Phase, r.Truth = m.state.Phase, m.truth.Truth
	if m.truth.Truth == Source && m.state.Phase != Cutover { // later: what was predicted before it
		r.PredictedMS = ms(m.backlog.PredictedPause)
	}
	r.Timeline = slices.Clone(m.state.Timeline)
	r.WrittenAt = m.clock.Now()
	if m.opt.PeakRSS != nil {
		r.PeakRSS = max(r.PeakRSS, m.opt.PeakRSS())
	}
	return r
}
