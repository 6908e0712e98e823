package e2e

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/fsmigrate/fsmigrate/e2e/vol"
)

// small makes a rig with a few files and hooks that are scripts a test can change.
func small(t *testing.T, p pair, mib int64) *rig {
	t.Helper()
	r := newRig(t, p, mib)
	vol.Run(t, "bash", "-c", `mkdir "$0"/dir; for i in $(seq 200); do echo $i > "$0"/dir/f$i; done; sync -f "$0"`, r.dir)
	for _, hook := range []string{"stop", "start", "health"} {
		r.script(hook, "exit 0")
	}
	return r
}

func (r *rig) script(hook, text string) {
	r.t.Helper()
	if err := os.WriteFile(r.Path(hook+".sh"), []byte(text+"\n"), 0o755); err != nil {
		r.t.Fatal(err)
	}
}

// begin runs a migration up to Hold, or to whichever phase is named.
func (r *rig) begin(env []string, phase string, extra ...string) {
	r.t.Helper()
	args := []string{"run", r.dir, "--to", r.pair.to, "--spare", r.spare, "--id", id, "--yes", "--no-supervisor", "--policy", "asap",
		"--pause-budget", "20s", "--deadline", "30s", "--report", r.report,
		"--stop", "sh " + r.Path("stop.sh"), "--start", "sh " + r.Path("start.sh"), "--health", "sh " + r.Path("health.sh"),
		"--stop-timeout", "2s", "--start-timeout", "2s", "--health-timeout", "2s"}
	r.background(env, append(args, extra...)...)
	r.waitPhase(toHold, phase)
}

// insist asks an engine that may only just be starting.
func (r *rig) insist(what string) {
	r.t.Helper()
	var code int
	var out string
	if !vol.Eventually(toEnd, func() bool { code, out = r.cmd(what, id); return code == 0 || what == "rollback" && code == 6 }) {
		r.t.Fatalf("%s: exit %d\n%s", what, code, out)
	}
}

// said is what the engine printed so far.
func (r *rig) said() string {
	b, _ := os.ReadFile(r.Path("engine.out"))
	return string(b)
}

// says waits for words of the engine.
func (r *rig) says(limit time.Duration, words string) bool {
	return vol.Eventually(limit, func() bool {
		return strings.Contains(strings.ToLower(strings.Join(strings.Fields(r.said()), " ")), strings.ToLower(words))
	})
}

// sourceIs is a digest of the source's objects: names, owners, modes, times, content.
func (r *rig) sourceIs() string {
	r.t.Helper()
	return vol.Run(r.t, "bash", "-c", `find "$0" -xdev -printf '%P %i %s %m %U %G %T@\n' | sort; find "$0" -xdev -type f -print0 | sort -z | xargs -0 -r cat | sha256sum`, r.dir)
}

// over ends the migration and proves that only the source's mount and the two loops are left.
func (r *rig) over(device string) {
	r.t.Helper()
	if r.engine != nil && !r.engine.ended() {
		_, _ = r.cmd("abort", id)
		r.engine.code(r.t, toEnd)
	}
	for _, p := range r.processes() {
		r.t.Errorf("process %d is left: %v", p.PID, p.Args)
	}
	if mounts := vol.Mounts(r.dir); len(mounts) != 1 {
		r.t.Errorf("mounts at %s: %q", r.dir, mounts)
	}
	on := strings.TrimSpace(vol.Run(r.t, "findmnt", "-n", "-o", "SOURCE,OPTIONS", "-M", r.dir))
	if !strings.HasPrefix(on, device+" ") || !strings.Contains(on, "rw") {
		r.t.Errorf("in place is %q, want %s, writable", on, device)
	}
	if b, err := os.ReadFile(r.fstab); err != nil || strings.Contains(string(b), " fsmigrate ") {
		r.t.Errorf("fstab: %v\n%s", err, b)
	}
	if err := exec.Command("touch", filepath.Join(r.dir, "alive")).Run(); err != nil {
		r.t.Errorf("the volume cannot be written: %v", err)
	}
}

