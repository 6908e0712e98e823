package service

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fsmigrate/fsmigrate/migrate"
)

var env = migrate.Env{ID: "data", Phase: migrate.Cutover, Truth: migrate.Source}

func command(t *testing.T, spec migrate.ServiceSpec) *Service {
	t.Helper()
	s := New(spec, t.TempDir())
	s.hooks.grace = 200 * time.Millisecond
	return s
}

// A hook sees an environment that is the same wherever the engine runs, and as docs/plan.md says.
func TestHookSeesACleanEnvironment(t *testing.T) {
	for _, name := range []string{"SECRET_OF_THE_ENGINE", "HOME", "LANG", "PATH", "LD_PRELOAD", "ENV", "BASH_ENV", "IFS", "NOTIFY_SOCKET"} {
		t.Setenv(name, "/of/the/engine")
	}
	s := command(t, migrate.ServiceSpec{Stop: "/usr/bin/env >&2; exit 3", Start: "true"})
	err := s.Stop(t.Context(), env)
	if err == nil {
		t.Fatal("a hook that exits 3 succeeded")
	}
	_, said, _ := strings.Cut(err.Error(), "it said: ")
	got := slices.DeleteFunc(strings.Fields(said), func(line string) bool {
		return strings.HasPrefix(line, "PWD=") || strings.HasPrefix(line, "OLDPWD=") || strings.HasPrefix(line, "SHLVL=") || strings.HasPrefix(line, "_=") // the shell's own
	})
	slices.Sort(got)
	want := []string{
		"FSMIGRATE_ID=data", "FSMIGRATE_PHASE=cutover", "FSMIGRATE_TRUTH=source", "HOME=/root", "LANG=C.UTF-8",
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
	}
	if !slices.Equal(got, want) {
		t.Errorf("the hook sees %q, want %q", got, want)
	}
	doc, rerr := os.ReadFile("../docs/plan.md")
	if rerr != nil {
		t.Fatal(rerr)
	}
	for _, line := range want {
		told := "- `" + line + "`"
		if name, _, _ := strings.Cut(line, "="); strings.HasPrefix(name, "FSMIGRATE_") {
			told = "- `" + name + "`: "
		}
		if !strings.Contains(string(doc), told) {
			t.Errorf("docs/plan.md does not tell of %s", line)
		}
	}
	if !strings.Contains(err.Error(), "exit status 3") {
		t.Error(err)
	}
	if hint := migrate.HintOf(err); !strings.Contains(hint, logName) {
		t.Errorf("hint %q does not name the log", hint)
	}
}

// Of our descriptors a hook gets none: a device, a lock or a mount that it held open would
// outlive us in whatever it starts.
func TestHookHasNoDescriptorsOfOurs(t *testing.T) {
	ours, err := os.Create(filepath.Join(t.TempDir(), "of-the-engine"))
	if err != nil {
		t.Fatal(err)
	}
	defer ours.Close()
	// As it is when whoever starts the engine leaves it one open.
	given, err := unix.Dup(int(ours.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(given)
	s := command(t, migrate.ServiceSpec{Stop: "for fd in /proc/self/fd/*; do readlink $fd; done >&2; exit 3", Start: "true"})
	err = s.Stop(t.Context(), env)
	if err == nil {
		t.Fatal("a hook that exits 3 succeeded")
	}
	_, said, _ := strings.Cut(err.Error(), "it said: ")
	seen := strings.Fields(said)
	if !slices.Contains(seen, "/dev/null") || !slices.ContainsFunc(seen, func(f string) bool { return strings.HasSuffix(f, "/"+logName) }) {
		t.Errorf("not its own: %q", seen)
	}
	for _, f := range seen {
		if f != "/dev/null" && !strings.HasSuffix(f, "/"+logName) && !strings.HasPrefix(f, "/proc/") {
			t.Errorf("the hook has %s open", f)
		}
	}
}

func TestHookThatHangsIsKilledWithItsGroup(t *testing.T) {
	for name, line := range map[string]string{
		"obeys SIGTERM":   "sleep 1000 & echo $! >child; wait",
		"ignores SIGTERM": "trap '' TERM; sleep 1000 & echo $! >child; while :; do wait; done",
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := command(t, migrate.ServiceSpec{Stop: "cd " + dir + "; " + line, Start: "true", StopTimeout: migrate.Duration(300 * time.Millisecond)})
			began := time.Now()
			err := s.Stop(t.Context(), env)
			if err == nil || !strings.Contains(err.Error(), "not done within 300ms") {
				t.Fatalf("got %v", err)
			}
			if took := time.Since(began); took > 5*time.Second {
				t.Errorf("took %s", took)
			}
			gone(t, filepath.Join(dir, "child"))
		})
	}
}

