package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/fsmigrate/fsmigrate/bench/result"
	"github.com/fsmigrate/fsmigrate/control/host"
	"github.com/fsmigrate/fsmigrate/migrate"
	"github.com/fsmigrate/fsmigrate/statedir"
	"github.com/fsmigrate/fsmigrate/status"
)

// fakeWiring is everything real but the volumes: the engine, the state directory, the
// sockets, the watchdog and the hooks work; the subject remembers what it was told in
// the file "subject" of the state directory. What it should do is in files too, in the
// directory FAKE, so that one process can change it for another.
func fakeWiring() wiring {
	return wiring{
		makePlan: fakePlan,
		checks: func(_ context.Context, r checkRequest) ([]migrate.Check, status.Forecast, error) {
			c := migrate.Check{Name: "spare-blank", Category: "fit", Found: "nothing", Need: "nothing", Verdict: migrate.OK}
			if fake("refuse") {
				c.Found, c.Verdict, c.Waivable, c.Remedy = "an ext4 signature", migrate.Refused, true, "plan with --wipe"
				if _, ok := r.Plan.Waives(c.Name); ok {
					c.Verdict = migrate.Waived
				}
			}
			if other := r.Others[r.Plan.Source.Device.Path]; other != "" {
				c = migrate.Check{Name: "source-free", Found: "migration " + other, Need: "none", Verdict: migrate.Refused}
			}
			return []migrate.Check{c}, status.Forecast{Bytes: 1 << 30, MarginBytes: 1 << 20, Objects: 1000}, nil
		},
		leave: func(string) error { return nil },
		engine: func(_ context.Context, r engineRequest) (host.Engine, error) {
			return migrate.New(migrate.Options{
				Plan: r.Dir.Plan(), Subject: &fakeSubject{dir: r.Dir.Path()}, Store: r.Dir,
				Service: r.Service, Watchdog: r.Watchdog, Events: r.Events, BootID: "boot", Ask: r.Ask,
			})
		},
		settle: func(ctx context.Context, dir *statedir.Dir, truth migrate.Side) error {
			return (&fakeSubject{dir: dir.Path()}).Settle(ctx, truth)
		},
		find: func(d migrate.DeviceSpec) (string, error) {
			if fake("unplugged") {
				return "", errors.New("no such device is attached")
			}
			return d.Path, nil
		},
		mount: func(_ context.Context, r mountRequest) error {
			if r.ID == "broken" {
				return &migrate.Problem{Kind: migrate.IsRefused, What: "ownership ambiguous", Hint: "fsmigrate resume broken --truth source|shadow"}
			}
			fmt.Printf("%+v\n", r)
			return nil
		},
		survey: func(_ context.Context, paths []string) ([]status.Volume, error) {
			v := status.Volume{Mount: "/data", Device: "/dev/sda1", Format: "ext4", Version: "revision 1", Bytes: 1 << 30}
			if len(paths) == 0 {
				v.Findings = []status.Finding{{Severity: "ends", What: "128-byte inodes", Why: "times end in 2038", Do: "fsmigrate plan /data --to ext4:inode_size=256"}}
			}
			return []status.Volume{v}, nil
		},
		verify: func(_ context.Context, a, b string, report func(status.Difference)) (status.Comparison, error) {
			if a != b {
				report(status.Difference{Path: "x\ny", Field: "mode", A: "0644", B: "0600"})
				report(status.Difference{Path: "z", Field: "data", A: "digest 1", B: "digest 2"})
			}
			return status.Comparison{Objects: 2, Bytes: 10, Took: time.Second}, nil
		},
		demo: func(_ context.Context, _ DemoOptions, say func(string)) (status.Demo, error) {
			say("making volumes")
			return status.Demo{Writes: 10}, nil
		},
		bench: func(_ context.Context, _ BenchOptions, say func(string)) (*result.Report, error) {
			say("small, mixed")
			r := &result.Report{Version: result.Version, NotRun: []result.NotRun{{Mover: "rsync two-pass", Why: "not installed: rsync"}}}
			if fake("fails") {
				r.NotRun = append(r.NotRun, result.NotRun{Mover: "fpsync", Why: "it fell over", Failed: true})
			}
			return r, nil
		},
	}
}

// fake reports whether a knob is there.
func fake(knob string) bool {
	_, err := os.Stat(filepath.Join(os.Getenv("FAKE"), knob))
	return err == nil
}