// One migration in Hold, and what can go wrong before anything is swapped.
func TestBadDaysInHold(t *testing.T) {
	r := small(t, pairs[0], 400)
	before := r.sourceIs()
	r.begin(nil, "hold")
	day := func(condition string, do func(d badDay)) {
		d := dayOf(t, condition)
		do(d)
		var s map[string]any
		var err error
		if !vol.Eventually(20*time.Second, func() bool { s, err = r.status(); return err == nil && s["phase"] == "hold" && s["truth"] == "source" }) {
			t.Errorf("%s: afterwards %v in %v, %v", condition, s["truth"], s["phase"], err)
		}
	}
	cutover := func(d badDay) {
		code, out := r.cmd("cutover", id)
		d.judge(t, code, out)
	}
	day("a second run on the same source", func(d badDay) {
		code, out := r.cmd("run", r.dir, "--to", "xfs", "--spare", r.Device(400), "--id", "t2", "--yes", "--no-supervisor", "--accept-erofs")
		d.judge(t, code, out)
	})
	day("another mount of the source appears", func(d badDay) {
		elsewhere := r.Path("elsewhere")
		vol.Run(t, "mkdir", elsewhere)
		vol.Run(t, "mount", "--bind", r.dir, elsewhere)
		cutover(d)
		vol.Run(t, "umount", elsewhere)
	})
	day("a writer never closes", func(d badDay) {
		held, err := os.OpenFile(filepath.Join(r.dir, "dir", "held-open"), os.O_CREATE|os.O_WRONLY, 0o644)
		if err != nil {
			t.Fatal(err)
		}
		cutover(d)
		held.Close()
		vol.Run(t, "rm", held.Name())
	})
	day("stop fails", func(d badDay) { r.script("stop", "echo will not; exit 3"); cutover(d) })
	day("stop hangs", func(d badDay) { r.script("stop", "exec sleep 1000"); cutover(d) })
	r.script("stop", "exit 0")
	vol.Run(t, "touch", "-r", filepath.Join(r.dir, "dir", "f1"), filepath.Join(r.dir, "dir"))

	d := dayOf(t, "SIGTERM before the cutover")
	_ = r.engine.cmd.Process.Signal(syscall.SIGTERM)
	d.judge(t, r.engine.code(t, toEnd), r.said())
	r.background(nil, "resume", id)
	r.waitPhase(toHold, "hold")

	r.insist("cutover")
	r.waitPhase(toEnd, "reverse")
	d = dayOf(t, "abort after the cutover")
	code, out := r.cmd("abort", id)
	d.judge(t, code, out)
	d = dayOf(t, "SIGTERM after the cutover")
	_ = r.engine.cmd.Process.Signal(syscall.SIGTERM)
	d.judge(t, r.engine.code(t, toEnd), r.said())
	if got := r.fsType(); got != "xfs" {
		t.Errorf("after a stop in reverse %s is in place", got)
	}
	r.background(nil, "resume", id)
	r.insist("rollback")
	r.engine.code(t, toEnd)
	vol.Run(t, "touch", "-r", filepath.Join(r.dir, "dir", "f1"), filepath.Join(r.dir, "dir"))
	if after := r.sourceIs(); !sameBut(before, after, " dir", "dir ") {
		t.Errorf("the source changed:\n%s\n--- now:\n%s", before, after)
	}
	r.over(r.source)
}

// sameBut compares two lists of lines but for those that begin with one of the words.
func sameBut(a, b string, words ...string) bool {
	strip := func(s string) string {
		var out []string
	lines:
		for line := range strings.Lines(s) {
			for _, w := range words {
				if strings.HasPrefix(line, w) {
					continue lines
				}
			}
			out = append(out, line)
		}
		return strings.Join(out, "")
	}
	return strip(a) == strip(b)
}

// A service that does not come up on the new volume is taken back to the old one.
func TestBadDaysOfTheService(t *testing.T) {
	for condition, hook := range map[string]string{"start fails": "start", "start hangs": "start", "health fails": "health", "health hangs": "health"} {
		t.Run(condition, func(t *testing.T) {
			d := dayOf(t, condition)
			r := small(t, pairs[0], 400)
			wrong := "exit 3"
			if strings.HasSuffix(condition, "hangs") {
				wrong = "exec sleep 1000"
			}
			// Only on the new volume: on the way back it is well again.
			r.script(hook, `if [ "$FSMIGRATE_TRUTH" = shadow ]; then `+wrong+`; fi; exit 0`)
			r.begin(nil, "hold")
			code, out := r.cmd("cutover", id)
			if code == 0 {
				t.Errorf("%s: the cutover exits 0\n%s", condition, out)
			}
			d.judge(t, r.engine.code(t, toEnd), r.said())
			r.over(r.source)
		})
	}
}

