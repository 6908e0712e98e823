package disrupt

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/fsmigrate/fsmigrate/bench/result"
	"github.com/fsmigrate/fsmigrate/bench/work"
)

// bench is one invocation.
type bench struct {
	o     Options
	rep   *result.Report
	begun time.Time
	runs  int
	spent time.Duration // in runs
}

// group is what is compared: one scenario, one workload, some movers.
type group struct {
	scenario Scenario
	workload work.Kind
	movers   []mover
}

// show makes all measurements, in this process.
func show(ctx context.Context, o Options) (*result.Report, error) {
	if err := adopt(); err != nil {
		return nil, fmt.Errorf("adopt what children leave behind: %w", err)
	}
	defer reap()
	b := &bench{o: o, begun: time.Now(), rep: &result.Report{
		Version: result.Version, At: time.Now().UTC(), Quick: o.Quick, Product: o.Product, Machine: describe(o),
		Settings: result.Settings{Runs: o.Runs, BeforeS: o.Before.Seconds(), AfterS: o.After.Seconds(), HoldS: o.Hold.Seconds(), Policy: o.Policy},
		NotRun:   []result.NotRun{}, Cells: []*result.Cell{},
	}}
	groups := b.plan()
	for i, g := range groups {
		if err := b.group(ctx, g); err != nil {
			return nil, err
		}
		if i == 0 && len(o.Scale) > 0 { // before the lesser ones: the budget may not last for all
			if err := b.scale(ctx); err != nil {
				return nil, err
			}
		}
	}
	b.rep.Sort(Movers())
	b.rep.Compare()
	b.rep.Notes = unique(b.rep.Notes)
	b.rep.TookS = time.Since(b.begun).Seconds()
	if len(b.rep.Cells) == 0 && b.rep.Scale == nil {
		return nil, fmt.Errorf("nothing could be measured: %s", b.rep.NotRun[0].Why)
	}
	return b.rep, nil
}

// Where nothing was chosen, all movers run under these workloads, and under the others
// only the two that people compare; the scenarios beside the first have one workload.
var (
	first = []string{"mixed", "sqlite", "postgres"}
	known = []string{result.Baseline, result.Ours, "rsync two-pass"}
)

// plan is what will be run, the most telling first, and takes note of what cannot.
func (b *bench) plan() []group {
	var movers []mover
	for _, m := range catalog {
		if len(b.o.Movers) > 0 && !slices.Contains(b.o.Movers, m.name) {
			continue
		}
		if missing := m.missing(); len(missing) > 0 {
			b.omit(result.NotRun{Mover: m.name, Why: "not installed: " + strings.Join(missing, ", ")})
			continue
		}
		movers = append(movers, m)
	}
	kinds := b.kinds()
	var groups []group
	for i, s := range b.o.scenarios() {
		for _, k := range kinds {
			if len(b.o.Workloads) == 0 && i > 0 && k.Name != kinds[0].Name {
				continue
			}
			g := group{scenario: s, workload: k}
			for _, m := range movers {
				if len(b.o.Movers) == 0 && len(b.o.Workloads) == 0 && !slices.Contains(first, k.Name) && k.Name != Own && !slices.Contains(known, m.name) {
					continue
				}
				if m.applies != nil && m.applies(s) != "" {
					b.omit(result.NotRun{Scenario: s.Name, Mover: m.name, Why: m.applies(s)})
					continue
				}
				g.movers = append(g.movers, m)
			}
			if len(g.movers) > 0 {
				groups = append(groups, g)
			}
		}
		b.rep.Scenarios = append(b.rep.Scenarios, result.Scenario{Name: s.Name, From: s.From, To: s.To, Files: s.files, Says: s.Says})
	}
	// Every scenario once before more workloads: the budget may not last for all.
	lesser := func(g group) int {
		if g.workload.Name == kinds[0].Name {
			return 0
		}
		return 1
	}
	slices.SortStableFunc(groups, func(x, y group) int { return cmp.Compare(lesser(x), lesser(y)) })
	return groups
}

// kinds are the workloads that will run.
func (b *bench) kinds() []work.Kind {
	list := slices.Clone(work.Kinds)
	if b.o.Command != "" {
		own := work.Kind{Name: Own, Says: "the user's own: " + b.o.Command, Rate: b.o.Rate, Filled: b.o.Rate > 0}
		list = append([]work.Kind{own}, list...)
		if len(b.o.Workloads) == 0 {
			list = list[:1]
		}
	}
	var kinds []work.Kind
	for _, k := range list {
		if len(b.o.Workloads) > 0 && !slices.Contains(b.o.Workloads, k.Name) {
			continue
		}
		if missing := k.Missing(); len(missing) > 0 {
			b.omit(result.NotRun{Workload: k.Name, Why: "not installed: " + strings.Join(missing, ", ")})
			continue
		}
		if b.o.Rate > 0 {
			k.Rate = b.o.Rate
		}
		kinds = append(kinds, k)
		b.rep.Workloads = append(b.rep.Workloads, result.Workload{Name: k.Name, Rate: k.Rate, Says: k.Says, Filled: k.Filled})
	}
	return kinds
}