// gone waits until the process whose number is in a file has ended.
func gone(t *testing.T, file string) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		t.Fatal(err)
	}
	end := time.After(5 * time.Second)
	for tick := time.NewTicker(10 * time.Millisecond); ; {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil || strings.Contains(string(stat), ") Z ") {
			tick.Stop()
			return
		}
		select {
		case <-end:
			t.Fatalf("process %d of the group lives", pid)
		case <-tick.C:
		}
	}
}

// A start hook leaves the application in the background, holding what was its
// standard output: it must neither keep the hook waiting nor die of our closing it.
func TestHookMayLeaveTheApplicationBehind(t *testing.T) {
	dir := t.TempDir()
	s := command(t, migrate.ServiceSpec{
		Stop:  "kill $(cat " + dir + "/pid)",
		Start: "cd " + dir + "; (while :; do echo tick; sleep 0.05; done) & echo $! >pid",
	})
	began := time.Now()
	if err := s.Start(t.Context(), env); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("starting took %s", took)
	}
	log := filepath.Join(s.hooks.dir, logName)
	end := time.After(5 * time.Second)
	for tick := time.NewTicker(20 * time.Millisecond); ; {
		if b, _ := os.ReadFile(log); strings.Count(string(b), "tick") >= 3 {
			tick.Stop()
			break
		}
		select {
		case <-end:
			t.Fatal("the application died with its hook")
		case <-tick.C:
		}
	}
	if err := s.Stop(t.Context(), env); err != nil {
		t.Fatal(err)
	}
	gone(t, filepath.Join(dir, "pid"))
}

// An engine killed in its stop hook leaves it running; the next hook ends it first.
func TestHookLeftBehindIsEndedFirst(t *testing.T) {
	s := command(t, migrate.ServiceSpec{Stop: "true", Start: "true"})
	pidFile := filepath.Join(s.hooks.dir, pidName)
	left := exec.Command("/bin/sh", "-c", register, pidFile, "/bin/sh", "-c", "sleep 1000; true")
	left.Env = environment(env)
	left.SysProcAttr = &unix.SysProcAttr{Setpgid: true}
	if err := left.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- left.Wait() }()
	t.Cleanup(func() { _ = unix.Kill(-left.Process.Pid, unix.SIGKILL) })
	for end := time.Now().Add(5 * time.Second); ; {
		if _, err := os.Stat(pidFile); err == nil {
			break
		}
		if time.Now().After(end) {
			t.Fatal("the hook did not register")
		}
	}
	if err := s.Start(t.Context(), env); err != nil {
		t.Fatal(err)
	}
	select {
	case <-ended:
	case <-time.After(5 * time.Second):
		t.Fatal("the hook left behind still runs")
	}
	if _, err := os.Stat(pidFile); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("hook.pid is left: %v", err)
	}
}

// A number in hook.pid that belongs to somebody else now is left alone.
func TestStrangerWithAHooksNumberLives(t *testing.T) {
	s := command(t, migrate.ServiceSpec{Stop: "true", Start: "true"})
	stranger := exec.Command("sleep", "1000")
	stranger.SysProcAttr = &unix.SysProcAttr{Setpgid: true}
	if err := stranger.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = stranger.Process.Kill(); _ = stranger.Wait() })
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"%d 1 " + string(boot), "%d\n", "%d x y\n", "", "-1 1 " + string(boot)} {
		if strings.Contains(line, "%d") {
			line = fmt.Sprintf(line, stranger.Process.Pid)
		}
		if err := os.WriteFile(filepath.Join(s.hooks.dir, pidName), []byte(line), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := s.Stop(t.Context(), env); err != nil {
			t.Fatal(err)
		}
	}
	if err := stranger.Process.Signal(unix.Signal(0)); err != nil {
		t.Errorf("the stranger was killed: %v", err)
	}
}

