package preflight

import (
	"context"
	"time"

	"github.com/fsmigrate/fsmigrate/migrate"
)

// Options are what Run needs beside the plan.
type Options struct {
	Plan  *migrate.Plan
	State string // the directory where migrations keep their state
	// Others names the migrations that have not ended, by the device they change.
	Others map[string]string
	Memory *Memory // of the walk over every object; nil: it is made
}

// The categories of a check, after the taxonomy that the design follows.
const (
	catHardware = "category 6: hardware"
	catKernel   = "category 6: kernel"
	catData     = "category 5: data"
	catFit      = "fit"
	catState    = "state"
	catService  = "service"
)

// list collects checks.
type list struct {
	plan   *migrate.Plan
	checks []migrate.Check
}

func (l *list) add(c migrate.Check) {
	if c.Verdict == migrate.Refused && c.Waivable {
		if reason, waived := l.plan.Waives(c.Name); waived {
			c.Verdict = migrate.Waived
			c.Remedy = "waived: " + reason
		} else if c.Remedy == "" {
			c.Remedy = "--waive " + c.Name + "=REASON"
		} else {
			c.Remedy += "; or accept it: --waive " + c.Name + "=REASON"
		}
	}
	l.checks = append(l.checks, c)
}

// verdict is that of a check made before; OK when there was none.
func (l *list) verdict(name string) migrate.Verdict {
	for _, c := range l.checks {
		if c.Name == name {
			return c.Verdict
		}
	}
	return migrate.OK
}

// ok, warn and refuse add a check with that verdict.
func (l *list) ok(name, category, found, need string) {
	l.add(migrate.Check{Name: name, Category: category, Found: found, Need: need, Verdict: migrate.OK})
}

func (l *list) warn(name, category, found, need, remedy string) {
	l.add(migrate.Check{Name: name, Category: category, Found: found, Need: need, Verdict: migrate.Warning, Remedy: remedy})
}

func (l *list) refuse(name, category, found, need, remedy string) {
	l.add(migrate.Check{Name: name, Category: category, Found: found, Need: need, Verdict: migrate.Refused, Remedy: remedy})
}

func (l *list) refuseUnlessWaived(name, category, found, need, remedy string) {
	l.add(migrate.Check{Name: name, Category: category, Found: found, Need: need, Verdict: migrate.Refused, Remedy: remedy, Waivable: true})
}

// Forecast is what the migration is expected to take on the target, and how long.
type Forecast struct {
	Bytes, MarginBytes, Objects int64
	Copy, Verify                time.Duration
}

// Run makes every check. An error says that it could not look, which is no verdict.
func Run(ctx context.Context, o Options) ([]migrate.Check, Forecast, error) {
	t, err := look(o.Plan)
	if err != nil {
		return nil, Forecast{}, err
	}
	t.rates.begin(t)
	l := &list{plan: o.Plan}
	for _, check := range []func(context.Context, *list, *target, *Options) error{
		checkDrift, checkSource, checkMounts, checkOptions, checkQuota, checkSpare, checkSectors, checkStack, checkHealth,
		checkSpace, checkConvergence, checkState, checkTools, checkKernel, checkHost, checkHolders, checkBoot, checkService,
		checkFit,
	} {
		if err := ctx.Err(); err != nil {
			return nil, Forecast{}, err
		}
		if err := check(ctx, l, t, &o); err != nil {
			return l.checks, Forecast{}, err
		}
	}
	f := Forecast{Bytes: t.estimate.UsedBytes, MarginBytes: t.estimate.MarginBytes, Objects: t.estimate.Inodes,
		Copy: t.copyTime(), Verify: t.verifyTime()}
	return l.checks, f, nil
}

// Verdict is the worst of the checks.
func Verdict(checks []migrate.Check) migrate.Verdict {
	worst := migrate.OK
	for _, c := range checks {
		if c.Verdict == migrate.Refused {
			return migrate.Refused
		}
		if c.Verdict == migrate.Warning {
			worst = migrate.Warning
		}
	}
	return worst
}
