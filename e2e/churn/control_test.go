package churn_test

import (
	"math/rand/v2"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/fsmigrate/fsmigrate/e2e/churn"
	"github.com/fsmigrate/fsmigrate/e2e/vol"
)

// build makes the churn command.
func build(t *testing.T, lab *vol.Lab) string {
	t.Helper()
	path := lab.Path("churn")
	run(t, "go", "build", "-o", path, "github.com/fsmigrate/fsmigrate/e2e/cmd/churn")
	return path
}

// The command as the hooks of a migration use it: run, stop, start, pause, and a
// volume that equals the log at every stop.
func TestCommandAsHooks(t *testing.T) {
	lab := vol.New(t)
	command := build(t, lab)
	device, dir := lab.Volume("ext4", 512, "data")
	log, pid := lab.Path("log"), lab.Path("pid")
	cmd := exec.Command(command, "run", "--dir", dir, "--log", log, "--pidfile", pid, "--objects", "300", "--seed", "9")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	waitOps(t, log, 1000)
	for range 2 {
		run(t, command, "pause", "--pidfile", pid)
		lab.Unmount(dir)
		lab.Mount(device, "data")
		run(t, command, "check", "--dir", dir, "--log", log)
		run(t, command, "continue", "--pidfile", pid)

		run(t, command, "stop", "--pidfile", pid)
		run(t, command, "stop", "--pidfile", pid) // twice is once
		lab.Unmount(dir)
		lab.Mount(device, "data")
		run(t, command, "check", "--dir", dir, "--log", log)
		run(t, command, "start", "--log", log, "--pidfile", pid)
		run(t, command, "start", "--log", log, "--pidfile", pid)
		waitOps(t, log, 500)
	}
	run(t, command, "stop", "--pidfile", pid)
	run(t, command, "check", "--dir", dir, "--log", log)
}

// waitOps waits until the log holds so many answered operations more.
func waitOps(t *testing.T, log string, more int64) {
	t.Helper()
	p := churn.Follow(log)
	var first int64
	var err error
	if !vol.Eventually(60*time.Second, func() bool {
		var now int64
		if now, err = p.Answered(); err == nil && first == 0 {
			first = now
		}
		return err == nil && now >= first+more
	}) {
		t.Fatalf("not %d operations more in %s: %v", more, log, err)
	}
}

// A churn that is killed in the middle leaves operations that nobody answered;
// its log judges the volume all the same, and goes on.
func TestKilledChurnIsJudged(t *testing.T) {
	lab := vol.New(t)
	command := build(t, lab)
	_, dir := lab.Volume("xfs", 512, "data")
	log, pid := lab.Path("log"), lab.Path("pid")
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	run(t, command, "run", "--dir", dir, "--log", log, "--pidfile", pid, "--objects", "300", "--ops", "1000")
	dangling := 0
	for round := range 12 {
		cmd := exec.Command(command, "run", "--resume", "--log", log, "--pidfile", pid)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		waitOps(t, log, 10+rng.Int64N(300))
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		out, err := exec.Command(command, "check", "--dir", dir, "--log", log).CombinedOutput()
		if err != nil {
			t.Fatalf("round %d: %v\n%s", round, err, out)
		}
		if !strings.Contains(string(out), " 0 unanswered") {
			dangling++
		}
	}
	if dangling == 0 {
		t.Error("no kill hit an operation in flight: this test tests nothing")
	}
}

// Acknowledged by fsync means there, after a kill at any instant.
func TestAppendKeepsWhatItAcknowledged(t *testing.T) {
	lab := vol.New(t)
	command := build(t, lab)
	_, dir := lab.Volume("ext4", 256, "data")
	log := lab.Path("acks")
	for range 3 {
		cmd := exec.Command(command, "append", "--dir", dir, "--log", log)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		before, _ := churn.CheckAppend(dir, log, "sequence")
		vol.Eventually(10*time.Second, func() bool {
			now, _ := churn.CheckAppend(dir, log, "sequence")
			return now > before+50
		})
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if now, err := churn.CheckAppend(dir, log, "sequence"); err != nil || now <= before {
			t.Fatalf("%d acknowledged: %v", now, err)
		}
	}
	run(t, "truncate", "-s", "-16", dir+"/"+churn.AppendDir+"/sequence")
	run(t, "truncate", "-s", "-16", dir+"/"+churn.AppendDir+"/sequence")
	if _, err := churn.CheckAppend(dir, log, "sequence"); err == nil {
		t.Error("a lost record was not reported")
	}
}
