package e2e

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fsmigrate/fsmigrate/e2e/churn"
	"github.com/fsmigrate/fsmigrate/e2e/oracle"
	"github.com/fsmigrate/fsmigrate/e2e/vol"
)

// faultRig is a rig whose two devices fail when they are told to.
type faultRig struct {
	*rig
	disks  *disks
	asked  *process // a cutover that was asked for, and its answer
	answer bytes.Buffer
}

// newFaultRig makes volumes of the size on devices that are served by a process of ours,
// with the application running on the source.
func newFaultRig(t *testing.T, p pair, mib int64, seed uint64) *faultRig {
	t.Helper()
	r := &faultRig{rig: newRig(t, p, mib)}
	r.Unmount(r.dir)
	r.disks = newDisks(t, r.Lab)
	r.disks.names = []string{"source", "spare"}
	var images []string
	for name, dev := range map[string]string{"source": r.source, "spare": r.spare} {
		file := strings.TrimSpace(vol.Run(t, "losetup", "-n", "-O", "BACK-FILE", dev))
		r.Detach(dev)
		images = append(images, r.disks.prefix+name+"="+file)
	}
	r.disks.start("fail", "--images", strings.Join(images, ","))
	r.source, r.spare = r.disks.loops["source"], r.disks.loops["spare"]
	vol.Run(t, "mount", r.source, r.dir)
	r.script("stop", r.churnCommand("stop"))
	r.script("start", r.churnCommand("start"))
	r.script("health", "exit 0")
	r.populate(seed, 150, 300)
	return r
}

// arm has a device fail: "spare write 3 EIO sticky".
func (r *faultRig) arm(fault string) { r.t.Helper(); r.disks.mark("%s%s", r.disks.prefix, fault) }

// counts are how many operations were counted since a device was armed, and how many failed.
func (r *faultRig) counts(name string) (seen, fired int) {
	r.t.Helper()
	b, err := os.ReadFile(r.disks.marks())
	if err != nil {
		r.t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, r.disks.prefix+name+" "); ok {
			if _, err := fmt.Sscan(rest, &seen, &fired); err == nil {
				return seen, fired
			}
		}
	}
	r.t.Fatalf("no disk %q: %s", name, b)
	return 0, 0
}

// run begins a migration whose engine halts right before the switch record.
func (r *faultRig) run(extra ...string) {
	r.t.Helper()
	args := []string{"run", r.dir, "--to", r.pair.to, "--spare", r.spare, "--id", id, "--yes", "--no-supervisor", "--policy", "asap",
		"--pause-budget", "20s", "--deadline", "60s", "--report", r.report,
		"--stop", "sh " + r.Path("stop.sh"), "--start", "sh " + r.Path("start.sh"), "--health", "sh " + r.Path("health.sh")}
	r.background([]string{"FSMIGRATE_CRASH_AT=halt:record"}, append(args, extra...)...)
}

// comesTo waits until the migration holds, pauses or has ended.
func (r *faultRig) comesTo() string {
	r.t.Helper()
	at := ""
	if !vol.Eventually(toHold, func() bool {
		if r.engine.ended() {
			at = "ended"
			return true
		}
		s, err := r.status()
		if err != nil {
			return false
		}
		at, _ = s["phase"].(string)
		if running, _ := s["running"].(bool); !running {
			return false
		}
		if paused, _ := s["paused"].(bool); paused {
			at = "paused"
			return true
		}
		return at == "hold" || at == "reverse"
	}) {
		r.t.Fatalf("it comes to nothing: in %s\n%s", at, r.rig.said())
	}
	return at
}

// cutover asks for it.
func (r *faultRig) cutover() {
	r.t.Helper()
	r.answer.Reset()
	p := &process{cmd: exec.Command(programs.fsmigrate, append([]string{"cutover", id}, r.global()...)...), done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = &r.answer, &r.answer
	if err := p.cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	go func() { _ = p.cmd.Wait(); close(p.done) }()
	r.asked = p
}

// beforeRecord waits until the engine has halted there (true), or the cutover has failed.
func (r *faultRig) beforeRecord() bool {
	r.t.Helper()
	engine := r.engine.cmd.Process.Pid
	if !vol.Eventually(toHold, func() bool { return halted(engine) || r.asked.ended() }) {
		r.t.Fatalf("the cutover neither fails nor gets to the record\n%s", r.rig.said())
	}
	return halted(engine)
}

// goOn wakes an engine that has halted; what it was asked for comes to its end.
func (r *faultRig) goOn() {
	r.t.Helper()
	if err := syscall.Kill(r.engine.cmd.Process.Pid, syscall.SIGCONT); err != nil {
		r.t.Fatal(err)
	}
	if code := r.asked.code(r.t, toEnd); code != 0 {
		r.t.Fatalf("cutover: exit %d\n%s", code, &r.answer)
	}
}

// never proves that the application was never told of an error of a disk. ENOSPC is what
// ext4 answers to more xattrs than it has room for.
func (r *faultRig) never() {
	r.t.Helper()
	rp, err := churn.ReadLog(r.churnLog())
	if err != nil {
		r.t.Fatal(err)
	}
	for what, n := range rp.Failed {
		for _, errno := range []unix.Errno{unix.EIO, unix.EROFS, unix.ENODEV} {
			if strings.Contains(what, errno.Error()) || strings.Contains(what, "SIGBUS") {
				r.t.Errorf("%d times the application was answered %q", n, what)
			}
		}
	}
}

// fromDisk stops the application and judges the volume in place, mounted afresh: what is
// on the disk, and not what a cache says.
func (r *faultRig) fromDisk(spec, device string, granularity time.Duration) {
	r.t.Helper()
	r.hook("stop")
	r.Unmount(r.dir)
	if err := oracle.Fsck(fstypeOf(spec), device); err != nil {
		r.t.Error(err)
	}
	vol.Run(r.t, "mount", device, r.dir)
	r.judge("from disk", r.dir, granularity)
	r.released(spec, device, "")
}

// off gives the devices back.
func (r *faultRig) off() {
	r.t.Helper()
	for _, m := range vol.Mounts(r.dir) {
		r.Unmount(m)
	}
	r.disks.stop()
}
