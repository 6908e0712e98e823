package churn

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// identity is what a pid file holds: a number alone may be somebody else's by now.
type identity struct {
	PID   int    `json:"pid"`
	Start string `json:"start"` // field 22 of /proc/PID/stat
	State string `json:"state"` // running, paused
}

func startTime(pid int) string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ""
	}
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	if len(fields) < 20 || fields[0] == "Z" {
		return ""
	}
	return fields[19]
}

// WriteIdentity says in a pid file that this process is the one, and in which state.
func WriteIdentity(path, state string) error {
	b, err := json.Marshal(identity{os.Getpid(), startTime(os.Getpid()), state})
	if err != nil {
		return err
	}
	if err := os.WriteFile(path+".new", b, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// running finds the live process of a pid file.
func running(path string) (identity, bool) {
	var id identity
	b, err := os.ReadFile(path)
	if err != nil || json.Unmarshal(b, &id) != nil {
		return id, false
	}
	return id, id.Start != "" && startTime(id.PID) == id.Start
}

// Serve runs a churn until it ends or is told to by a signal: SIGUSR1 lets go of
// the volume, SIGUSR2 goes on, SIGTERM and SIGINT end it. Every state that is
// reached is acknowledged in the pid file; ready is called once the first is.
func Serve(r *Runner, pidfile string, ready func()) error {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, unix.SIGUSR1, unix.SIGUSR2, unix.SIGTERM, unix.SIGINT)
	defer signal.Stop(signals)
	state := func(s string) error {
		if pidfile == "" {
			return nil
		}
		return WriteIdentity(pidfile, s)
	}
	if err := state("running"); err != nil {
		return errors.Join(err, r.Stop())
	}
	ready()
	paused := false
	for {
		var err error
		select {
		case <-r.Done():
			return r.Wait()
		case s := <-signals:
			switch {
			case s == unix.SIGUSR1 && !paused:
				paused = true
				r.Pause()
				err = state("paused")
			case s == unix.SIGUSR2 && paused:
				paused = false
				r.Continue()
				err = state("running")
			case s == unix.SIGTERM || s == unix.SIGINT:
				return r.Stop()
			}
		}
		if err != nil {
			return errors.Join(err, r.Stop())
		}
	}
}

// SignalStop ends the churn of a pid file and waits until it let go of the
// volume. A churn that does not run is stopped already.
func SignalStop(pidfile string, limit time.Duration) error {
	id, alive := running(pidfile)
	if !alive {
		return nil
	}
	fd, err := unix.PidfdOpen(id.PID, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open process %d: %w", id.PID, err)
	}
	defer unix.Close(fd)
	if err := unix.PidfdSendSignal(fd, unix.SIGTERM, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("signal process %d: %w", id.PID, err)
	}
	poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for deadline := time.Now().Add(limit); ; {
		n, err := unix.Poll(poll, int(time.Until(deadline).Milliseconds()))
		switch {
		case n > 0:
			return nil
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return err
		default:
			return fmt.Errorf("process %d did not stop within %v", id.PID, limit)
		}
	}
}

// SignalState asks for paused or running and waits for the acknowledgement.
func SignalState(pidfile, want string, limit time.Duration) error {
	id, alive := running(pidfile)
	if !alive {
		return errors.New("not running")
	}
	sig := unix.SIGUSR2
	if want == "paused" {
		sig = unix.SIGUSR1
	}
	if err := unix.Kill(id.PID, sig); err != nil {
		return err
	}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(limit); time.Now().Before(deadline); <-tick.C {
		now, alive := running(pidfile)
		if !alive {
			return fmt.Errorf("process %d ended", id.PID)
		}
		if now.State == want {
			return nil
		}
	}
	return fmt.Errorf("process %d is not %s within %v", id.PID, want, limit)
}

// Detach starts this program again with the arguments, in a session of its own,
// with its output in a file, and returns when it says that it works on the volume.
// One that runs already is left alone.
func Detach(ctx context.Context, pidfile, output string, args ...string) error {
	if _, alive := running(pidfile); alive {
		return nil
	}
	out, err := os.OpenFile(output, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer out.Close()
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Args[0] = os.Args[0]
	cmd.Dir, cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = "/", out, out, []*os.File{w}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := errors.Join(cmd.Start(), w.Close()); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = r.SetReadDeadline(time.Now()) })
	defer stop()
	if n, _ := r.Read(make([]byte, 1)); n != 1 {
		text, _ := os.ReadFile(output)
		return fmt.Errorf("the churn did not start: %s", bytes.TrimSpace(text))
	}
	return cmd.Process.Release()
}

// Ready tells the process that detached this one.
func Ready() {
	f := os.NewFile(3, "ready")
	_, _ = f.Write([]byte{1})
	_ = f.Close()
}
