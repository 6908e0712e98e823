package service

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fsmigrate/fsmigrate/migrate"
)

const (
	logName = "hooks.log"
	pidName = "hook.pid"
	// tail is how much of a failing hook's output is shown.
	tail = 2 << 10
	// logLimit is when hooks.log is set aside as hooks.log.1.
	logLimit = 1 << 20
)

// hooks runs commands, one at a time.
type hooks struct {
	dir       string        // the state directory; hooks.log and hook.pid are there
	systemctl string        // its name, for tests
	grace     time.Duration // between SIGTERM and SIGKILL, and after that until it is given up
}

// register runs in the hook's process before its command: it says who it is (process
// id, start time, boot id), and takes back the score of the engine or the watchdog, so that
// what it leaves in the background is not spared when memory runs out. $0 is the file,
// $@ the command. Nothing of it may keep the command from running.
const register = `{
read -r _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ start _ </proc/$$/stat
read -r boot </proc/sys/kernel/random/boot_id
echo "$$ $start $boot" >"$0.new" && mv -f "$0.new" "$0"
echo 0 >/proc/$$/oom_score_adj
} 2>/dev/null
exec "$@"`

// shell runs a command line.
func (h hooks) shell(ctx context.Context, env migrate.Env, name, line string, limit time.Duration) error {
	return h.run(ctx, env, name, []string{"/bin/sh", "-c", line}, limit)
}

// run runs argv and waits for it, not for what it leaves in the background. Past
// limit, or when ctx ends, its group gets SIGTERM and then SIGKILL.
func (h hooks) run(ctx context.Context, env migrate.Env, name string, argv []string, limit time.Duration) error {
	what := name + " hook"
	fail := func(err error) error { return fmt.Errorf("%s: %w", what, err) }
	if err := h.endLeftover(); err != nil {
		return fail(err)
	}
	out, from, err := h.log()
	if err != nil { // a full state directory must not keep the application from being started
		if out, err = os.OpenFile(os.DevNull, os.O_WRONLY, 0); err != nil {
			return fail(err)
		}
	}
	defer out.Close()
	pidFile := filepath.Join(h.dir, pidName)
	cmd := exec.Command("/bin/sh", append([]string{"-c", register, pidFile}, argv...)...)
	cmd.Env = environment(env)
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	// What this process was itself given by whoever started it (the watchdog its line to the engine)
	// would live on in whatever the hook leaves behind. What Go opens is never inherited.
	if err := unix.CloseRange(3, math.MaxInt32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return fail(fmt.Errorf("keep our descriptors from it: %w", err))
	}
	if err := cmd.Start(); err != nil {
		return fail(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	err = h.await(ctx, cmd.Process.Pid, ended, limit)
	_ = os.Remove(pidFile) // a stale one names a process that is not ours, which is looked at
	if err == nil {
		return nil
	}
	p := &migrate.Problem{Kind: migrate.Failed, What: what + " failed", Why: err, Hint: "its output is in " + filepath.Join(h.dir, logName)}
	if said := h.said(from); said != "" {
		p.Why = fmt.Errorf("%w; it said: %s", err, said)
	}
	return p
}

// await returns when the hook has ended, by itself or by us. A process in an
// uninterruptible system call cannot be ended: it is reaped whenever it returns.
func (h hooks) await(ctx context.Context, pid int, ended <-chan error, limit time.Duration) error {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	var why error
	select {
	case err := <-ended:
		return err
	case <-timer.C:
		why = fmt.Errorf("not done within %s, killed with its group", limit)
	case <-ctx.Done():
		why = fmt.Errorf("killed with its group: %w", context.Cause(ctx))
	}
	for _, sig := range []unix.Signal{unix.SIGTERM, unix.SIGKILL} {
		_ = unix.Kill(-pid, sig)
		grace := time.NewTimer(h.grace)
		select {
		case <-ended:
			grace.Stop()
			_ = unix.Kill(-pid, unix.SIGKILL) // the rest of its group
			return why
		case <-grace.C:
		}
	}
	return fmt.Errorf("%w; process %d does not die (uninterruptible?)", why, pid)
}

// environment is all that a hook sees: nothing of it is ours, so it is the same from a terminal, under
// systemd, from the watchdog and at boot. docs/plan.md lists it.
func environment(env migrate.Env) []string {
	return []string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME=/root",
		"LANG=C.UTF-8",
		"FSMIGRATE_ID=" + env.ID,
		"FSMIGRATE_PHASE=" + string(env.Phase),
		"FSMIGRATE_TRUTH=" + string(env.Truth),
	}
}

// log opens hooks.log for a hook and says where its output will begin.
func (h hooks) log() (*os.File, int64, error) {
	path := filepath.Join(h.dir, logName)
	if info, err := os.Stat(path); err == nil && info.Size() > logLimit {
		if err := os.Rename(path, path+".1"); err != nil {
			return nil, 0, err
		}
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	if err != nil {
		_ = f.Close()
		return nil, 0, err
	}
	return f, info.Size(), nil
}

// said is the end of what was written to hooks.log from an offset on.
func (h hooks) said(from int64) string {
	f, err := os.Open(filepath.Join(h.dir, logName))
	if err != nil {
		return ""
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil {
		from = max(from, info.Size()-tail)
	}
	b, err := io.ReadAll(io.NewSectionReader(f, from, tail))
	if err != nil {
		return ""
	}
	return string(bytes.ToValidUTF8(bytes.TrimSpace(b), []byte("?")))
}

// endLeftover ends the hook that an engine left behind when it was killed.
func (h hooks) endLeftover() error {
	path := filepath.Join(h.dir, pidName)
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look for a hook left behind: %w", err)
	}
	if hook, ok := parseHook(string(b)); ok {
		if err := h.end(hook); err != nil {
			return err
		}
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("forget a hook left behind: %w", err)
	}
	return nil
}

// running names a process for good: its number alone is given out again.
type running struct {
	pid         int
	start, boot string
}

func parseHook(line string) (running, bool) {
	f := strings.Fields(line)
	if len(f) != 3 {
		return running{}, false
	}
	pid, err := strconv.Atoi(f[0])
	return running{pid, f[1], f[2]}, err == nil && pid > 1
}

// alive reports whether it is there still. (Not by its environment: that reads as
// empty for an instant while the process executes another program.)
func (r running) alive() bool {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil || strings.TrimSpace(string(boot)) != r.boot {
		return false
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", r.pid))
	if err != nil {
		return false
	}
	f := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:])) // the name may hold anything
	const startTime, group = 22 - 3, 5 - 3                               // proc(5) counts from 1, and two are before
	return len(f) > startTime && f[startTime] == r.start && f[group] == strconv.Itoa(r.pid)
}

// end kills the group of a process that is not our child.
func (h hooks) end(r running) error {
	fd, err := unix.PidfdOpen(r.pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("end hook %d left behind: %w", r.pid, err)
	}
	defer unix.Close(fd)
	if !r.alive() { // looked at once the number is pinned
		return nil
	}
	for _, sig := range []unix.Signal{unix.SIGTERM, unix.SIGKILL} {
		_ = unix.Kill(-r.pid, sig)
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(h.grace.Milliseconds()))
		if n > 0 {
			_ = unix.Kill(-r.pid, unix.SIGKILL) // the rest of its group
			return nil
		}
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("end hook %d left behind: %w", r.pid, err)
		}
	}
	return fmt.Errorf("hook %d, left behind by an engine that died, does not die", r.pid)
}
