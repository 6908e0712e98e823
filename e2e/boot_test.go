package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/fsmigrate/fsmigrate/e2e/vol"
	"golang.org/x/sys/unix"
)

// powerOff ends everything that a reboot would end: the program, its watchdog,
// the application, and every mount of either device.
func (r *rig) powerOff() {
	r.t.Helper()
	for _, p := range r.processes() {
		_ = syscall.Kill(p.PID, syscall.SIGKILL)
	}
	if r.engine != nil {
		<-r.engine.done
	}
	r.killApplication()
	if !vol.Eventually(30*time.Second, func() bool {
		for range vol.Mounts(r.dir) {
			_ = unix.Unmount(r.dir, 0)
		}
		return len(r.processes()) == 0 && len(vol.Mounts(r.dir)) == 0 && exclusive(r.source) && exclusive(r.spare)
	}) {
		r.t.Fatalf("not off: processes %v, mounts %v, source free %t, spare free %t",
			r.processes(), vol.Mounts(r.dir), exclusive(r.source), exclusive(r.spare))
	}
}

// exclusive proves that nothing mounts the device, in any namespace.
func exclusive(device string) bool {
	fd, err := unix.Open(device, unix.O_RDONLY|unix.O_EXCL|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	unix.Close(fd)
	return true
}

// boot mounts what fstab says, as mount(8) would: by mount.fsmigrate while the
// migration lasts, natively before and after.
func (r *rig) boot() {
	r.t.Helper()
	b, err := os.ReadFile(r.fstab)
	if err != nil {
		r.t.Fatal(err)
	}
	for _, line := range strings.Split(string(b), "\n") {
		f := strings.Fields(line)
		if len(f) < 4 || f[0][0] == '#' || f[1] != r.dir {
			continue
		}
		cmd := exec.Command("mount", "-t", f[2], "-o", f[3], f[0], f[1])
		if f[2] == "fsmigrate" {
			cmd = exec.Command(programs.mountHelper, f[0], f[1], "-o", f[3])
		}
		cmd.Env = r.env()
		if out, err := cmd.CombinedOutput(); err != nil {
			r.t.Fatalf("boot: %v: %v\n%s\nfstab:\n%s", cmd.Args, err, out, b)
		}
		if n := len(vol.Mounts(r.dir)); n != 1 {
			r.t.Fatalf("boot: %d mounts at %s", n, r.dir)
		}
		return
	}
	r.t.Fatalf("boot: no entry for %s in fstab:\n%s", r.dir, b)
}

// reboot is both, and the judgement: what boots is the one truth, with everything
// that was acknowledged. The application is started as the boot would.
func (r *rig) reboot(what string) {
	r.t.Helper()
	r.powerOff()
	r.boot()
	r.judge(fmt.Sprintf("booted %s, %s", what, r.fsType()), r.dir, r.granularity())
	r.hook("start")
}

// granularity is what mtimes may have lost: only after a way back.
func (r *rig) granularity() time.Duration {
	if r.fsType() == fstypeOf(r.pair.spec) {
		return r.pair.back
	}
	return 0
}
