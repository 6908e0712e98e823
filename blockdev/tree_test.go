package blockdev_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fsmigrate/fsmigrate/blockdev"
	"github.com/fsmigrate/fsmigrate/blockdev/blocktest"
)

var fstypes = []string{"ext4", "xfs", "btrfs"}

// writeFile creates or replaces a file; must be a place that accepts writes.
func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// wantFile checks what dir shows: the file "name" of the volume in place.
func wantFile(t *testing.T, path, text string) {
	t.Helper()
	got, err := os.ReadFile(path)
	if err != nil || string(got) != text {
		t.Fatalf("%s holds %q, %v; want %q", path, got, err, text)
	}
}

func wantErr(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("%s: %v; want %v", what, err, want)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// openTree mounts dev detached and closes it with the test.
func openTree(t *testing.T, dev, fstype string, o blockdev.MountOptions) *blockdev.Tree {
	t.Helper()
	tree, err := blockdev.OpenDevice(dev, fstype, o)
	must(t, err)
	t.Cleanup(func() { tree.Close() })
	return tree
}

func cloneTree(t *testing.T, dir string) *blockdev.Tree {
	t.Helper()
	tree, err := blockdev.CloneTree(dir)
	must(t, err)
	t.Cleanup(func() { tree.Close() })
	return tree
}

func TestOpenDevice(t *testing.T) {
	for _, fstype := range fstypes {
		t.Run(fstype, func(t *testing.T) {
			dev := blocktest.NewDevice(t, fstype, blocktest.MinSize(fstype))
			tree := openTree(t, dev, fstype, blockdev.MountOptions{Attrs: unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV})
			writeFile(t, tree.Path()+"/name", "detached")
			dir := blocktest.TempPoint(t)
			must(t, tree.Attach(dir))
			wantFile(t, dir+"/name", "detached")
			m, err := blockdev.MountAt(dir)
			must(t, err)
			for _, o := range []string{"nosuid", "nodev"} {
				if !strings.Contains(m.Options, o) {
					t.Errorf("options %q lack %s", m.Options, o)
				}
			}
			if _, err := blockdev.OpenDevice(dev, fstype, blockdev.MountOptions{Exclusive: true}); !errors.Is(err, unix.EBUSY) {
				t.Errorf("second exclusive mount: %v, want EBUSY", err)
			}
			if _, err := blockdev.OpenDevice(dev, fstype, blockdev.MountOptions{Super: map[string]string{"no-such-option": ""}}); err == nil ||
				!strings.Contains(err.Error(), "no-such-option") || !strings.Contains(err.Error(), "nknown parameter") {
				t.Errorf("unknown option: %v; want the kernel's words", err)
			}
		})
	}
}

func TestCloseUnmounts(t *testing.T) {
	dev := blocktest.NewDevice(t, "ext4", 32<<20)
	tree := openTree(t, dev, "ext4", blockdev.MountOptions{})
	if _, err := blockdev.OpenExclusive(dev); !errors.Is(err, unix.EBUSY) {
		t.Fatalf("exclusive open of a mounted device: %v, want EBUSY", err)
	}
	must(t, tree.Close())
	must(t, tree.Close())
	f, err := blockdev.OpenExclusive(dev)
	must(t, err)
	must(t, f.Close())
}

// Submounts hide files that belong to the volume: a clone shows them.
func TestCloneSeesBelowSubmounts(t *testing.T) {
	dir, _ := blocktest.NewVolume(t, "ext4", 32<<20)
	must(t, os.Mkdir(dir+"/sub", 0o755))
	writeFile(t, dir+"/sub/hidden", "hidden")
	must(t, unix.Mount("none", dir+"/sub", "tmpfs", 0, ""))
	clone := cloneTree(t, dir)
	wantFile(t, clone.Path()+"/sub/hidden", "hidden")
	if _, err := os.Stat(dir + "/sub/hidden"); err == nil {
		t.Fatal("the submount doesn't hide the file")
	}
	again, err := blockdev.CloneFd(clone.Fd())
	must(t, err)
	defer again.Close()
	wantFile(t, again.Path()+"/sub/hidden", "hidden")
}

func TestMountAt(t *testing.T) {
	for _, fstype := range fstypes {
		t.Run(fstype, func(t *testing.T) {
			dir, dev := blocktest.NewVolume(t, fstype, blocktest.MinSize(fstype))
			must(t, os.Mkdir(dir+"/d", 0o755))
			m, err := blockdev.MountAt(dir)
			must(t, err)
			if m.Source != dev || m.Point != dir || m.FSType != fstype || m.Root != "/" || m.NS == 0 {
				t.Errorf("mount is %+v", m)
			}
			_, err = blockdev.MountAt(dir + "/d")
			wantErr(t, "directory", err, blockdev.ErrNotMountPoint)
			link := filepath.Join(t.TempDir(), "link")
			must(t, os.Symlink(dir, link))
			if n, err := blockdev.MountAt(link); err != nil || n.ID != m.ID {
				t.Errorf("through a link: %+v, %v", n, err)
			}
			// The superblock's number is the same for attached and detached mounts.
			tree := openTree(t, dev, fstype, blockdev.MountOptions{})
			if got, err := blockdev.MountDev(tree.Fd()); err != nil || got != m.Dev {
				t.Errorf("device of a detached mount: %x, %v; want %x", got, err, m.Dev)
			}
		})
	}
}
