package blockdev_test

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fsmigrate/fsmigrate/blockdev"
	"github.com/fsmigrate/fsmigrate/blockdev/blocktest"
)

// busyWith are what keeps a superblock writable, and what doesn't.
var busyWith = []struct {
	name string
	busy bool
	hold func(t *testing.T, dir string) (release func())
}{
	{"a reader", false, func(t *testing.T, dir string) func() {
		f, err := os.Open(dir + "/name")
		must(t, err)
		return func() { f.Close() }
	}},
	{"a writable descriptor", true, func(t *testing.T, dir string) func() {
		f, err := os.OpenFile(dir+"/name", os.O_WRONLY, 0)
		must(t, err)
		return func() { f.Close() }
	}},
	{"a shared writable mapping without a descriptor", true, func(t *testing.T, dir string) func() {
		f, err := os.OpenFile(dir+"/name", os.O_RDWR, 0)
		must(t, err)
		m, err := unix.Mmap(int(f.Fd()), 0, 4, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		must(t, err)
		must(t, f.Close())
		return func() { unix.Munmap(m) }
	}},
	{"a private mapping of a file opened for writing", true, func(t *testing.T, dir string) func() {
		f, err := os.OpenFile(dir+"/name", os.O_RDWR, 0)
		must(t, err)
		m, err := unix.Mmap(int(f.Fd()), 0, 4, unix.PROT_READ, unix.MAP_PRIVATE)
		must(t, err)
		must(t, f.Close())
		return func() { unix.Munmap(m) }
	}},
	{"an unlinked file that is open for reading", true, func(t *testing.T, dir string) func() {
		writeFile(t, dir+"/gone", "gone")
		f, err := os.Open(dir + "/gone")
		must(t, err)
		must(t, os.Remove(dir+"/gone"))
		return func() { f.Close() }
	}},
}

// The fence of a watch: EBUSY while somebody could write, success with readers,
// EROFS for late writers, and no mount loses a flag. Also where the
// superblock is reached through a detached mount.
func TestSuperReadOnlyFence(t *testing.T) {
	for _, fstype := range fstypes {
		for _, detached := range []bool{false, true} {
			name := fstype
			if detached {
				name += "-detached"
			}
			t.Run(name, func(t *testing.T) {
				dev := blocktest.NewDevice(t, fstype, blocktest.MinSize(fstype))
				dir := blocktest.MountTemp(t, dev, fstype, "nosuid", "nodev", "noexec", "noatime")
				before, err := blockdev.MountAt(dir)
				must(t, err)
				writeFile(t, dir+"/name", "name")
				by := cloneTree(t, dir)
				if !detached {
					must(t, by.Attach(blocktest.TempPoint(t)))
				}
				for _, b := range busyWith {
					release := b.hold(t, dir)
					must(t, blockdev.Syncfs(by.Fd()))
					err := blockdev.SuperReadOnly(by.Fd(), true)
					if b.busy {
						wantErr(t, b.name, err, unix.EBUSY)
						writeFile(t, dir+"/name", "name") // still writable
					} else {
						must(t, err)
						_, err := os.Create(dir + "/late")
						wantErr(t, "late writer", err, unix.EROFS)
						must(t, blockdev.SuperReadOnly(by.Fd(), false))
					}
					release()
				}
				must(t, blockdev.SuperReadOnly(by.Fd(), true))
				must(t, blockdev.SuperReadOnly(by.Fd(), true)) // idempotent
				m, err := blockdev.MountAt(dir)
				must(t, err)
				if !blockdev.IsSuperReadOnly(m) || m.ReadOnly() {
					t.Errorf("behind the fence: %q %q", m.Options, m.SuperOptions)
				}
				must(t, blockdev.SuperReadOnly(by.Fd(), false))
				after, err := blockdev.MountAt(dir)
				must(t, err)
				if after.Options != before.Options || !strings.Contains(after.Options, "nosuid,nodev,noexec,noatime") {
					t.Errorf("mount options were %q and are %q", before.Options, after.Options)
				}
				if after.SuperOptions != before.SuperOptions {
					t.Errorf("superblock options were %q and are %q", before.SuperOptions, after.SuperOptions)
				}
				writeFile(t, dir+"/name", "again")
			})
		}
	}
}

// Why mount(2) isn't used: MS_REMOUNT drops what it isn't told again.
func TestRemountDropsFlags(t *testing.T) {
	dev := blocktest.NewDevice(t, "ext4", 32<<20)
	dir := blocktest.MountTemp(t, dev, "ext4", "nosuid", "nodev", "noexec")
	must(t, unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""))
	m, err := blockdev.MountAt(dir)
	must(t, err)
	if strings.Contains(m.Options, "nosuid") {
		t.Errorf("mount(2) kept %q: the fact that SuperReadOnly avoids is gone", m.Options)
	}
}