// fill writes a file of so many MiB to the source and syncs it.
func (r *rig) fill(name string, mib int) {
	r.t.Helper()
	vol.Run(r.t, "dd", "if=/dev/urandom", "of="+filepath.Join(r.dir, name), "bs=1M", fmt.Sprint("count=", mib), "conv=fsync", "status=none")
}

func (r *rig) paused() bool {
	s, err := r.status()
	yes, _ := s["paused"].(bool)
	return err == nil && yes
}

// A spare that fills up pauses the migration; an enlarged one lets it go on.
func TestBadDaysSpareFull(t *testing.T) {
	for _, to := range []string{"xfs", "ext4", "btrfs"} {
		t.Run(to, func(t *testing.T) {
			r := small(t, pair{spec: "ext4", to: to}, 900)
			r.Detach(r.spare)
			image := r.Image(320)
			r.spare = r.Loop(image)
			r.begin(nil, "hold")
			r.fill("more", 400)
			if !vol.Eventually(60*time.Second, r.paused) {
				t.Fatalf("a full spare does not pause it:\n%s", r.said())
			}
			dayOf(t, "SPARE full in the middle, enlarged").judge(t, 0, r.said())
			if to != "xfs" { // given up
				d := dayOf(t, "SPARE full in the middle, given up")
				r.must([]string{"abort", id}, 0, 5)
				d.judge(t, r.engine.code(t, toEnd), r.said())
				if to == "btrfs" {
					r.over(r.source)
					return
				}
			}
			if r.engine.ended() {
				r.over(r.source)
				return
			}
			vol.Run(t, "truncate", "-s", "1200M", image)
			vol.Run(t, "losetup", "-c", r.spare)
			r.must([]string{"resume", id})
			r.waitPhase(toHold, "hold")
			if !vol.Eventually(60*time.Second, func() bool { s, err := r.status(); n, _ := s["dirty_units"].(float64); return err == nil && n == 0 }) {
				t.Fatalf("it does not catch up:\n%s", r.said())
			}
			r.insist("cutover")
			r.insist("finalize")
			if code := r.engine.code(t, toEnd); code != 0 {
				t.Fatalf("exit %d", code)
			}
			old := r.Mount(r.source, "old", "ro")
			r.sameTree("after the spare was enlarged", old, r.dir, 0)
			r.over(r.spare)
		})
	}
}

// A sparse spare whose volume below fills up pauses the migration.
func TestBadDaysBelowSpareFull(t *testing.T) {
	r := small(t, pairs[0], 400)
	r.Detach(r.spare)
	below := r.Path("below")
	vol.Run(t, "mkdir", below)
	vol.Run(t, "mount", "-t", "tmpfs", "-o", "size=150M", "none", below)
	vol.Run(t, "truncate", "-s", "500M", filepath.Join(below, "image"))
	r.spare = strings.TrimSpace(vol.Run(t, "losetup", "--find", "--show", filepath.Join(below, "image")))
	r.begin(nil, "hold")
	r.fill("more", 200)
	if !vol.Eventually(30*time.Second, func() bool { return r.paused() || r.engine.ended() }) {
		t.Fatalf("it does not pause:\n%s", r.said())
	}
	dayOf(t, "what lies below SPARE is full").judge(t, 0, r.said())
	r.over(r.source)
}

// xfsGoingDown is XFS_IOC_GOINGDOWN: from now on every access answers EIO, as after an I/O
// error in the volume's log.
const xfsGoingDown = 0x8004587d

