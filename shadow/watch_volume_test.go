package shadow

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// testVolume is a real volume on a loop device.
type testVolume struct {
	t      testing.TB
	dir    string
	device string
	fd     int
	codec  *HandleCodec
}

var volumeKinds = []struct {
	name string
	mkfs []string
}{
	{"ext4", []string{"mkfs.ext4", "-q", "-F"}},
	{"ext4-128", []string{"mkfs.ext4", "-q", "-F", "-I", "128"}},
	{"xfs", []string{"mkfs.xfs", "-q", "-f"}},
	{"btrfs", []string{"mkfs.btrfs", "-q", "-f"}},
}

// eachVolume runs fn on a fresh volume of every kind.
func eachVolume(t *testing.T, fn func(*testing.T, *testVolume)) {
	for _, k := range volumeKinds {
		t.Run(k.name, func(t *testing.T) { fn(t, newTestVolume(t, k.mkfs...)) })
	}
}

func newTestVolume(t testing.TB, mkfs ...string) *testVolume {
	t.Helper()
	tmp := t.TempDir()
	image := filepath.Join(tmp, "image")
	f, err := os.Create(image)
	must(t, err)
	must(t, f.Truncate(1<<30))
	must(t, f.Close())
	v := &testVolume{t: t, dir: filepath.Join(tmp, "mnt")}
	must(t, os.Mkdir(v.dir, 0o755))
	run(t, append(mkfs, image)...)
	v.device = strings.TrimSpace(run(t, "losetup", "-f", "--show", image))
	t.Cleanup(func() { run(t, "losetup", "-d", v.device) })
	run(t, "mount", v.device, v.dir)
	t.Cleanup(func() {
		if out, err := exec.Command("umount", v.dir).CombinedOutput(); err != nil {
			t.Errorf("umount: %v: %s", err, out)
			_ = unix.Unmount(v.dir, unix.MNT_DETACH)
		}
	})
	v.fd, err = unix.Open(v.dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	must(t, err)
	t.Cleanup(func() { unix.Close(v.fd) })
	v.codec, err = NewHandleCodec(v.fd)
	must(t, err)
	return v
}

func (v *testVolume) path(name string) string { return filepath.Join(v.dir, name) }

func (v *testVolume) node(name string) Node {
	v.t.Helper()
	n, err := v.codec.NodeAt(v.fd, name, 0)
	must(v.t, err)
	return n
}

func (v *testVolume) write(name, text string) {
	v.t.Helper()
	must(v.t, os.WriteFile(v.path(name), []byte(text), 0o644))
}

func run(t testing.TB, argv ...string) string {
	t.Helper()
	var stderr bytes.Buffer
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v: %s", strings.Join(argv, " "), err, &stderr)
	}
	return string(out)
}