func fakePlan(_ context.Context, r planRequest) (migrate.Plan, error) {
	p := migrate.Plan{
		ID:     r.ID,
		Source: migrate.SourceSpec{Mount: r.Source, Format: "ext4", UUID: "u", Device: migrate.DeviceSpec{Path: "/dev/old", IDs: []string{"wwn:1"}, Bytes: 1 << 30}},
		Target: migrate.TargetSpec{Format: "xfs", Wipe: r.Wipe, Spare: migrate.DeviceSpec{Path: r.Spare, IDs: []string{"wwn:2"}, Bytes: 1 << 30}},
		Observed: migrate.Observed{
			Kernel: "6.18", Objects: 1000, Bytes: 1 << 20, At: time.Unix(1e9, 0),
			Fit: []migrate.Fit{{Class: "identity", Count: -1, Why: "inode numbers change", Always: true}},
		},
	}
	if p.ID == "" {
		p.ID = "data"
	}
	r.Set(&p)
	return p.WithDefaults(), nil
}

// fakeSubject is a pair of volumes that are always equal.
type fakeSubject struct {
	dir      string
	verified atomic.Bool
}

func (f *fakeSubject) did(what string) error {
	file, err := os.OpenFile(filepath.Join(f.dir, "subject"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(file, what)
	file.Close()
	return err
}

// stuck waits for ctx while the knob is there.
func stuck(ctx context.Context, knob string) error {
	t := time.NewTicker(5 * time.Millisecond)
	defer t.Stop()
	for fake(knob) {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-t.C:
		}
	}
	return nil
}

var proof = migrate.Proof{Kind: "read-back", Objects: 1000, Verified: 1000, Bytes: 1 << 20}

func (f *fakeSubject) Preflight(ctx context.Context) ([]migrate.Check, error) {
	if err := stuck(ctx, "slow-preflight"); err != nil {
		return nil, err
	}
	if fake("late-refusal") {
		return []migrate.Check{{Name: "spare-held", Found: "a mount", Need: "nobody", Verdict: migrate.Refused, Remedy: "umount it"}}, nil
	}
	return nil, nil
}

func (f *fakeSubject) Prepare(_ context.Context, to migrate.Side) error {
	return f.did("prepare " + string(to))
}
func (f *fakeSubject) Copy(ctx context.Context) error { return stuck(ctx, "slow-copy") }
func (f *fakeSubject) Pass(context.Context) (migrate.PassResult, error) {
	return migrate.PassResult{}, nil
}
func (f *fakeSubject) Backlog(context.Context) (migrate.Backlog, error) {
	b := migrate.Backlog{PredictedPause: 20 * time.Millisecond, ConsistentAsOf: time.Now()}
	if !f.verified.Load() {
		b.Unverified = proof.Objects
	}
	if fake("blocked") {
		b.Blockers = []migrate.Blocker{{Class: "writer", Object: "db (pid 7)", Why: "keeps a file open for writing", Hint: "stop it"}}
	}
	return b, nil
}
func (f *fakeSubject) Verify(context.Context) (migrate.Proof, error) {
	f.verified.Store(true)
	return proof, nil
}
func (f *fakeSubject) Mirror(context.Context, bool) error        { return migrate.ErrNoMirror }
func (f *fakeSubject) Fence(context.Context, migrate.Side) error { return f.did("fence") }
func (f *fakeSubject) Drain(ctx context.Context, _ migrate.Side) (migrate.Proof, error) {
	return proof, stuck(ctx, "slow-drain")
}
func (f *fakeSubject) SwapIn(_ context.Context, to migrate.Side) error {
	return f.did("swap in " + string(to))
}
func (f *fakeSubject) Settle(_ context.Context, truth migrate.Side) error {
	return f.did("settle " + string(truth))
}
func (f *fakeSubject) Follow(context.Context, migrate.Side) error { return nil }
func (f *fakeSubject) WayBack(context.Context) migrate.WayBack {
	return migrate.WayBack{State: migrate.WayFull}
}
func (f *fakeSubject) Finalize(context.Context, migrate.Side) error { return f.did("finalize") }
func (f *fakeSubject) Abort(context.Context) error                  { return f.did("abort") }
func (f *fakeSubject) Close() error                                 { return nil }
