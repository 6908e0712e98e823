package main

import (
	"context"
	"time"

	"github.com/fsmigrate/fsmigrate/copier"
	"github.com/fsmigrate/fsmigrate/migrate"
	"github.com/fsmigrate/fsmigrate/preflight"
	"github.com/fsmigrate/fsmigrate/status"
)

func (w world) plan(ctx context.Context, r planRequest) (migrate.Plan, error) {
	p, err := preflight.Make(ctx, preflight.Request{ID: r.ID, Source: r.Source, To: r.To, Spare: r.Spare,
		Fstab: r.Fstab, Wipe: r.Wipe, Set: r.Set, Memory: w.memory})
	if err != nil {
		return migrate.Plan{}, err
	}
	return *p, nil
}

func (w world) checks(ctx context.Context, r checkRequest) ([]migrate.Check, status.Forecast, error) {
	checks, f, err := preflight.Run(ctx, preflight.Options{Plan: &r.Plan, State: r.State, Others: r.Others, Memory: w.memory})
	return checks, status.Forecast{Bytes: f.Bytes, MarginBytes: f.MarginBytes, Objects: f.Objects,
		Copy: f.Copy, Verify: f.Verify}, err
}

func wireSurvey(ctx context.Context, paths []string) ([]status.Volume, error) {
	found, err := preflight.Survey(ctx, paths)
	if err != nil {
		return nil, err
	}
	out := []status.Volume{}
	for _, v := range found {
		out = append(out, status.Volume{Mount: v.Mount, Device: v.Device, Format: v.Format, Version: v.Version,
			Bytes: v.Bytes, Findings: status.Findings(v.Findings), Error: v.Error})
	}
	return out, nil
}

// shownDifferences bounds what a comparison prints.
const shownDifferences = 1000

func wireVerify(ctx context.Context, a, b string, report func(status.Difference)) (status.Comparison, error) {
	began := time.Now()
	var c status.Comparison
	stats, err := copier.CompareTrees(ctx, a, b, copier.CompareOptions{Workers: 4, Ignore: copier.Ignore{Atime: true}},
		func(path string, ds []copier.Difference) {
			for _, d := range ds {
				diff := status.Difference{Path: path, Field: d.Field, A: d.A, B: d.B}
				c.Differences++
				if report != nil {
					report(diff)
				}
				if len(c.Shown) < shownDifferences {
					c.Shown = append(c.Shown, diff)
				}
			}
		})
	c.Objects, c.Bytes, c.Took = stats.Objects, stats.Bytes, time.Since(began)
	return c, err
}