// Options of the superblock that aren't named stay as they are.
func TestSuperReadOnlyKeepsSuperOptions(t *testing.T) {
	dev := blocktest.NewDevice(t, "ext4", 32<<20)
	dir := blocktest.MountTemp(t, dev, "ext4", "lazytime", "commit=77", "errors=remount-ro", "data=journal")
	before, err := blockdev.MountAt(dir)
	must(t, err)
	for _, ro := range []bool{true, false} {
		fd, err := unix.Open(dir, unix.O_PATH|unix.O_CLOEXEC, 0)
		must(t, err)
		must(t, blockdev.SuperReadOnly(fd, ro))
		must(t, unix.Close(fd))
	}
	after, err := blockdev.MountAt(dir)
	must(t, err)
	if after.SuperOptions != before.SuperOptions || !strings.Contains(after.SuperOptions, "commit=77") {
		t.Errorf("superblock options were %q and are %q", before.SuperOptions, after.SuperOptions)
	}
}

func TestSuperReadOnlyNeedsMountRoot(t *testing.T) {
	dir, _ := blocktest.NewVolume(t, "ext4", 32<<20)
	must(t, os.Mkdir(dir+"/d", 0o755))
	f, err := os.Open(dir + "/d")
	must(t, err)
	defer f.Close()
	if err := blockdev.SuperReadOnly(int(f.Fd()), true); err == nil {
		t.Error("took a directory below the root")
	}
}

// cachedNames is how many directory entries the kernel has in memory, of everything.
func cachedNames(t *testing.T) int {
	t.Helper()
	b, err := os.ReadFile("/proc/sys/fs/dentry-state")
	must(t, err)
	n, err := strconv.Atoi(strings.Fields(string(b))[0])
	must(t, err)
	return n
}

// Names are forgotten, but for those in use, and nothing else changes: not for who writes
// meanwhile, and no option.
func TestDropNames(t *testing.T) {
	const names = 8000
	for _, fstype := range fstypes {
		t.Run(fstype, func(t *testing.T) {
			dev := blocktest.NewDevice(t, fstype, max(64<<20, blocktest.MinSize(fstype)))
			dir := blocktest.MountTemp(t, dev, fstype, "nosuid", "noatime")
			w, err := os.Create(dir + "/open")
			must(t, err)
			defer w.Close()
			for i := range names {
				must(t, os.Symlink("x", fmt.Sprintf("%s/%d", dir, i)))
			}
			before, err := blockdev.MountAt(dir)
			must(t, err)
			fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
			must(t, err)
			defer unix.Close(fd)
			had := cachedNames(t)
			must(t, blockdev.DropNames(fd))
			if gone := had - cachedNames(t); gone < names*3/4 {
				t.Errorf("%d names were forgotten, of %d", gone, names)
			}
			after, err := blockdev.MountAt(dir)
			must(t, err)
			if after.Options != before.Options || after.SuperOptions != before.SuperOptions {
				t.Errorf("options were %q %q and are %q %q", before.Options, before.SuperOptions, after.Options, after.SuperOptions)
			}
			_, err = w.WriteString("still")
			must(t, err)
			wantErr(t, "fence over a writer", blockdev.SuperReadOnly(fd, true), unix.EBUSY)
		})
	}
}