func TestHealthIsAskedUntilItIsGood(t *testing.T) {
	dir := t.TempDir()
	s := command(t, migrate.ServiceSpec{
		Stop: "true", Start: "true", HealthTimeout: migrate.Duration(20 * time.Second),
		Health: "cd " + dir + "; echo x >>asked; test $(wc -l <asked) -ge 2",
	})
	if err := s.Health(t.Context(), env); err != nil {
		t.Fatal(err)
	}
	s.spec.Health, s.spec.HealthTimeout = "echo broken; false", migrate.Duration(200*time.Millisecond)
	if err := s.Health(t.Context(), env); err == nil || !strings.Contains(err.Error(), "broken") {
		t.Errorf("got %v", err)
	}
}

func TestContextEndsAHook(t *testing.T) {
	s := command(t, migrate.ServiceSpec{Stop: "sleep 1000", Start: "true"})
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := s.Stop(ctx, env); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

// fakeSystemctl is a systemctl that keeps a unit's state in a file.
const fakeSystemctl = `#!/bin/sh
cd "$(dirname "$0")"
echo "$@" >>calls
case $1 in
stop) test -e again || rm -f active ;;
start) touch active ;;
is-active) test -e active || exit 3 ;;
esac
`

func TestUnit(t *testing.T) {
	dir := t.TempDir()
	tool := filepath.Join(dir, "systemctl")
	if err := os.WriteFile(tool, []byte(fakeSystemctl), 0o755); err != nil {
		t.Fatal(err)
	}
	touch := func(name string) {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	touch("active")
	s := command(t, migrate.ServiceSpec{Unit: "db.service"})
	s.hooks.systemctl = tool
	for range 2 { // idempotent
		if err := s.Stop(t.Context(), env); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Start(t.Context(), env); err != nil {
		t.Fatal(err)
	}
	touch("again") // socket activation
	err := s.Stop(t.Context(), env)
	if err == nil || !strings.Contains(err.Error(), "active again") {
		t.Errorf("got %v", err)
	}
	calls, err := os.ReadFile(filepath.Join(dir, "calls"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(string(calls), "stop -- db.service\nis-active --quiet -- db.service\n") {
		t.Errorf("calls:\n%s", calls)
	}
	s.hooks.systemctl = filepath.Join(dir, "none")
	if err := s.Start(t.Context(), env); err == nil || !strings.Contains(migrate.HintOf(err), "--stop and --start") {
		t.Errorf("without systemctl: %v, hint %q", err, migrate.HintOf(err))
	}
}

func TestLogIsSetAside(t *testing.T) {
	s := command(t, migrate.ServiceSpec{Stop: "echo stopped", Start: "true"})
	log := filepath.Join(s.hooks.dir, logName)
	if err := os.WriteFile(log, make([]byte, logLimit+1), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.Stop(t.Context(), env); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(log)
	if err != nil || string(b) != "stopped\n" {
		t.Errorf("log %q, %v", b, err)
	}
}

func TestNotify(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	t.Setenv("NOTIFY_SOCKET", path)
	if err := Notify("READY=1\nSTATUS=hold"); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 100)
	n, err := l.Read(b)
	if err != nil || string(b[:n]) != "READY=1\nSTATUS=hold" {
		t.Errorf("got %q, %v", b[:n], err)
	}
	t.Setenv("NOTIFY_SOCKET", "")
	if err := Notify("READY=1"); err != nil {
		t.Errorf("without a listener: %v", err)
	}
	t.Setenv("WATCHDOG_USEC", "30000000")
	if d := KeepAlive(); d != 15*time.Second {
		t.Errorf("keep-alive every %s", d)
	}
	t.Setenv("WATCHDOG_PID", "1")
	if d := KeepAlive(); d != 0 {
		t.Errorf("another process' keep-alive every %s", d)
	}
}