// A spare that fails is given up; the source goes on as if nothing had been.
func TestBadDaysSpareFails(t *testing.T) {
	d := dayOf(t, "I/O errors on SPARE")
	r := small(t, pairs[0], 400)
	r.begin(nil, "hold")
	before := r.sourceIs()
	fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", r.engine.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	down := false
	for _, path := range fds {
		var st unix.Statfs_t
		if unix.Statfs(path, &st) != nil || st.Type != unix.XFS_SUPER_MAGIC || down {
			continue
		}
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			continue
		}
		noFlush := 2
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), xfsGoingDown, uintptr(unsafe.Pointer(&noFlush)))
		down = errno == 0
		unix.Close(fd)
	}
	if !down {
		t.Fatal("the shadow is not found among the engine's descriptors")
	}
	r.fill("more", 8)
	d.judge(t, r.engine.code(t, toEnd), r.said())
	vol.Run(t, "rm", filepath.Join(r.dir, "more"))
	if after := r.sourceIs(); !sameBut(before, after, " ") {
		t.Errorf("the source changed:\n%s\n--- now:\n%s", before, after)
	}
	r.over(r.source)
}

// A file of the source that cannot be read is named, and nothing is cut over without it.
func TestBadDaysSourceUnreadable(t *testing.T) {
	d := dayOf(t, "I/O errors on SOURCE")
	r := newRig(t, pair{spec: "btrfs", to: "xfs"}, 400)
	for _, hook := range []string{"stop", "start", "health"} {
		r.script(hook, "exit 0")
	}
	// btrfs knows by its checksums that a block is not what was written.
	victim, marker := filepath.Join(r.dir, "victim"), bytes.Repeat([]byte("FSMIGRATE-VICTIM"), 4096)
	if err := os.WriteFile(victim, marker, 0o644); err != nil {
		t.Fatal(err)
	}
	vol.Run(t, "touch", filepath.Join(r.dir, "sound"))
	r.Unmount(r.dir)
	image := strings.TrimSpace(vol.Run(t, "losetup", "-n", "-O", "BACK-FILE", r.source))
	at := strings.SplitN(vol.Run(t, "grep", "-obUa", "-m1", "FSMIGRATE-VICTIM", image), ":", 2)[0]
	vol.Run(t, "bash", "-c", `printf spoilt | dd of="$0" bs=1 seek="$1" conv=notrunc status=none && sync "$0"; echo 1 > /proc/sys/vm/drop_caches`, r.source, at)
	vol.Run(t, "mount", r.source, r.dir)
	r.begin(nil, "hold")
	code, out := r.cmd("cutover", id)
	_, page := r.cmd("status", id)
	d.judge(t, code, out+page)
	if s, err := r.status(); err != nil || !strings.Contains(fmt.Sprint(s["blockers"]), "source-unreadable") {
		t.Errorf("that it cannot be read is not said: %v, %v", s["blockers"], err)
	}
	r.over(r.source)

	// Waived, it counts behind the fence as well, and only what cannot be read is missing.
	vol.Run(t, "rm", "-r", r.Path("state/"+id))
	r.begin(nil, "hold", "--wipe", "--waive", "source-unreadable=it is in the backup")
	r.must([]string{"cutover", id})
	vol.Run(t, "touch", filepath.Join(r.dir, "later"))
	if names := vol.Run(t, "ls", r.dir); strings.Contains(names, "victim") || !strings.Contains(names, "sound") {
		t.Errorf("after the cutover there is %q", names)
	}
	if s, err := r.status(); err != nil || fmt.Sprint(s["proof"].(map[string]any)["waived"]) != "1" {
		t.Errorf("the proof does not count it as waived: %v, %v", s["proof"], err)
	}
	r.must([]string{"rollback", id}, 0, 6)
	r.engine.code(t, toEnd)
	if names := vol.Run(t, "ls", r.dir); !strings.Contains(names, "victim") || !strings.Contains(names, "later") {
		t.Errorf("after the rollback there is %q: what was left behind is on the source still", names)
	}
}

