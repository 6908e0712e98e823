package statedir

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/fsmigrate/fsmigrate/migrate"
)

func testPlan(id string) *migrate.Plan {
	p := migrate.Plan{
		Version: migrate.PlanVersion, ID: id,
		Source: migrate.SourceSpec{Mount: "/data", Format: "ext4", UUID: "u1", Device: migrate.DeviceSpec{Path: "/dev/vdb", Bytes: 1 << 30}},
		Target: migrate.TargetSpec{Format: "xfs", Spare: migrate.DeviceSpec{Path: "/dev/vdc", Bytes: 1 << 30}},
	}.WithDefaults()
	return &p
}

// ledger is what the Store answered for: everything in it must be there afterwards.
type ledger struct {
	created bool
	phase   migrate.Phase
	truth   migrate.Side
	seq     int
	events  int
	// doing is what was under way when it ended: it may be there or not.
	doingPhase migrate.Phase
	doingTruth migrate.Side
	ambiguous  bool
}

// live is a life of a migration as its store sees it.
func live(f fsys, l *ledger) error {
	ctx := context.Background()
	d, err := create(f, "/", testPlan("data"))
	if err != nil {
		return err
	}
	*l = ledger{created: true, phase: migrate.Preflight, truth: migrate.Source}
	save := func(p migrate.Phase) error {
		l.doingPhase = p
		s := migrate.NewState(d.now())
		s.Phase = p
		err := d.Save(ctx, s)
		if err == nil {
			l.phase, l.doingPhase = p, ""
		}
		return err
	}
	commit := func(side migrate.Side) error {
		l.doingTruth = side
		r, err := d.Commit(ctx, migrate.Record{Seq: l.seq + 1, Truth: side, By: "engine"})
		var a *migrate.Ambiguous
		l.ambiguous = errors.As(err, &a)
		switch {
		case err == nil:
			l.truth, l.seq, l.doingTruth = r.Truth, r.Seq, ""
		case !l.ambiguous:
			l.doingTruth = "" // it promised that nothing happened
		}
		return err
	}
	audit := func() error {
		err := d.Audit(ctx, "event", map[string]any{"n": l.events})
		if err == nil {
			l.events++
		}
		return err
	}
	for _, step := range []func() error{
		audit,
		func() error { return save(migrate.Prepare) },
		func() error { return save(migrate.Cutover) },
		func() error { return commit(migrate.Source) },
		audit,
		func() error { return commit(migrate.Shadow) },
		func() error { return save(migrate.Reverse) },
		func() error { return save(migrate.Rollback) },
		func() error { return commit(migrate.Source) },
		func() error { return save(migrate.RolledBack) },
		audit,
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// judge opens what is there and holds it against the ledger.
func judge(f fsys, l ledger) error {
	names, err := f.list("/")
	if err != nil {
		return err
	}
	there := false
	for _, n := range names {
		there = there || n == "data"
	}
	if !there {
		if l.created {
			return errors.New("the directory is gone")
		}
		return nil
	}
	d, err := open(f, "/", "data")
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	if !l.created {
		l = ledger{phase: migrate.Preflight, truth: migrate.Source}
	}
	ctx := context.Background()
	s, err := d.Load(ctx)
	if err != nil {
		return err
	}
	if s.Phase != l.phase && (l.doingPhase == "" || s.Phase != l.doingPhase) {
		return fmt.Errorf("phase %s, acknowledged %s, under way %q", s.Phase, l.phase, l.doingPhase)
	}
	r, err := d.Truth(ctx)
	var a *migrate.Ambiguous
	switch {
	case errors.As(err, &a):
		if !l.ambiguous {
			return fmt.Errorf("ambiguous without need: %w", err)
		}
		if r, err = d.Decide(ctx, migrate.Shadow, "test"); err != nil {
			return fmt.Errorf("decide: %w", err)
		}
		if got, err := d.Truth(ctx); err != nil || got.Truth != migrate.Shadow || got.Seq != r.Seq {
			return fmt.Errorf("after the decision: %+v, %w", got, err)
		}
	case err != nil:
		return err
	case r.Seq == l.seq && r.Truth == l.truth:
	case l.doingTruth != "" && r.Seq == l.seq+1 && r.Truth == l.doingTruth:
	default:
		return fmt.Errorf("record %d says %s; acknowledged %d %s, under way %q", r.Seq, r.Truth, l.seq, l.truth, l.doingTruth)
	}
	if l.events > 0 {
		events, err := d.ReadAudit()
		if err != nil || len(events) < l.events {
			return fmt.Errorf("%d audit events of %d: %w", len(events), l.events, err)
		}
	}
	// It still works: the next record and a line of the log.
	if err := d.Audit(ctx, "after", nil); err != nil {
		return err
	}
	_, err = d.Commit(ctx, migrate.Record{Seq: r.Seq + 1, Truth: r.Truth, By: "recovery"})
	return err
}

// TestLoops fails or dies at the k-th call of the file system, and cuts the power after
// it, for every k until a life gets through.
func TestLoops(t *testing.T) {
	for _, mode := range []string{"fail", "fail-after", "die"} {
		for _, cut := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/cut=%v", mode, cut), func(t *testing.T) {
				k := 0
				for ; ; k++ {
					f := newMemFS()
					f.at, f.mode = k, mode
					var l ledger
					err := survive(func() error { return live(f, &l) })
					if f.fired == "" {
						if err != nil {
							t.Fatal(err)
						}
						break
					}
					for seed := range uint64(8) {
						g := f
						if cut {
							g = f.powerCut(rand.New(rand.NewPCG(seed, uint64(k))))
						}
						g.at = -1
						if err := judge(g, l); err != nil {
							t.Fatalf("call %d (%s), seed %d: %v\nledger %+v", k, f.fired, seed, err, l)
						}
						if !cut {
							break
						}
					}
				}
				if k < 40 {
					t.Fatalf("only %d calls", k)
				}
			})
		}
	}
}

func survive(f func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			if _, ok := r.(died); !ok {
				panic(r)
			}
			err = errors.New("died")
		}
	}()
	return f()
}
