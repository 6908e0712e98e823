package vol

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Lab is the place of one test: everything in it lives below Dir.
type Lab struct {
	T   testing.TB
	Dir string

	images int
}

// New makes a lab and registers its clean-up, which runs after every clean-up
// that the test registers later.
func New(t testing.TB) *Lab {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this test needs root: it mounts volumes on loop devices")
	}
	l := &Lab{T: t, Dir: t.TempDir()}
	t.Cleanup(l.close)
	return l
}

// Path names a file in the lab.
func (l *Lab) Path(name string) string { return filepath.Join(l.Dir, name) }

// Image makes a sparse file of the size in MiB.
func (l *Lab) Image(mib int64) string {
	l.T.Helper()
	l.images++
	path := l.Path(fmt.Sprintf("image%d", l.images))
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err == nil {
		err = errors.Join(f.Truncate(mib<<20), f.Close())
	}
	if err != nil {
		l.T.Fatalf("make image: %v", err)
	}
	return path
}

// Loop attaches an image.
func (l *Lab) Loop(image string) string {
	l.T.Helper()
	return strings.TrimSpace(Run(l.T, "losetup", "--find", "--show", "--direct-io=on", image))
}

// Device is a fresh loop device of the size in MiB.
func (l *Lab) Device(mib int64) string {
	l.T.Helper()
	return l.Loop(l.Image(mib))
}

// Mount mounts a device on a new directory of the lab.
func (l *Lab) Mount(device, name string, options ...string) string {
	l.T.Helper()
	dir := l.Path(name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		l.T.Fatal(err)
	}
	args := []string{}
	if len(options) > 0 {
		args = append(args, "-o", strings.Join(options, ","))
	}
	Run(l.T, "mount", append(args, device, dir)...)
	return dir
}

// Volume formats a fresh device of the size as spec says and mounts it.
func (l *Lab) Volume(spec string, mib int64, name string) (device, dir string) {
	l.T.Helper()
	device = l.Device(mib)
	Mkfs(l.T, spec, device)
	return device, l.Mount(device, name)
}

// Unmount takes the topmost mount off dir.
func (l *Lab) Unmount(dir string) {
	l.T.Helper()
	if err := unix.Unmount(dir, 0); err != nil {
		l.T.Fatalf("unmount %s: %v", dir, err)
	}
}

// Mkfs formats device: ext2, ext3, ext4, ext4-128, xfs, btrfs.
func Mkfs(t testing.TB, spec, device string) {
	t.Helper()
	quiet := []string{"-q", "-F", "-b", "4096", "-E", "lazy_itable_init=0,lazy_journal_init=0"}
	switch spec {
	case "ext2", "ext3", "ext4":
		Run(t, "mkfs."+spec, append(quiet, device)...)
	case "ext4-128":
		Run(t, "mkfs.ext4", append(quiet, "-I", "128", device)...)
	case "xfs":
		Run(t, "mkfs.xfs", "-q", "-f", device)
	case "btrfs":
		Run(t, "mkfs.btrfs", "-q", "-f", device)
	default:
		t.Fatalf("mkfs: unknown volume %q", spec)
	}
}

// Run runs a command that must succeed and returns its standard output.
func Run(t testing.TB, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s%s", name, strings.Join(args, " "), err, out, stderr.Bytes())
	}
	return string(out)
}

// Eventually polls cond, for what the kernel sends no event about.
func Eventually(limit time.Duration, cond func() bool) bool {
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if cond() {
			return true
		}
		select {
		case <-deadline.C:
			return cond()
		case <-tick.C:
		}
	}
}
