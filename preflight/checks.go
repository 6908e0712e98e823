package preflight

import (
	"context"

	"github.com/fsmigrate/fsmigrate/migrate"
)

// Options are what Run needs beside the plan.
type Options struct {
	Plan  *migrate.Plan
	State string // the directory where migrations keep their state
	// Others names the migrations that have not ended, by the device they change.
	Others map[string]string
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
			c.Remedy += "; or --waive " + c.Name + "=REASON"
		}
	}
	l.checks = append(l.checks, c)
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

// Forecast is what the migration is expected to take on the target.
type Forecast struct{ Bytes, MarginBytes, Objects int64 }

// Run makes every check. An error says that it could not look, which is no verdict.
func Run(ctx context.Context, o Options) ([]migrate.Check, Forecast, error) {
	t, err := look(o.Plan)
	if err != nil {
		return nil, Forecast{}, err
	}
	l := &list{plan: o.Plan}
	for _, check := range []func(context.Context, *list, *target, *Options) error{
		checkDrift, checkSource, checkOptions, checkSpare, checkStack, checkSpace, checkState,
		checkTools, checkKernel, checkHost, checkHolders, checkBoot, checkService, checkFit,
	} {
		if err := ctx.Err(); err != nil {
			return nil, Forecast{}, err
		}
		if err := check(ctx, l, t, &o); err != nil {
			return l.checks, Forecast{}, err
		}
	}
	f := Forecast{Bytes: t.estimate.UsedBytes, MarginBytes: t.estimate.MarginBytes, Objects: t.estimate.Inodes}
	return l.checks, f, nil
}