func (b *bench) omit(n result.NotRun) {
	if !slices.Contains(b.rep.NotRun, n) {
		b.rep.NotRun = append(b.rep.NotRun, n)
	}
}

// tally is a cell in the making.
type tally struct {
	runs     []result.Run
	measured []result.Measured
	failed   bool
}

// group makes the rounds of one group. Each begins with another mover.
func (b *bench) group(ctx context.Context, g group) (err error) {
	if !b.affords(b.guess()) {
		b.omit(result.NotRun{Scenario: g.scenario.Name, Workload: g.workload.Name, Why: b.over()})
		return nil
	}
	b.o.Say(fmt.Sprintf("%s, %s: %s", g.scenario.Name, g.workload.Name, g.workload.Says))
	l, err := openLab(b.o, g.scenario)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, ended(l)) }()
	tallies := make([]tally, len(g.movers))
	for round := range b.o.Runs {
		for i := range g.movers {
			k := (i + round) % len(g.movers)
			if err := b.try(ctx, l, g, g.movers[k], &tallies[k], round); err != nil {
				return err
			}
		}
	}
	if i := slices.IndexFunc(b.rep.Scenarios, func(s result.Scenario) bool { return s.Name == g.scenario.Name }); i >= 0 && l.bytes > 0 {
		b.rep.Scenarios[i].Bytes = l.bytes
	}
	for k, t := range tallies {
		if len(t.runs) == 0 {
			continue
		}
		c := &result.Cell{Scenario: g.scenario.Name, Workload: g.workload.Name, Mover: g.movers[k].name}
		result.Sum(c, t.runs, t.measured)
		b.rep.Cells = append(b.rep.Cells, c)
	}
	return nil
}

// ended closes a lab, after all that a failed run left behind has ended.
func ended(l *lab) error {
	reap()
	return l.close()
}

// try makes one run. That a mover fails is a result; that the application does is the end.
func (b *bench) try(ctx context.Context, l *lab, g group, m mover, t *tally, round int) error {
	if t.failed {
		return nil
	}
	why := result.NotRun{Scenario: g.scenario.Name, Workload: g.workload.Name, Mover: m.name}
	if !b.affords(b.guess()) {
		if len(t.runs) == 0 {
			why.Why = b.over()
			b.omit(why)
		}
		return nil
	}
	began := time.Now()
	r, measured, notes, err := once(ctx, b.o, l, g.workload, m, false)
	b.runs, b.spent = b.runs+1, b.spent+time.Since(began)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if died := (errDied{}); errors.As(err, &died) {
		return fmt.Errorf("%s under %s: %w", g.workload.Name, m.name, died.error)
	}
	for _, n := range notes {
		b.rep.Notes = append(b.rep.Notes, fmt.Sprintf("%s under %s: %s", g.workload.Name, m.name, n))
	}
	if err != nil {
		b.o.Say(fmt.Sprintf("  %-16s FAILED: %s", m.name, err))
		why.Why, why.Failed = err.Error(), true
		b.omit(why)
		t.runs, t.measured, t.failed = nil, nil, true // half a cell says nothing
		return nil
	}
	r.Round = round + 1
	t.runs, t.measured = append(t.runs, r), append(t.measured, measured)
	b.o.Say(fmt.Sprintf("  %-16s round %d: copying %6.2f s, stopped %6.2f s, longest wait %6.2f s, gap %6.2f s, total %6.2f s; load %.1f",
		m.name, r.Round, r.CopyS, r.DownS, longest(measured), r.GapS, r.TotalS, r.Load))
	return nil
}

// longest is the longest that an operation waited, from the mover's beginning on.
func longest(m result.Measured) float64 {
	ms := 0.0
	for _, p := range []result.Phase{result.Copying, result.Cutover, result.After} {
		if l := m.Phases[p].Latency(); l != nil {
			ms = max(ms, l.Max)
		}
	}
	return ms / 1e3
}

// guess is how long a run takes, from those that were made.
func (b *bench) guess() time.Duration {
	if b.runs == 0 {
		return 0
	}
	return b.spent / time.Duration(b.runs)
}

// affords reports whether what takes d would end within the budget.
func (b *bench) affords(d time.Duration) bool {
	return b.o.Budget == 0 || time.Since(b.begun)+d <= b.o.Budget
}

func (b *bench) over() string {
	return fmt.Sprintf("the time allowed (--budget %s) was over", b.o.Budget)
}
