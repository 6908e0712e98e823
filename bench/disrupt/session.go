package disrupt

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/fsmigrate/fsmigrate/bench/oplog"
	"github.com/fsmigrate/fsmigrate/bench/result"
	"github.com/fsmigrate/fsmigrate/bench/work"
)

// session is one run: a mover under a workload on a fresh volume.
type session struct {
	o     Options
	lab   *lab
	app   *app
	meter *meter
	at    result.Moments
	held  time.Duration // in Hold, because it was told to stay there
	told  []result.Stage
	notes []string
}

// errDied marks what the application's end ended: no other run would say more.
type errDied struct{ error }

func (e errDied) Unwrap() error { return e.error }

// once makes one run and leaves the volumes to be cleared.
func once(ctx context.Context, o Options, l *lab, w work.Kind, mv mover, plan bool) (r result.Run, m result.Measured, notes []string, err error) {
	r.Load = load()
	if err := l.prepare(ctx); err != nil {
		return r, m, nil, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	told := work.Options{Name: w.Name, Dir: l.data(), Scratch: l.scratch(), Rate: w.Rate}
	command := ""
	if w.Name == Own {
		command = o.Command
	}
	s := &session{o: o, lab: l, app: newApp(told, o.Self, command, w.Filled)}
	watched := make(chan struct{})
	go func() { // its death ends whatever is under way
		defer close(watched)
		select {
		case err := <-s.app.failed:
			cancel(errDied{err})
		case <-ctx.Done():
		}
	}()
	defer func() {
		cancel(nil)
		<-watched
		if stopped := s.app.stop(); err == nil && stopped != nil {
			err = errDied{stopped}
		}
	}()
	if plan && mv.name == result.Ours {
		if r.PlanS, err = s.plan(ctx); err != nil {
			return r, m, nil, err
		}
	}
	if err := s.run(ctx, mv, &r); err != nil {
		if cause := context.Cause(ctx); errors.As(cause, &errDied{}) {
			err = cause
		}
		return r, m, s.notes, err
	}
	ops, said := s.app.heard()
	s.notes = append(s.notes, said...)
	m = s.measure(ops, &r)
	return r, m, s.notes, nil
}

// run goes through the phases.
func (s *session) run(ctx context.Context, mv mover, r *result.Run) (err error) {
	if err := s.app.start(ctx); err != nil {
		return errDied{err}
	}
	if err := s.settle(ctx); err != nil { // what its own beginning cost is nobody's
		return err
	}
	s.at.Begin = time.Now()
	before := used()
	if err := s.wait(ctx, s.o.Before); err != nil {
		return err
	}
	s.meter = newMeter()
	defer s.meter.close()
	mov := mv.make(s)
	defer func() { err = errors.Join(err, mov.close()) }()
	had, err := s.lab.moved()
	if err != nil {
		return err
	}
	s.at.Copy = time.Now()
	if err := mov.copy(ctx); err != nil {
		return err
	}
	if err := mov.cutover(ctx); err != nil {
		return err
	}
	s.at.Cutover, s.at.Ready = s.app.moments()
	if !s.at.Ready.After(s.at.Cutover) || s.at.Cutover.Before(s.at.Copy) {
		return fmt.Errorf("%s did not stop and start the application", mv.name)
	}
	if err := s.account(had, r); err != nil {
		return err
	}
	if err := s.changed(ctx, mv, mov, r); err != nil {
		return err
	}
	if err := s.wait(ctx, s.o.After); err != nil {
		return err
	}
	if err := s.settle(ctx); err != nil {
		return err
	}
	s.at.End = time.Now()
	r.Others = used().others(before)
	if err := s.app.stop(); err != nil {
		return errDied{err}
	}
	return nil
}

// account reads the meters at the end of the cutover.
func (s *session) account(before traffic, r *result.Run) error {
	now, err := s.lab.moved()
	if err != nil {
		return err
	}
	cpu, peak := s.meter.read()
	r.Written, r.ReadBytes = now.written-before.written, now.read-before.read
	r.CPUS, r.PeakRSS = cpu.Seconds(), peak
	return nil
}

// changed looks whether the application is on the new format, and what fsmigrate says.
func (s *session) changed(ctx context.Context, mv mover, mov moving, r *result.Run) error {
	want := s.lab.target
	if mv.name == result.Baseline {
		want = s.lab.origin
	}
	got, err := s.lab.now()
	if err != nil {
		return err
	}
	if got != want {
		return fmt.Errorf("after %s the volume is %s, and not %s", mv.name, got, want)
	}
	m, ok := mov.(*ours)
	if !ok {
		return nil
	}
	rep, err := m.report(ctx)
	if err != nil {
		return err
	}
	s.told = m.heard.until(s.at.Ready)
	r.RefusedS, r.Objects, r.Verified = rep.PauseMS/1e3, rep.Objects, rep.Verified
	if rep.Differences > 0 {
		return fmt.Errorf("fsmigrate reports %d differences", rep.Differences)
	}
	return nil
}

// measure makes the numbers of what the application said.
func (s *session) measure(ops []oplog.Op, r *result.Run) result.Measured {
	m := result.Measure(ops, s.at, s.told...)
	r.Spans, r.Failed = s.at.Spans(), m.Failed
	r.CopyS, r.DownS = (s.at.Cutover.Sub(s.at.Copy) - s.held).Seconds(), s.at.Ready.Sub(s.at.Cutover).Seconds()
	r.TotalS, r.GapS, r.CatchUpS = r.CopyS+r.DownS, m.Gap.Seconds(), m.Backlog.Seconds()
	r.OwnBytes = m.OwnBytes
	return m
}

// settleLimit bounds how long it is waited until what the application has to catch up
// with is done.
const settleLimit = 5 * time.Minute

// settle returns when operations are done about when they are due. Of applications that
// tell their operations at the end it knows nothing, and waits a moment.
func (s *session) settle(ctx context.Context) error {
	if s.app.filled {
		return s.wait(ctx, 500*time.Millisecond)
	}
	end := time.Now().Add(settleLimit)
	for {
		if err := s.wait(ctx, 300*time.Millisecond); err != nil {
			return err
		}
		late, ago := s.app.behind()
		if late < 250*time.Millisecond && (ago < time.Second || s.app.command != "") { // whose rate nobody knows
			return nil
		}
		if time.Now().After(end) {
			s.notes = append(s.notes, fmt.Sprintf("after %s the application was still %s behind: its rate is more than the volume takes", settleLimit, late.Round(time.Millisecond)))
			return nil
		}
	}
}

// stopped does what has to be done while the application is stopped.
func (s *session) stopped(ctx context.Context, do func() error) error {
	if err := s.app.stop(); err != nil {
		return errDied{err}
	}
	if err := do(); err != nil {
		return err
	}
	if err := s.app.start(ctx); err != nil {
		return errDied{err}
	}
	return nil
}

// plan measures how long planning takes.
func (s *session) plan(ctx context.Context) (float64, error) {
	m := &ours{s: s}
	began := time.Now()
	out, err := exec.CommandContext(ctx, s.o.Self, m.args("plan", s.lab.data(), "--to", s.lab.scenario.To, "--spare", s.lab.spare,
		"--id", "planned", "-o", s.lab.scratch()+"/plan.yaml")...).CombinedOutput()
	if err != nil {
		return 0, fmt.Errorf("fsmigrate plan: %w: %s", err, words(tail(out)))
	}
	return time.Since(began).Seconds(), nil
}

// wait returns after d, or with what ended the run.
func (s *session) wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}

// load is the machine's one-minute load.
func load() float64 {
	var v float64
	b, err := os.ReadFile("/proc/loadavg")
	if err == nil {
		_, _ = fmt.Sscan(string(b), &v) // 0 where it cannot be read
	}
	return v
}

// unique drops repeated notes.
func unique(notes []string) []string {
	var out []string
	for _, n := range notes {
		if n = strings.TrimSpace(n); n != "" && !slices.Contains(out, n) {
			out = append(out, n)
		}
	}
	return out
}
