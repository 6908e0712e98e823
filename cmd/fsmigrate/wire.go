package main

import (
	"context"
	"time"

	"github.com/fsmigrate/fsmigrate/bench/result"
	"github.com/fsmigrate/fsmigrate/control/host"
	_ "github.com/fsmigrate/fsmigrate/formats/btrfs"
	_ "github.com/fsmigrate/fsmigrate/formats/ext"
	_ "github.com/fsmigrate/fsmigrate/formats/xfs"
	"github.com/fsmigrate/fsmigrate/migrate"
	"github.com/fsmigrate/fsmigrate/preflight"
	"github.com/fsmigrate/fsmigrate/statedir"
	"github.com/fsmigrate/fsmigrate/status"
)

// wiring is where the commands meet the packages that look at volumes and move them.
// Tests put fakes here.
type wiring struct {
	// makePlan looks at both sides and changes nothing.
	makePlan func(ctx context.Context, r planRequest) (migrate.Plan, error)
	// checks makes the preflight checks of a plan, drift included. It changes nothing.
	checks func(ctx context.Context, r checkRequest) ([]migrate.Check, status.Forecast, error)
	// leave keeps in a state directory what planning and checking found out, for an engine
	// in another process.
	leave func(dir string) error
	// engine opens the subject of a migration and makes the engine that drives it.
	engine func(ctx context.Context, r engineRequest) (host.Engine, error)
	// settle makes truth the volume in place, writable. The watchdog calls it in its own
	// process, with nothing open; it takes the settle lock itself.
	settle func(ctx context.Context, dir *statedir.Dir, truth migrate.Side) error
	// find is where the device of a plan is now.
	find func(d migrate.DeviceSpec) (path string, err error)
	// mount is mount.fsmigrate: it mounts the truth of a migration, or nothing.
	mount func(ctx context.Context, r mountRequest) error
	// survey looks at mounted volumes: all, or those that paths are on.
	survey func(ctx context.Context, paths []string) ([]status.Volume, error)
	// verify compares two trees and reports each difference.
	verify func(ctx context.Context, a, b string, report func(status.Difference)) (status.Comparison, error)
	// demo shows a whole migration on volumes of its own.
	demo func(ctx context.Context, o DemoOptions, say func(line string)) (status.Demo, error)
	// bench measures what an application feels, on volumes of its own.
	bench func(ctx context.Context, o BenchOptions, say func(line string)) (*result.Report, error)
}

// planRequest is what planning needs; Set puts policy, service and waivers into the plan.
type planRequest struct {
	ID, Source, To, Spare, Fstab string
	Wipe                         bool
	Set                          func(*migrate.Plan)
}

// checkRequest is what the checks need. Others are the migrations that have not ended,
// by the path of the device they change.
type checkRequest struct {
	Plan   migrate.Plan
	State  string
	Others map[string]string
}

// engineRequest is what an engine is made of. The subject and the boot id are the wire's.
type engineRequest struct {
	Dir      *statedir.Dir   // locked; its plan says which fstab
	Service  migrate.Service // nil: the plan has none
	Watchdog migrate.Watchdog
	Events   migrate.Events
	Ask      *migrate.Request // what the engine is there for; nil: to go on
}

// mountRequest is the command line of a mount(8) helper, read.
type mountRequest struct {
	State   string // where migrations keep their state
	ID, Dir string
	Options []string      // without those that are fsmigrate's own
	Wait    time.Duration // how long the truth's device may take to appear
	Fake    bool          // -f: do everything but mounting
	Sloppy  bool          // -s: unknown options are no error
	Verbose bool
}

// world is what the commands of one process share of what they saw.
type world struct{ memory *preflight.Memory }

// realWiring is the wiring of the shipped command.
func realWiring() wiring {
	w := world{memory: new(preflight.Memory)}
	return wiring{
		makePlan: w.plan,
		checks:   w.checks,
		engine:   w.engine,
		leave:    w.memory.Leave,
		settle:   wireSettle,
		find:     wireFind,
		mount:    wireMount,
		survey:   wireSurvey,
		verify:   wireVerify,
		demo:     wireDemo,
		bench:    wireBench,
	}
}
