package record_test

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fsmigrate/fsmigrate/blockdev/blocktest"
	"github.com/fsmigrate/fsmigrate/blockdev/record"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { blocktest.Main(m) }

// recorder is the process that serves: never the one that uses what is served.
type recorder struct {
	t   *testing.T
	dir string
	cmd *exec.Cmd
}

// start runs the recorder until stop, or the end of the test.
func start(t *testing.T, bin, dir string, args ...string) *recorder {
	t.Helper()
	r := &recorder{t: t, dir: dir, cmd: exec.Command(bin, append(args, "--dir", dir)...)}
	r.cmd.Stderr = os.Stderr
	out, err := r.cmd.StdoutPipe()
	if err == nil {
		err = r.cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = r.cmd.Process.Kill()
		_ = r.cmd.Wait()
		for unix.Unmount(dir, unix.MNT_DETACH) == nil {
		}
	})
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		t.Fatalf("recorder: %q, %v", line, err)
	}
	return r
}

// stop ends it in good order: the mount is gone, the log is whole.
func (r *recorder) stop() {
	r.t.Helper()
	if err := unix.Unmount(r.dir, 0); err != nil {
		r.t.Fatal(err)
	}
	if err := r.cmd.Wait(); err != nil {
		r.t.Fatalf("recorder: %v", err)
	}
}

func buildRecorder(t *testing.T) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "recorder")
	blocktest.Run(t, "go", "build", "-o", bin, "github.com/fsmigrate/fsmigrate/e2e/cmd/recorder")
	return bin
}

// loops are loop devices with direct I/O over files, which go with their last user.
func loops(t *testing.T, files ...string) (devices []string) {
	t.Helper()
	for _, f := range files {
		d := strings.TrimSpace(blocktest.Run(t, "losetup", "--find", "--show", "--direct-io=on", f))
		t.Cleanup(func() { _ = exec.Command("losetup", "-d", d).Run() })
		if got := strings.TrimSpace(blocktest.Run(t, "losetup", "-n", "-O", "DIO", d)); got != "1" {
			t.Fatalf("%s has no direct I/O: %q", d, got)
		}
		devices = append(devices, d)
	}
	return devices
}

func sum(t *testing.T, path string) string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}

// Two file systems are made and filled on recorded images. The whole log gives them back
// byte for byte, a mark stands where it was put, and the state of that moment, served
// again, mounts and has what was synced before it.
func TestServedToLoops(t *testing.T) {
	bin, dir := buildRecorder(t), t.TempDir()
	images, log := filepath.Join(dir, "images"), filepath.Join(dir, "log")
	if err := os.Mkdir(images, 0o700); err != nil {
		t.Fatal(err)
	}
	r := start(t, bin, images, "record", "--log", log, "--images", "one=64M,two=320M")
	devices := loops(t, images+"/one", images+"/two")
	a, b := blocktest.TempPoint(t), blocktest.TempPoint(t)
	blocktest.Mkfs(t, "ext4", devices[0])
	blocktest.Mkfs(t, "xfs", devices[1])
	blocktest.MountAt(t, devices[0], "ext4", a)
	blocktest.MountAt(t, devices[1], "xfs", b)
	script := `set -e; for i in $(seq 40); do head -c $((i*3000)) /dev/urandom >"$1/$i"; cp "$1/$i" "$2/$i"; done
		sync -f "$1"; sync -f "$2"; (cd "$1"; sha256sum [0-9]*) >"$3"; printf 'all synced' >"$4/marks"; rm "$1"/1* "$2"/1*; sync -f "$1"; sync -f "$2"`
	blocktest.Run(t, "bash", "-c", script, "-", a, b, filepath.Join(dir, "sums"), images)
	blocktest.Run(t, "umount", a, b)
	want := []string{sum(t, devices[0]), sum(t, devices[1])}
	for _, d := range devices {
		blocktest.Run(t, "losetup", "-d", d)
	}
	r.stop()

	l, err := record.OpenLog(log)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	marked, flushes := 0, 0
	for n, e := range l.Entries {
		if e.Has(record.FlagMark) && e.Mark == "all synced" {
			marked = n + 1
		}
		if e.Has(record.FlagFlush) {
			flushes++
		}
	}
	if marked == 0 || flushes < 4 || marked == len(l.Entries) {
		t.Fatalf("%d entries, %d flushes, mark at %d", len(l.Entries), flushes, marked)
	}
	for i, loss := range []record.Loss{record.LoseNone, record.LoseAll, record.LoseTorn} {
		cut := record.Cut{Entries: marked, Loss: loss, Seed: uint64(i)}
		if i == 0 {
			cut.Entries = len(l.Entries)
		}
		began := time.Now()
		r := start(t, bin, images, "serve", "--log", log, "--cut", cut.String())
		devices := loops(t, images+"/one", images+"/two")
		if i == 0 {
			if got := []string{sum(t, devices[0]), sum(t, devices[1])}; got[0] != want[0] || got[1] != want[1] {
				t.Errorf("the whole log is not what the images were: %v, want %v", got, want)
			}
		} else {
			blocktest.MountAt(t, devices[0], "ext4", a)
			blocktest.MountAt(t, devices[1], "xfs", b)
			for _, d := range []string{a, b} { // both can be written to, and have everything that was synced
				blocktest.Run(t, "bash", "-ec", `cd "$1"; sha256sum --quiet -c "$2"; head -c 100000 /dev/urandom >new; sync -f .`, "-", d, filepath.Join(dir, "sums"))
			}
			blocktest.Run(t, "umount", a, b)
			blocktest.Run(t, "e2fsck", "-fn", devices[0])
			blocktest.Run(t, "xfs_repair", "-n", devices[1])
		}
		for _, d := range devices {
			blocktest.Run(t, "losetup", "-d", d)
		}
		r.stop()
		t.Logf("%v: %v", cut, time.Since(began))
	}
	var again bytes.Buffer
	cmd := exec.Command(bin, "show", "--log", log, "--from", fmt.Sprint(marked-1), "--to", fmt.Sprint(marked))
	cmd.Stdout = &again
	if err := cmd.Run(); err != nil || again.String() != fmt.Sprintf("%d mark all synced\n", marked-1) {
		t.Errorf("show: %v, %q", err, again.String())
	}
}

// A recorder that is killed under mounted volumes leaves nothing that cannot be taken away:
// they get errors, and the log is readable as far as it was written.
func TestKilledUnderMounts(t *testing.T) {
	bin, dir := buildRecorder(t), t.TempDir()
	images, log := filepath.Join(dir, "images"), filepath.Join(dir, "log")
	if err := os.Mkdir(images, 0o700); err != nil {
		t.Fatal(err)
	}
	r := start(t, bin, images, "record", "--log", log, "--images", "one=64M")
	device := loops(t, images+"/one")[0]
	a := blocktest.TempPoint(t)
	blocktest.Mkfs(t, "ext4", device)
	blocktest.MountAt(t, device, "ext4", a)
	blocktest.Run(t, "bash", "-c", `echo x >"$1/x"; sync "$1/x"`, "-", a)
	if err := r.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = r.cmd.Wait()
	if err := exec.Command("bash", "-c", `echo y >"$1/y" && sync "$1/y"`, "-", a).Run(); err == nil {
		t.Error("what nobody serves was synced")
	}
	blocktest.Run(t, "umount", a)
	blocktest.Run(t, "losetup", "-d", device)
	blocktest.Run(t, "umount", images)
	l, err := record.OpenLog(log)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if n := len(l.Entries); n < 10 {
		t.Errorf("%d entries", n)
	}
}
