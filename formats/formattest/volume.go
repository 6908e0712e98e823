package formattest

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fsmigrate/fsmigrate/formats"
)

// Volume is a file system on a loop device, for the time of a test.
type Volume struct {
	Format formats.Format
	Image  string
	Device string
	Dir    string // where it is mounted; "" while it is not
	t      testing.TB
}

// Make lays f down on a sparse image of that size and returns it unmounted.
func Make(t testing.TB, f formats.Format, bytes int64, opts map[string]string) *Volume {
	t.Helper()
	return MakeWith(t, f, formats.MakeOptions{Options: opts, Bytes: bytes})
}

// MakeWith is Make with all options of Mkfs.
func MakeWith(t testing.TB, f formats.Format, o formats.MakeOptions) *Volume {
	t.Helper()
	v := Attach(t, Image(t, o.Bytes))
	v.Format = f
	argv, err := f.Mkfs(v.Device, o)
	if err != nil {
		t.Fatalf("mkfs arguments: %v", err)
	}
	Run(t, argv...)
	return v
}

// Image makes a sparse file.
func Image(t testing.TB, bytes int64) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "image")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(bytes); err != nil {
		t.Fatal(err)
	}
	return path
}

// Attach makes a loop device of an image.
func Attach(t testing.TB, image string) *Volume {
	t.Helper()
	out := Run(t, "losetup", "--find", "--show", image)
	v := &Volume{Image: image, Device: strings.TrimSpace(out), t: t}
	t.Cleanup(func() {
		v.Unmount()
		Run(t, "losetup", "--detach", v.Device)
	})
	return v
}

// Mount mounts the volume with comma-separated superblock options.
func (v *Volume) Mount(fstype, options string) string {
	v.t.Helper()
	dir := v.t.TempDir()
	var flags uintptr
	var data []string
	for _, o := range strings.Split(options, ",") {
		switch o {
		case "":
		case "ro":
			flags |= unix.MS_RDONLY
		default:
			data = append(data, o)
		}
	}
	if err := unix.Mount(v.Device, dir, fstype, flags, strings.Join(data, ",")); err != nil {
		v.t.Fatalf("mount %s as %s: %v", v.Device, fstype, err)
	}
	v.Dir = dir
	return dir
}

// ReadOnly makes the superblock read-only.
func (v *Volume) ReadOnly() {
	v.t.Helper()
	if err := unix.Mount("", v.Dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		v.t.Fatalf("remount %s read-only: %v", v.Dir, err)
	}
}

// Unmount unmounts it if it is mounted. Another process may look into it for a
// moment (udev does), so EBUSY is tried again for a while.
func (v *Volume) Unmount() {
	v.t.Helper()
	if v.Dir == "" {
		return
	}
	deadline := time.Now().Add(10 * time.Second)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := unix.Unmount(v.Dir, 0)
		if err == nil {
			break
		}
		if !errors.Is(err, unix.EBUSY) || time.Now().After(deadline) {
			v.t.Errorf("unmount %s: %v", v.Dir, err)
			break
		}
		<-tick.C
	}
	v.Dir = ""
}

// Sync syncs the file system.
func (v *Volume) Sync() {
	v.t.Helper()
	fd := v.Open()
	defer unix.Close(fd)
	if err := unix.Syncfs(fd); err != nil {
		v.t.Fatalf("syncfs: %v", err)
	}
}

// Open opens the root directory.
func (v *Volume) Open() int {
	v.t.Helper()
	fd, err := unix.Open(v.Dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		v.t.Fatalf("open %s: %v", v.Dir, err)
	}
	return fd
}

// Probe probes the device.
func (v *Volume) Probe() formats.Volume {
	v.t.Helper()
	f, err := os.Open(v.Device)
	if err != nil {
		v.t.Fatal(err)
	}
	defer f.Close()
	st, err := os.Stat(v.Image)
	if err != nil {
		v.t.Fatal(err)
	}
	vol, err := v.Format.Probe(f, st.Size())
	if err != nil {
		v.t.Fatalf("probe: %v", err)
	}
	return vol
}

// Used is what statfs calls used, in bytes.
func (v *Volume) Used() int64 {
	v.t.Helper()
	var st unix.Statfs_t
	if err := unix.Statfs(v.Dir, &st); err != nil {
		v.t.Fatal(err)
	}
	return int64(st.Blocks-st.Bfree) * st.Bsize
}

// Free is what statfs calls free, in bytes, root's reserve included.
func (v *Volume) Free() int64 {
	v.t.Helper()
	var st unix.Statfs_t
	if err := unix.Statfs(v.Dir, &st); err != nil {
		v.t.Fatal(err)
	}
	return int64(st.Bfree) * st.Bsize
}

// Run runs a command and returns what it printed.
func Run(t testing.TB, argv ...string) string {
	t.Helper()
	out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(argv, " "), err, out)
	}
	return string(out)
}

// Open opens a file for reading, for the time of the test.
func Open(t testing.TB, path string) *os.File {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}
