package e2e

import (
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/fsmigrate/fsmigrate/e2e/churn"
	"github.com/fsmigrate/fsmigrate/e2e/oracle"
	"github.com/fsmigrate/fsmigrate/e2e/vol"
)

func (r *rig) churnLog() string { return r.Path("churn.log") }
func (r *rig) pidfile() string  { return r.Path("churn.pid") }

// churnCommand is a hook.
func (r *rig) churnCommand(what string) string {
	c := fmt.Sprintf("%s %s --pidfile %s", programs.churn, what, r.pidfile())
	if what == "start" {
		c += fmt.Sprintf(" --log %s --rate 400 --without=%s", r.churnLog(), r.pair.without)
	}
	return c
}

// hook runs the application's own stop or start, as an operator would.
func (r *rig) hook(what string) {
	r.t.Helper()
	if out, err := exec.Command("sh", "-c", r.churnCommand(what)).CombinedOutput(); err != nil {
		r.t.Fatalf("application: %s: %v\n%s", what, err, out)
	}
}

// populate fills the source and leaves the application running at a bounded rate.
func (r *rig) populate(seed uint64, objects, ops int) {
	r.t.Helper()
	vol.Run(r.t, programs.churn, "run", "--dir", r.dir, "--log", r.churnLog(), "--pidfile", r.pidfile(), "--max-file", "262144",
		fmt.Sprintf("--seed=%d", seed), fmt.Sprintf("--objects=%d", objects), fmt.Sprintf("--ops=%d", ops), "--without="+r.pair.without)
	r.hook("start")
}

// quiesced calls do while the application keeps nothing open and does nothing.
func (r *rig) quiesced(do func()) {
	r.t.Helper()
	vol.Run(r.t, programs.churn, "pause", "--pidfile", r.pidfile())
	do()
	vol.Run(r.t, programs.churn, "continue", "--pidfile", r.pidfile())
}

// judge proves that a tree holds what was acknowledged and nothing else. Nothing
// may be writing to it.
func (r *rig) judge(what, dir string, granularity time.Duration) {
	r.t.Helper()
	rp, found, err := churn.CheckLog(dir, r.churnLog(), churn.CheckOptions{Granularity: granularity})
	if err != nil || len(found) > 0 {
		r.t.Fatalf("%s: %v\n%s", what, err, churn.Summary(found))
	}
	if rp.Model.Objects() == 0 {
		r.t.Fatalf("%s: the application never wrote anything: this proves nothing", what)
	}
	r.t.Logf("%s: %d objects equal %d acknowledged operations (%d unanswered)", what, rp.Model.Objects(), rp.Ops, len(rp.Dangling))
}

// moreChurn waits until the application got so many more operations through.
func (r *rig) moreChurn(ops int64) {
	r.t.Helper()
	p, first := churn.Follow(r.churnLog()), int64(-1)
	if !vol.Eventually(90*time.Second, func() bool {
		now, err := p.Answered()
		if err == nil && first < 0 {
			first = now
		}
		return err == nil && now >= first+ops
	}) {
		out, _ := exec.Command("tail", "-n", "3", r.churnLog()+".out").Output()
		r.t.Fatalf("the application does not get on: %s", out)
	}
}

// killApplication is what a crash of the machine does to it.
func (r *rig) killApplication() {
	application := func() (pids []int) {
		for _, p := range vol.Processes(r.Dir) {
			if strings.HasPrefix(p.Args[0], programs.churn) || strings.HasPrefix(p.Args[0], programs.program) {
				pids = append(pids, p.PID)
			}
		}
		return pids
	}
	for _, pid := range application() {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	if !vol.Eventually(10*time.Second, func() bool { return len(application()) == 0 }) {
		r.t.Fatal("the application survived SIGKILL")
	}
}

// inStep waits, the application being quiet, until the other volume has all of it:
// nothing is dirty, and stays so for longer than any pass or racy stamp lasts.
func (r *rig) inStep() {
	r.t.Helper()
	var last map[string]any
	var clean time.Time
	if !vol.Eventually(60*time.Second, func() bool {
		s, err := r.status()
		if err != nil {
			return false
		}
		last = s
		if units, ok := s["dirty_units"].(float64); !ok || units > 0 {
			clean = time.Time{}
			return false
		}
		if clean.IsZero() {
			clean = time.Now()
		}
		return time.Since(clean) > 4*time.Second
	}) {
		r.t.Fatalf("the other volume does not come into step: %v", last)
	}
}

// otherSide mounts a copy of a device's image as a power cut would leave it now,
// and calls look with it: what is on the disk, not what a cache says.
func (r *rig) otherSide(fstype, device string, look func(dir string)) {
	r.t.Helper()
	image := strings.TrimSpace(vol.Run(r.t, "losetup", "-n", "-O", "BACK-FILE", device))
	snapshot := r.Path("snapshot.img")
	vol.Run(r.t, "sync")
	vol.Run(r.t, "cp", "--sparse=always", image, snapshot)
	loop := r.Loop(snapshot)
	var options []string
	if fstype == "xfs" {
		options = append(options, "nouuid")
	}
	dir := r.Mount(loop, "snapshot", options...)
	look(dir)
	r.Unmount(dir)
	if err := oracle.Fsck(fstype, loop); err != nil {
		r.t.Errorf("the other volume: %v", err)
	}
	r.Detach(loop)
	vol.Run(r.t, "rm", snapshot)
}

// sameTree lets the oracle compare two trees.
func (r *rig) sameTree(what, a, b string, window time.Duration) {
	r.t.Helper()
	found, err := oracle.Compare(a, b, oracle.Options{Window: window})
	if err != nil || len(found) > 0 {
		r.t.Fatalf("%s: %v\n%s", what, err, strings.Join(found, "\n"))
	}
}

// fsType is that of the volume in place.
func (r *rig) fsType() string {
	r.t.Helper()
	return strings.TrimSpace(vol.Run(r.t, "findmnt", "-n", "-o", "FSTYPE", "-M", r.dir))
}
