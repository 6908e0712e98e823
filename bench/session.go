package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"github.com/fsmigrate/fsmigrate/migrate"
)

// session is one migration with the real command.
type session struct {
	run    []string                                            // further arguments of run
	wrap   func(ctx context.Context, args ...string) *exec.Cmd // how the engine is started; nil: plainly
	engine *exec.Cmd
	said   bytes.Buffer // by the engine, on its standard error
	ended  chan error   // one value, when the engine ends
	b      *bench
	r      *rig
}

// migration begins one, lets fn drive it, and goes back, so that the next finds the
// source as it was. fn ends behind the swap.
func (b *bench) migration(ctx context.Context, r *rig, s session, fn func(*session) (run, error)) (m run, err error) {
	if err := r.blank(ctx); err != nil {
		return m, err
	}
	if err := errors.Join(os.RemoveAll(r.state()), os.Mkdir(r.state(), 0o700)); err != nil {
		return m, err
	}
	s.b, s.r = b, r
	if !slices.Contains(s.run, "--stop") {
		s.run = append(s.run, "--stop", "true", "--start", "true")
	}
	begin := append([]string{"run", r.data(), "--to", "xfs", "--spare", r.spare.Path, "--wipe", "--id", "bench", "--yes",
		"--no-supervisor", "--policy", b.Policy, "--pause-budget", "60s", "--deadline", "300s"}, s.run...)
	if err := s.start(ctx, begin...); err != nil {
		return m, err
	}
	if err = s.created(ctx); err == nil {
		m, err = fn(&s)
	}
	if err == nil {
		err = s.do(ctx, "rollback", "bench")
	}
	if err != nil {
		_ = s.engine.Process.Signal(os.Interrupt) // it may have ended
	}
	<-s.ended // exit 6 after a rollback; what failed before it is in err
	if err != nil {
		err = fmt.Errorf("%w\n%s", err, tail(s.said.Bytes(), 2000))
	}
	return m, err
}

func tail(b []byte, n int) []byte { return b[max(0, len(b)-n):] }

// start starts an engine: run or resume.
func (s *session) start(ctx context.Context, args ...string) error {
	wrap := s.wrap
	if wrap == nil {
		wrap = func(ctx context.Context, args ...string) *exec.Cmd {
			return exec.CommandContext(ctx, s.b.Binary, args...)
		}
	}
	s.engine = wrap(ctx, s.args(args...)...)
	s.engine.Stderr = &s.said
	s.engine.Cancel = func() error { return s.engine.Process.Signal(os.Interrupt) }
	if err := s.engine.Start(); err != nil {
		return err
	}
	ended, engine := make(chan error, 1), s.engine
	s.ended = ended
	go func() { ended <- engine.Wait() }()
	return nil
}

func (s *session) args(more ...string) []string {
	return append([]string{"--json", "--state", s.r.state(), "--fstab", s.r.fstab()}, more...)
}

// do runs a command to its end.
func (s *session) do(ctx context.Context, args ...string) error {
	return tool(ctx, s.b.Binary, s.args(args...)...)
}

func (s *session) status(ctx context.Context) (st migrate.Status, err error) {
	out, err := exec.CommandContext(ctx, s.b.Binary, s.args("status", "bench")...).Output()
	if err != nil {
		return st, fmt.Errorf("status: %w", err)
	}
	return st, json.Unmarshal(out, &st)
}

// swap cuts over and answers the pause.
func (s *session) swap(ctx context.Context) (m run, err error) {
	if err := s.do(ctx, "cutover", "bench"); err != nil {
		return m, err
	}
	st, err := s.status(ctx)
	return run{Seconds: st.Report.PauseMS / 1e3, RSS: st.Report.PeakRSS}, err
}

// caughtUp waits until an engine runs in Hold with nothing left to copy or to verify.
func (s *session) caughtUp(ctx context.Context) error {
	return s.until(ctx, func() (bool, error) {
		st, err := s.status(ctx)
		return err == nil && st.Running && st.Phase == migrate.Hold && st.DirtyUnits == 0 && st.Unverified == 0, nil
	})
}

// created waits until the migration's directory is there.
func (s *session) created(ctx context.Context) error {
	return s.until(ctx, func() (bool, error) {
		_, err := os.Stat(filepath.Join(s.r.state(), "bench"))
		return err == nil, nil
	})
}

// until asks fn again and again, as long as the engine runs.
func (s *session) until(ctx context.Context, fn func() (bool, error)) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if ok, err := fn(); ok || err != nil {
			return err
		}
		select {
		case err := <-s.ended:
			s.ended <- err
			return fmt.Errorf("fsmigrate ended: %w", errOr(err, "at once"))
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}
