package service

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"

	"github.com/fsmigrate/fsmigrate/migrate"
)

// Service is a migrate.Service on systemctl or on commands.
type Service struct {
	spec  migrate.ServiceSpec
	hooks hooks
}

// New makes the service of a plan. dir is the migration's state directory.
func New(spec migrate.ServiceSpec, dir string) *Service {
	spec = migrate.Plan{Service: spec}.WithDefaults().Service
	return &Service{spec: spec, hooks: hooks{dir: dir, systemctl: "systemctl", grace: 5 * time.Second}}
}

var _ migrate.Service = (*Service)(nil)

// Stop stops the application and returns when it is stopped.
func (s *Service) Stop(ctx context.Context, env migrate.Env) error {
	limit := time.Duration(s.spec.StopTimeout)
	switch {
	case s.spec.Unit != "":
		if err := s.systemctl(ctx, env, "stop", limit); err != nil {
			return err
		}
		active, err := s.active(ctx, env)
		if err != nil {
			return err
		}
		if active {
			return &migrate.Problem{
				Kind: migrate.Failed, What: fmt.Sprintf("unit %s is active again right after it was stopped", s.spec.Unit),
				Hint: "stop what activates it too: systemctl list-dependencies --reverse " + s.spec.Unit + "; sockets, timers and paths count",
			}
		}
		return nil
	case s.spec.Stop != "":
		return s.hooks.shell(ctx, env, "stop", s.spec.Stop, limit)
	}
	return nil
}

// Start starts the application and returns when it runs.
func (s *Service) Start(ctx context.Context, env migrate.Env) error {
	limit := time.Duration(s.spec.StartTimeout)
	switch {
	case s.spec.Unit != "":
		return s.systemctl(ctx, env, "start", limit)
	case s.spec.Start != "":
		return s.hooks.shell(ctx, env, "start", s.spec.Start, limit)
	}
	return nil
}

// between is how long to wait before the health command is run again.
const between = 500 * time.Millisecond

// Health returns when the application is healthy, or with the last reason why it is
// not when its time is up. The command is run again until it succeeds.
func (s *Service) Health(ctx context.Context, env migrate.Env) error {
	if s.spec.Health == "" {
		return nil
	}
	limit := time.Duration(s.spec.HealthTimeout)
	end := time.Now().Add(limit)
	t := time.NewTicker(between)
	defer t.Stop()
	for {
		err := s.hooks.shell(ctx, env, "health", s.spec.Health, max(time.Until(end), time.Millisecond))
		if err == nil || ctx.Err() != nil {
			return err
		}
		if time.Until(end) < between {
			return &migrate.Problem{Kind: migrate.Failed, What: fmt.Sprintf("not healthy within %s", limit), Why: err, Hint: migrate.HintOf(err)}
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-t.C:
		}
	}
}

func (s *Service) systemctl(ctx context.Context, env migrate.Env, verb string, limit time.Duration) error {
	path, err := exec.LookPath(s.hooks.systemctl)
	if err != nil {
		return &migrate.Problem{
			Kind: migrate.Failed, What: fmt.Sprintf("%s unit %s", verb, s.spec.Unit), Why: err,
			Hint: "without systemd, plan with --stop and --start instead of --unit",
		}
	}
	return s.hooks.run(ctx, env, verb, []string{path, verb, "--", s.spec.Unit}, limit)
}

// activeLimit bounds a question that is answered at once, or by a stuck systemd never.
const activeLimit = 10 * time.Second

// active asks whether the unit is still, or again, up.
func (s *Service) active(ctx context.Context, env migrate.Env) (bool, error) {
	path, err := exec.LookPath(s.hooks.systemctl)
	if err != nil {
		return false, fmt.Errorf("find systemctl: %w", err)
	}
	err = s.hooks.run(ctx, env, "is-active", []string{path, "is-active", "--quiet", "--", s.spec.Unit}, activeLimit)
	var exit *exec.ExitError
	switch {
	case err == nil:
		return true, nil
	case errors.As(err, &exit) && exit.Exited():
		return false, nil // 3: inactive, failed, activating
	}
	return false, err
}

// String says what is stopped, for messages.
func (s *Service) String() string {
	switch {
	case s.spec.Unit != "":
		return "unit " + s.spec.Unit
	case s.spec.Stop != "":
		return "command " + strings.TrimSpace(s.spec.Stop)
	}
	return "no service"
}
