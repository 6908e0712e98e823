package blocktest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fsmigrate/fsmigrate/blockdev"
)

var serial atomic.Int64

// MakeImage makes a sparse file of size bytes in the test's directory.
func MakeImage(t testing.TB, size int64) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), fmt.Sprintf("image%d", serial.Add(1)))
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

// Loop loops file and returns the device.
func Loop(t testing.TB, file string) string {
	t.Helper()
	return LoopWith(t, file, blockdev.LoopOptions{}).Path
}

// LoopWith is Loop with options. The test may detach the loop itself.
func LoopWith(t testing.TB, file string, o blockdev.LoopOptions) *blockdev.Loop {
	t.Helper()
	l, err := blockdev.AttachLoop(file, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		detachMounts(t, l.Path)
		if err := l.Detach(); err != nil {
			t.Error(err)
		}
	})
	return l
}

// Mkfs runs the real mkfs of fstype on dev.
func Mkfs(t testing.TB, fstype, dev string, args ...string) {
	t.Helper()
	force := "-F"
	switch fstype {
	case "xfs", "btrfs":
		force = "-f"
	}
	argv := append([]string{"-q", force}, args...)
	Run(t, "mkfs."+fstype, append(argv, dev)...)
}

// MountTemp mounts dev on a fresh directory. opts are as for mount -o, each may
// be a list; flags of the mount and options of the superblock may be mixed.
func MountTemp(t testing.TB, dev, fstype string, opts ...string) string {
	t.Helper()
	dir := TempPoint(t)
	MountAt(t, dev, fstype, dir, opts...)
	return dir
}

// MountAt mounts dev on dir, which TempPoint made.
func MountAt(t testing.TB, dev, fstype, dir string, opts ...string) {
	t.Helper()
	args := []string{"-n", "-t", fstype}
	if len(opts) > 0 {
		args = append(args, "-o", strings.Join(opts, ","))
	}
	Run(t, "mount", append(args, dev, dir)...)
}

// TempPoint makes a directory to mount on. All that is mounted there or below,
// in any number of layers, is detached when the test ends.
func TempPoint(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "mnt")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { Detach(t, dir) })
	return dir
}

// Detach lazily unmounts every layer at dir.
func Detach(t testing.TB, dir string) {
	t.Helper()
	for range 64 {
		if err := unix.Unmount(dir, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
			break
		}
	}
	if m, err := blockdev.MountAt(dir); err == nil {
		t.Errorf("%s is still a mount point of %s", dir, m.Source)
	}
}

// detachMounts unmounts dev wherever it is: where the test left it in our
// namespace, and in namespaces that were made meanwhile and took a copy along.
func detachMounts(t testing.TB, dev string) {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(dev, &st); err != nil {
		t.Error(err)
		return
	}
	for range 64 {
		mounts, err := blockdev.AllMounts()
		if err != nil {
			t.Error(err)
			return
		}
		at := slices.IndexFunc(mounts, func(m blockdev.Mount) bool { return m.Dev == st.Rdev || m.Source == dev })
		if at < 0 || !unmountAnywhere(mounts[at], mounts[0].NS) {
			return
		}
	}
}

func unmountAnywhere(m blockdev.Mount, own uint64) bool {
	if m.NS == own {
		return unix.Unmount(m.Point, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW) == nil
	}
	return exec.Command("nsenter", "-t", fmt.Sprint(m.PID), "-m", "umount", "-n", "-l", m.Point).Run() == nil
}

// NewVolume makes a file system of fstype on a loop device over a sparse image
// of size bytes, and mounts it. It gives the mount point and the device.
func NewVolume(t testing.TB, fstype string, size int64, mkfsArgs ...string) (dir, dev string) {
	t.Helper()
	dev = NewDevice(t, fstype, size, mkfsArgs...)
	return MountTemp(t, dev, fstype), dev
}

// NewDevice is NewVolume without the mount.
func NewDevice(t testing.TB, fstype string, size int64, mkfsArgs ...string) string {
	t.Helper()
	dev := Loop(t, MakeImage(t, size))
	Mkfs(t, fstype, dev, mkfsArgs...)
	return dev
}

// MinSize is the smallest volume that mkfs of fstype makes without complaint:
// xfs wants 300 MiB, btrfs 110 MiB. Images are sparse.
func MinSize(fstype string) int64 {
	switch fstype {
	case "xfs":
		return 320 << 20
	case "btrfs":
		return 256 << 20
	default:
		return 32 << 20
	}
}

// Run runs a command and returns its output; a failing one fails the test.
func Run(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}
