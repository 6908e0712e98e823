package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/fsmigrate/fsmigrate/migrate"
	"github.com/fsmigrate/fsmigrate/statedir"
	"github.com/fsmigrate/fsmigrate/status"
)

// propose reads PLAN or plans SOURCE, with the policy of the command line, and checks
// the outcome.
func (a *app) propose(ctx context.Context, c *cobra.Command, arg string, o ChangeOptions) (status.Proposal, error) {
	p, err := a.planOf(ctx, c, arg, o)
	if err != nil {
		return status.Proposal{}, err
	}
	if err := p.Validate(); err != nil {
		return status.Proposal{}, err
	}
	others, err := a.others(ctx, p.ID)
	if err != nil {
		return status.Proposal{}, err
	}
	checks, forecast, err := a.wire.checks(ctx, checkRequest{Plan: p, State: a.State, Others: others})
	if err != nil {
		return status.Proposal{}, err
	}
	return status.Proposal{Plan: p, Checks: checks, Forecast: forecast}, nil
}

// theChange are the flags that say what changes: a plan file has said that already.
var theChange = []string{"to", "spare", "id", "wipe"}

func (a *app) planOf(ctx context.Context, c *cobra.Command, arg string, o ChangeOptions) (migrate.Plan, error) {
	if !isPlan(arg) {
		r, err := o.request(arg, a.Fstab)
		if err != nil {
			return migrate.Plan{}, err
		}
		return a.wire.makePlan(ctx, r)
	}
	for _, flag := range theChange {
		if c.Flags().Changed(flag) {
			return migrate.Plan{}, usagef("edit the plan, or plan anew", "--%s is in %s already", flag, arg)
		}
	}
	if err := o.Validate(); err != nil {
		return migrate.Plan{}, err
	}
	p, err := readPlan(arg)
	if err != nil {
		return migrate.Plan{}, err
	}
	o.apply(&p, c.Flags().Changed)
	return p, nil
}

// others are the migrations that have not ended, but for id, by device.
func (a *app) others(ctx context.Context, id string) (map[string]string, error) {
	ids, err := statedir.List(a.State)
	if err != nil {
		return nil, err
	}
	others := map[string]string{}
	for _, other := range ids {
		if other == id {
			continue
		}
		d, err := statedir.Open(a.State, other)
		if err != nil {
			return nil, err
		}
		s, err := d.Load(ctx)
		if err == nil && s.Phase.Ended() {
			continue
		}
		p := d.Plan() // one whose state cannot be read counts as under way
		others[p.Source.Device.Path] = other
		if p.Target.Spare.Path != "" {
			others[p.Target.Spare.Path] = other
		}
	}
	return others, nil
}

// refusal is the error of the checks that forbid a migration; nil where none does.
func refusal(p status.Proposal) error {
	refused := p.Refused()
	if len(refused) == 0 {
		return nil
	}
	var names []string
	hint := ""
	for _, c := range refused {
		names = append(names, c.Name)
		if hint == "" || c.Impossible {
			hint = c.Remedy
		}
	}
	kind := migrate.Refusal(refused)
	return &migrate.Problem{
		Kind: kind, What: fmt.Sprintf("%s is %s, nothing was changed", p.Plan.ID, kind),
		Why: fmt.Errorf("%d of %d checks: %s", len(refused), len(p.Checks), strings.Join(names, ", ")), Hint: hint,
	}
}
