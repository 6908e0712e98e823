package blockdev_test

import (
	"bufio"
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// start runs a shell line that must print "ready" and then wait; it ends with
// the test. It gives the process id of the shell.
func start(t *testing.T, dir, line string) int {
	t.Helper()
	return startCommand(t, dir, "sh", "-c", line)
}

// startIn runs a command in a mount namespace of its own with the given propagation.
func startIn(t *testing.T, propagation string, argv ...string) int {
	t.Helper()
	args := []string{"--mount", "--propagation", propagation, "sh", "-c", "echo ready; exec \"$@\"", "sh"}
	return startCommand(t, "/", "unshare", append(args, argv...)...)
}

func startCommand(t *testing.T, dir, name string, args ...string) int {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	t.Cleanup(func() {
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		cmd.Wait()
	})
	said, err := bufio.NewReader(out).ReadString('\n')
	if strings.TrimSpace(said) != "ready" {
		t.Fatalf("%s %v said %q, %v", name, args, said, err)
	}
	return cmd.Process.Pid
}

func procRoot(pid int) string { return fmt.Sprintf("/proc/%d/root", pid) }

// waitFor polls until ok, at most ten seconds.
func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline:
			t.Fatalf("waited in vain for %s", what)
		case <-tick.C:
		}
	}
}