// The application's data cannot be written, and our sync gets the error in its place.
func TestBadDaysSyncError(t *testing.T) {
	d := dayOf(t, "a failed write of the application met by us")
	r := newRig(t, pair{spec: "ext4", to: "xfs"}, 400)
	for _, hook := range []string{"stop", "start", "health"} {
		r.script(hook, "exit 0")
	}
	// The source's image lies on a volume that is full; the blocks of one file have no
	// storage below them.
	r.Unmount(r.dir)
	r.Detach(r.source)
	below := r.Path("below")
	vol.Run(t, "mkdir", below)
	vol.Run(t, "mount", "-t", "tmpfs", "-o", "size=300M", "none", below)
	image := filepath.Join(below, "image")
	vol.Run(t, "truncate", "-s", "400M", image)
	r.source = strings.TrimSpace(vol.Run(t, "losetup", "--find", "--show", image))
	vol.Run(t, "mke2fs", "-q", "-F", "-t", "ext4", "-O", "^has_journal", "-b", "4096", r.source)
	vol.Run(t, "mount", r.source, r.dir)
	if err := os.WriteFile(r.fstab, []byte(r.source+" "+r.dir+" ext4 defaults 0 2\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	r.fill("victim", 4)
	vol.Run(t, "sync", "-f", r.dir)
	r.begin(nil, "hold")
	victim := filepath.Join(r.dir, "victim")
	vol.Run(t, "bash", "-c", `set -e
		filefrag -v -b4096 "$0" | awk '/^ *[0-9]+:/ {sub(/\.\..*/,"",$4); sub(/:/,"",$6); print $4, $6}' | while read -r start n; do
			fallocate -p -o $((start*4096)) -l $((n*4096)) "$1"
		done
		dd if=/dev/zero of="$2"/filler bs=1M status=none || true
		dd if=/dev/zero of="$2"/filler2 bs=4k status=none || true
		dd if=/dev/urandom of="$0" bs=1M count=1 conv=notrunc status=none`, victim, image, below)
	var code int
	var out string
	if !vol.Eventually(45*time.Second, func() bool {
		code, out = r.cmd("cutover", id)
		return strings.Contains(out, "source-sync-error") || code == 0
	}) {
		t.Logf("engine: %s", r.said())
	}
	d.judge(t, code, out)
	if !strings.Contains(out, "victim") {
		t.Errorf("the file is not named:\n%s", out)
	}
	vol.Run(t, "bash", "-c", `rm -f "$0"/filler*`, below)
	r.must([]string{"abort", id}, 0, 5)
	r.engine.code(t, toEnd)
	r.over(r.source)
}

// No room left for the journal: the engine ends, resumably.
func TestBadDaysStateFull(t *testing.T) {
	d := dayOf(t, "state directory full in the middle")
	r := small(t, pairs[0], 400)
	_, r.state = r.Volume("ext4", 220, "statevol")
	if err := os.Chmod(r.state, 0o700); err != nil {
		t.Fatal(err)
	}
	r.begin(nil, "hold")
	vol.Run(t, "bash", "-c", `dd if=/dev/zero of="$0"/filler bs=64k status=none; dd if=/dev/zero of="$0"/filler2 bs=512 status=none; true`, r.state)
	vol.Run(t, "bash", "-c", `mkdir "$0"/many; for i in $(seq 20000); do echo $i > "$0"/many/$i; done`, r.dir)
	select {
	case <-r.engine.done:
		d.judge(t, r.engine.cmd.ProcessState.ExitCode(), r.said())
	case <-time.After(40 * time.Second):
		t.Fatalf("it goes on without a journal:\n%s", r.said())
	}
	vol.Run(t, "bash", "-c", `rm "$0"/filler*`, r.state)
	r.background(nil, "resume", id)
	r.waitPhase(toHold, "hold")
	r.insist("cutover") // proves that nothing was lost by it
	r.waitPhase(toEnd, "reverse")
	r.insist("rollback")
	r.engine.code(t, toEnd)
	r.over(r.source)
}

// A journal over its quota keeps one mark that stands for all, and says so.
func TestBadDaysJournalQuota(t *testing.T) {
	d := dayOf(t, "the journal is over its quota")
	r := small(t, pairs[0], 400)
	r.begin([]string{"FSMIGRATE_JOURNAL_QUOTA=1"}, "hold")
	vol.Run(t, "bash", "-c", `for i in $(seq 500); do echo more >> "$0"/dir/g$i; done`, r.dir)
	if !r.says(30*time.Second, d.message) {
		t.Errorf("it is not said:\n%s", r.said())
	}
	d.judge(t, 0, r.said())
	r.insist("cutover")
	r.insist("finalize")
	if code := r.engine.code(t, toEnd); code != 0 {
		t.Fatalf("exit %d", code)
	}
	r.sameTree("with a coarse journal", r.Mount(r.source, "old", "ro"), r.dir, time.Second)
	r.over(r.spare)
}
