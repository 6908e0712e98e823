package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/fsmigrate/fsmigrate/control"
	"github.com/fsmigrate/fsmigrate/migrate"
	"github.com/fsmigrate/fsmigrate/service"
	"github.com/fsmigrate/fsmigrate/statedir"
)

func noSystemd() error {
	return &migrate.Problem{
		Kind: migrate.IsRefused, What: "--detach: systemd does not run this machine",
		Why:  errors.New("nothing would restart fsmigrate after a crash or a reboot; the data is safe then, but changes are not followed until somebody resumes"),
		Hint: "accept that with --no-supervisor, or run it in the foreground",
	}
}

// upWithin bounds how long a detached engine may take until its socket answers.
const upWithin = 30 * time.Second

// detach gives the migration in dir to a process of its own and returns when that
// process answers.
func (a *app) detach(ctx context.Context, dir *statedir.Dir, noSupervisor bool) error {
	var err error
	by := "systemd, as " + unitOf(dir.ID())
	if noSupervisor {
		by = "nobody: after a crash or a reboot, you resume it"
		err = a.daemon(ctx, dir)
	} else {
		err = a.unit(ctx, dir)
	}
	if err != nil {
		return err
	}
	up := map[string]string{"id": dir.ID(), "supervised_by": by}
	return a.print(up, func(w io.Writer) {
		fmt.Fprintf(w, "Migration %s runs in the background, supervised by %s.\n  look: fsmigrate status %s   wait: fsmigrate wait %s --for hold\n",
			dir.ID(), by, dir.ID(), dir.ID())
	})
}

// unit starts the shipped unit, now and at every boot until the migration has ended.
func (a *app) unit(ctx context.Context, dir *statedir.Dir) error {
	if !service.Systemd() {
		return noSystemd()
	}
	if a.State != defaultGlobal().State {
		return &migrate.Problem{
			Kind: migrate.IsRefused, What: "--detach: the unit looks in " + defaultGlobal().State + ", not in " + a.State,
			Hint: "use the default state directory, or --no-supervisor",
		}
	}
	out, err := exec.CommandContext(ctx, "systemctl", "enable", "--now", "--", unitOf(dir.ID())).CombinedOutput()
	if err != nil {
		return &migrate.Problem{
			Kind: migrate.Failed, What: unitOf(dir.ID()) + " did not start",
			Why:  fmt.Errorf("%w: %s", err, strings.TrimSpace(string(out))),
			Hint: "journalctl -u " + unitOf(dir.ID()),
		}
	}
	return nil // Type=notify: it is up when systemctl returns
}

// daemon starts this program again as a process that outlives the terminal.
func (a *app) daemon(ctx context.Context, dir *statedir.Dir) error {
	path := filepath.Join(dir.Path(), "engine.log")
	log, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	defer log.Close()
	from, err := log.Seek(0, io.SeekEnd)
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	cmd := a.self("resume", "--state", a.State, "--fstab", a.Fstab, dir.ID())
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start engine: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	limit, tick := time.NewTimer(upWithin), time.NewTicker(20*time.Millisecond)
	defer limit.Stop()
	defer tick.Stop()
	for {
		select {
		case err := <-ended:
			if err == nil {
				return nil // it had nothing to wait for
			}
			return ofCode(cmd.ProcessState.ExitCode(), &migrate.Problem{
				What: "the engine of " + dir.ID() + " ended at once", Why: errors.New(lastLines(log, from)), Hint: "its log is " + path,
			})
		case <-tick.C: // a socket file appears, which gives no event to wait for
			if control.Alive(dir.Path()) {
				return nil
			}
		case <-limit.C:
			return &migrate.Problem{
				Kind: migrate.Failed, What: fmt.Sprintf("the engine of %s (process %d) does not answer after %s", dir.ID(), cmd.Process.Pid, upWithin),
				Hint: "it goes on; fsmigrate status " + dir.ID() + "; its log is " + path,
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// ofCode gives a problem the kind that an exit code stands for.
func ofCode(code int, p *migrate.Problem) error {
	p.Kind = migrate.Failed
	for _, c := range exitCodes {
		if c.code == code && c.kind != "" {
			p.Kind = c.kind
		}
	}
	return p
}

// lastLines is what was written to a log from an offset on, at most 2 KiB of it. (By
// descriptor: what was refused has moved its directory aside.)
func lastLines(f *os.File, from int64) string {
	if info, err := f.Stat(); err == nil {
		from = max(from, info.Size()-2048)
	}
	b, err := io.ReadAll(io.NewSectionReader(f, from, 2048))
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(b))
}
