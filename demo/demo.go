package demo

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/fsmigrate/fsmigrate/migrate"
	"github.com/fsmigrate/fsmigrate/status"
)

// How long the application is watched undisturbed, and with the new volume. The rest
// takes what it takes.
const (
	baseline = 6 * time.Second
	holding  = 5 * time.Second
	after    = 8 * time.Second
	limit    = 5 * time.Minute // for any phase
)

// run is one demo.
type run struct {
	o      Options
	lab    *lab
	keeper *keeper
	engine *engine
	begun  time.Time
	stops  []span
	out    status.Demo
}

// show is a whole demo, in this process.
func show(ctx context.Context, o Options) (d status.Demo, err error) {
	if err := adopt(); err != nil {
		return d, fmt.Errorf("adopt what children leave behind: %w", err)
	}
	r := &run{o: o, begun: time.Now()}
	defer func() {
		if ctx.Err() != nil {
			r.say("Interrupted: cleaning up.")
		}
		err = errors.Join(err, r.close())
	}()
	if r.lab, err = openLab(o.Dir); err != nil {
		return d, err
	}
	r.lab.keep = o.Keep
	for _, step := range []func(context.Context) error{r.prepare, r.start, r.migrate, r.cutover, r.rollback, r.finish} {
		if err := step(ctx); err != nil {
			return r.out, err
		}
	}
	return r.out, nil
}

func (r *run) close() error {
	if r.lab == nil {
		return nil
	}
	if r.engine != nil {
		r.engine.stop()
	}
	var err error
	if r.keeper != nil {
		err = r.keeper.close()
	}
	reap()
	return errors.Join(err, r.lab.close())
}

func (r *run) say(format string, args ...any) { r.o.Say(fmt.Sprintf(format, args...)) }

// step is a headline.
func (r *run) step(format string, args ...any) {
	r.say("")
	r.say("[%5.1fs] %s", time.Since(r.begun).Seconds(), fmt.Sprintf(format, args...))
}

// detail is a line below a headline.
func (r *run) detail(format string, args ...any) { r.say("         "+format, args...) }

func (r *run) prepare(ctx context.Context) error {
	r.say("fsmigrate demo: a file system changes its format while a database writes to it.")
	r.say("Everything happens on two image files in %s; your disks are not touched.", r.lab.root)
	r.say("They are mounted in a mount namespace of the demo's own.")
	r.step("Making an ext4 volume with 128-byte inodes (its times end in 2038) and %s files", status.Count(int64(r.o.Files)))
	if err := r.lab.volumes(ctx, r.o.Size); err != nil {
		return err
	}
	if err := populate(ctx, r.lab.data(), r.o.Files); err != nil {
		return err
	}
	r.detail("%s: ext4 on %s, %s", r.lab.data(), r.lab.old.Path, status.Bytes(r.o.Size))
	r.detail("the spare: %s, %s, blank", r.lab.new.Path, status.Bytes(r.o.Size))
	return nil
}

func (r *run) start(ctx context.Context) error {
	r.step("Starting the application")
	var err error
	if r.keeper, err = newKeeper(r.lab.paths, r.o.Self); err != nil {
		return err
	}
	if err := r.keeper.start(); err != nil {
		return err
	}
	r.detail("a SQLite database: %d transactions a second, each synced to disk before it counts", time.Second/writeEvery)
	r.detail("a churn of files: %d times a second one is made, overwritten, renamed or removed", time.Second/churnEvery)
	r.detail("what they were told is done is noted outside the volume, and counted at the end")
	return r.keeper.wait(ctx, baseline)
}

func (r *run) migrate(ctx context.Context) error {
	r.step("Migrating to XFS, with the application running. The command:")
	r.detail("fsmigrate run %s --to xfs --spare %s --stop '…' --start '…'", r.lab.data(), r.lab.new.Path)
	var err error
	if r.engine, err = startEngine(r.lab.paths, r.o.Self, r.lab.new.Path); err != nil {
		return err
	}
	e := r.engine
	if err := e.until(ctx, r.keeper, "plan", limit, func() bool { return e.plan != nil }); err != nil {
		return err
	}
	r.showPlan(e.plan)
	shown := 0
	for {
		var news []migrate.Step
		err := e.until(ctx, r.keeper, "hold", limit, func() bool {
			news = e.phases[shown:]
			return len(news) > 0
		})
		if err != nil {
			return err
		}
		for _, s := range news {
			shown++
			if text := meaning[s.Phase]; text != "" {
				r.detail("%5.1fs  %-9s %s", s.At.Sub(r.begun).Seconds(), s.Phase, text)
			}
			if s.Phase == migrate.Hold {
				r.hold()
				return r.keeper.wait(ctx, holding)
			}
		}
	}
}

// meaning is what a phase means to somebody who sees it for the first time.
var meaning = map[migrate.Phase]string{
	migrate.Preflight: "proving that it can work here",
	migrate.Prepare:   "making the XFS, and starting to follow every change",
	migrate.Copy:      "one walk over all files",
	migrate.CatchUp:   "copying what changed meanwhile, again and again",
	migrate.Verify:    "reading everything back from the XFS and comparing",
}

