package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fsmigrate/fsmigrate/blockdev"
	"github.com/fsmigrate/fsmigrate/control/host"
	"github.com/fsmigrate/fsmigrate/migrate"
	"github.com/fsmigrate/fsmigrate/preflight"
	"github.com/fsmigrate/fsmigrate/service"
	"github.com/fsmigrate/fsmigrate/shadow"
	"github.com/fsmigrate/fsmigrate/statedir"
)

func (w world) engine(ctx context.Context, r engineRequest) (host.Engine, error) {
	w.memory.Pick(r.Dir.Path())
	plan := r.Dir.Plan()
	events := crashing(ctx, r.Events, os.Getenv("FSMIGRATE_CRASH_AT"))
	tree, err := openTree(r.Dir, &plan, events.Warning, w.memory)
	if err != nil {
		return nil, err
	}
	boot, err := blockdev.BootID()
	if err != nil {
		return nil, errors.Join(err, tree.Close())
	}
	m, err := migrate.New(migrate.Options{Plan: plan, Subject: tree, Store: r.Dir, Service: r.Service, Watchdog: r.Watchdog,
		Events: events, BootID: boot, PeakRSS: peakRSS, Ask: r.Ask})
	if err != nil {
		return nil, errors.Join(err, tree.Close())
	}
	return m, nil
}

// openTree makes the subject of a migration.
func openTree(dir *statedir.Dir, plan *migrate.Plan, warn func(what, why, hint string), m *preflight.Memory) (*shadow.Tree, error) {
	// Set by tests only: what a small journal leads to.
	quota, _ := strconv.ParseInt(os.Getenv("FSMIGRATE_JOURNAL_QUOTA"), 10, 64)
	return shadow.NewTree(shadow.TreeOptions{
		Plan: plan, State: dir.Path(), JournalQuota: quota,
		Audit: func(event string, fields map[string]any) error { return dir.Audit(context.Background(), event, fields) },
		Warn:  warn,
		Lock:  dir.SettleLock,
		FstabChanged: func() error {
			if plan.Persist.Fstab != defaultGlobal().Fstab || !service.Systemd() {
				return nil
			}
			return service.Reload(context.Background())
		},
		Checks: func(ctx context.Context) ([]migrate.Check, error) {
			checks, _, err := preflight.Run(ctx, preflight.Options{Plan: plan, State: dir.Path(), Memory: m})
			return checks, err
		},
	})
}

// crashing makes the engine kill itself at a step of a cutover: "before:fence",
// "after:record"; or stop there with SIGSTOP until somebody lets it go on: "halt:drain".
// Tests of crash safety set it.
func crashing(ctx context.Context, e migrate.Events, at string) migrate.Events {
	when, step, ok := strings.Cut(at, ":")
	if !ok {
		return e
	}
	die := func() { _ = syscall.Kill(os.Getpid(), syscall.SIGKILL) }
	begins, done := e.Step, e.Cutover
	e.Step = func(name string) {
		if begins != nil {
			begins(name)
		}
		switch {
		case name != step:
		case when == "before":
			die()
		case when == "halt":
			halt(ctx)
		}
	}
	e.Cutover = func(name string, took time.Duration, err error) {
		if done != nil {
			done(name, took, err)
		}
		if when == "after" && name == step {
			die()
		}
	}
	return e
}

// halt stops the process until SIGCONT. A signal that asked it to end meanwhile has ended ctx when
// halt returns: the goroutine that hears of it may not run before the step is through.
func halt(ctx context.Context) {
	heard := make(chan os.Signal, 4)
	signal.Notify(heard, syscall.SIGCONT, syscall.SIGTERM, syscall.SIGINT)
	defer signal.Stop(heard)
	_ = syscall.Kill(os.Getpid(), syscall.SIGSTOP)
	for s := range heard {
		if s == syscall.SIGCONT {
			return
		}
		<-ctx.Done()
	}
}

func wireSettle(ctx context.Context, dir *statedir.Dir, truth migrate.Side) error {
	plan := dir.Plan()
	tree, err := openTree(dir, &plan, nil, nil)
	if err != nil {
		return err
	}
	return errors.Join(tree.Settle(ctx, truth), tree.Close())
}

func wireMount(ctx context.Context, r mountRequest) error {
	dir, err := statedir.Open(r.State, r.ID)
	if err != nil {
		return &migrate.Ambiguous{Exact: fmt.Sprintf("the state of migration %s cannot be read in %s", r.ID, r.State),
			Decide: "mount " + r.State + " first, then: mount " + r.Dir, Err: err}
	}
	if r.Fake {
		_, err := dir.Truth(ctx)
		return err
	}
	unlock, err := dir.SettleLock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	plan := dir.Plan()
	o := shadow.PlaceOf(&plan, dir.Path())
	o.Dir, o.Patience = r.Dir, r.Wait
	o.Audit = func(event string, fields map[string]any) error { return dir.Audit(ctx, event, fields) }
	return shadow.Boot(ctx, o, strings.Join(r.Options, ","), func() (migrate.Side, error) {
		rec, err := dir.Truth(ctx)
		return rec.Truth, err
	})
}

// peakRSS is the largest this process has been, bytes.
func peakRSS() int64 {
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return u.Maxrss << 10
}

// wireFind looks for a device by what it was planned with.
func wireFind(d migrate.DeviceSpec) (string, error) {
	dev, err := blockdev.Resolve(d.IDs, d.Path, d.Bytes)
	return dev.Path, err
}