func (r *run) showPlan(p *status.Proposal) {
	plan := p.Plan
	r.detail("the plan: %s becomes %s; %s objects, %s", plan.Source.Format, plan.Target.Format,
		status.Count(plan.Observed.Objects), status.Bytes(plan.Observed.Bytes))
	warnings := 0
	for _, c := range p.Checks {
		if c.Verdict == migrate.Warning {
			warnings++
		}
	}
	r.detail("  %d checks made, %d refused, %d warnings", len(p.Checks), len(p.Refused()), warnings)
	for _, f := range plan.Observed.Fit {
		r.detail("  not carried over: %s: %s", f.Class, f.Why)
	}
	r.detail("  pause of at most %s, and a way back until you close it", plan.Cutover.PauseBudget)
}

func (r *run) hold() {
	r.step("Hold: both volumes are in step and proven equal, object by object")
	r.detail("The application still runs on the ext4, and nothing of it was changed. The engine")
	r.detail("follows every write, so it can stay like this for minutes or weeks. A person decides:")
	r.detail("  fsmigrate cutover demo   swaps the volumes")
	r.detail("  fsmigrate abort demo     leaves the ext4 as it was: the rehearsal")
}

func (r *run) cutover(ctx context.Context) error {
	r.step("fsmigrate cutover %s", id)
	if err := r.engine.insist(ctx, r.keeper, "cutover", id); err != nil {
		return err
	}
	if err := r.engine.until(ctx, r.keeper, "the new volume", limit, r.engine.reached(migrate.Reverse)); err != nil {
		return err
	}
	rep, err := r.engine.readReport(ctx)
	if err != nil {
		return err
	}
	r.out.Report = rep
	fs, err := formatOf(r.lab.data())
	if err != nil {
		return err
	}
	r.detail("%s is %s now. No write was possible for %s; the application was down for %s,", r.lab.data(), fs, milli(rep.PauseMS), milli(rep.GapMS))
	r.detail("its own stopping and starting included.")
	if err := r.keeper.wait(ctx, after); err != nil {
		return err
	}
	r.step("Is every write there? The application stops for a moment, and the XFS is read back")
	stopped := time.Now()
	if _, err := r.count(ctx, r.phaseAt(migrate.Reverse)); err != nil {
		return err
	}
	r.detail("the application continues on the XFS")
	if err := r.keeper.start(); err != nil {
		return err
	}
	r.stops = append(r.stops, span{stopped, time.Now()})
	return r.keeper.wait(ctx, after/2)
}

func (r *run) rollback(ctx context.Context) error {
	r.step("fsmigrate rollback %s: back to the ext4, with what was written since", id)
	since := r.phaseAt(migrate.Reverse)
	if err := r.engine.insist(ctx, r.keeper, "rollback", id); err != nil {
		return err
	}
	e := r.engine
	if err := e.until(ctx, r.keeper, "the old volume", limit, e.reached(migrate.RolledBack)); err != nil {
		return err
	}
	fs, err := formatOf(r.lab.data())
	if err != nil {
		return err
	}
	if err := r.keeper.wait(ctx, after/2); err != nil {
		return err
	}
	if r.out.Rollback, err = e.readReport(ctx); err != nil {
		return err
	}
	r.detail("%s is %s again, and the application runs on it", r.lab.data(), fs)
	r.step("Is every write there, also those made on the XFS? The ext4 is read back")
	c, err := r.count(ctx, since)
	if err != nil {
		return err
	}
	r.out.Writes, r.out.Lost = c.Writes+c.Operations, c.Lost
	return nil
}

// count stops the application and compares the volume with what was acknowledged.
func (r *run) count(ctx context.Context, since time.Time) (count, error) {
	if err := r.keeper.stop(); err != nil {
		return count{}, err
	}
	c, err := readBack(ctx, r.lab.data(), r.lab.ledger(), r.o.Files, since)
	if err != nil {
		return c, err
	}
	r.detail("database: %s writes acknowledged, %s of them since the cutover", status.Count(c.Writes), status.Count(c.Since))
	r.detail("files: %s operations acknowledged, %s files compared byte by byte", status.Count(c.Operations), status.Count(c.Files))
	r.detail("writes lost: %d", c.Lost)
	for _, s := range c.Examples {
		r.detail("  LOST: %s", s)
	}
	return c, nil
}

// phaseAt is when the engine entered a phase last.
func (r *run) phaseAt(p migrate.Phase) time.Time {
	r.engine.mu.Lock()
	defer r.engine.mu.Unlock()
	var at time.Time
	for _, s := range r.engine.phases {
		if s.Phase == p {
			at = s.At
		}
	}
	return at
}

func (r *run) finish(context.Context) error {
	writes, err := readWrites(r.lab.ledger())
	if err != nil {
		return err
	}
	r.engine.mu.Lock()
	t := newTimeline(writes, r.engine.phases, r.stops, r.out)
	r.engine.mu.Unlock()
	if err := os.MkdirAll(r.o.Out, 0o755); err != nil {
		return fmt.Errorf("make the pictures' directory: %w", err)
	}
	r.step("What it cost the database: time from when a write was due until it was on disk")
	for _, l := range t.table() {
		r.detail("%s", l)
	}
	for name, write := range map[string]func(string) error{"timeline.png": t.png, "timeline.html": t.html} {
		path := filepath.Join(r.o.Out, name)
		if err := write(path); err != nil {
			return fmt.Errorf("draw %s: %w", path, err)
		}
	}
	for _, name := range []string{"timeline.png", "timeline.html"} {
		r.out.Pictures = append(r.out.Pictures, filepath.Join(r.o.Out, name))
	}
	return nil
}

func milli(ms float64) string {
	return status.Span(time.Duration(ms * float64(time.Millisecond)))
}
