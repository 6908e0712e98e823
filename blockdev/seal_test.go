package blockdev_test

import (
	"fmt"
	"os"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fsmigrate/fsmigrate/blockdev"
	"github.com/fsmigrate/fsmigrate/blockdev/blocktest"
)

// mountIn is the mount of dev in the namespace of process pid.
func mountIn(t *testing.T, dev uint64, pid int) blockdev.Mount {
	t.Helper()
	var st unix.Stat_t
	must(t, unix.Stat(fmt.Sprintf("/proc/%d/ns/mnt", pid), &st))
	all, err := blockdev.MountsOf(dev)
	must(t, err)
	for _, m := range all {
		if m.NS == st.Ino {
			return m
		}
	}
	t.Fatalf("no mount of %x in the namespace of %d: %+v", dev, pid, all)
	return blockdev.Mount{}
}

// Making the old superblock writable again let other namespaces write to it:
// every mount of it is found and sealed.
func TestSealEveryNamespace(t *testing.T) {
	for _, fstype := range fstypes {
		t.Run(fstype, func(t *testing.T) {
			dir, _ := blocktest.NewVolume(t, fstype, blocktest.MinSize(fstype))
			must(t, os.Mkdir(dir+"/bound", 0o755))
			bind := blocktest.TempPoint(t)
			must(t, unix.Mount(dir+"/bound", bind, "", unix.MS_BIND, ""))
			pid := startIn(t, "private", "sleep", "1000")
			m, err := blockdev.MountAt(dir)
			must(t, err)
			all, err := blockdev.MountsOf(m.Dev)
			must(t, err)
			if len(all) != 4 {
				t.Fatalf("%d mounts, want two in each namespace: %+v", len(all), all)
			}
			for _, ro := range []bool{true, false} {
				for _, m := range all {
					must(t, blockdev.Seal(m, ro))
				}
				for _, path := range []string{dir, bind, procRoot(pid) + dir, procRoot(pid) + bind} {
					err := os.WriteFile(path+"/late", nil, 0o644)
					if ro {
						wantErr(t, path, err, unix.EROFS)
					} else {
						must(t, err)
					}
				}
				again, err := blockdev.MountsOf(m.Dev)
				must(t, err)
				if slices.ContainsFunc(again, func(m blockdev.Mount) bool { return m.ReadOnly() != ro }) {
					t.Errorf("after sealing %v: %+v", ro, again)
				}
			}
			busy, err := os.OpenFile(procRoot(pid)+bind+"/late", os.O_WRONLY, 0)
			must(t, err)
			defer busy.Close()
			var errs int
			for _, m := range all {
				if err := blockdev.Seal(m, true); err != nil {
					wantErr(t, "seal of a mount in use", err, unix.EBUSY)
					errs++
				}
			}
			if errs != 1 {
				t.Errorf("%d mounts are busy, want 1", errs)
			}
		})
	}
}

// A mount below a root of a process's own isn't in that process's table.
func TestMountsOfChrooted(t *testing.T) {
	dir, _ := blocktest.NewVolume(t, "ext4", 32<<20)
	m, err := blockdev.MountAt(dir)
	must(t, err)
	// The only process of its namespace sees nothing but the directory it is in.
	root := blocktest.TempPoint(t)
	bindSystem(t, root)
	pid := startIn(t, "private", "chroot", root, "/bin/sh", "-c", "while :; do /bin/sleep 1; done")
	waitFor(t, "the chroot", func() bool {
		r, _ := os.Readlink(procRoot(pid))
		return r == root
	})
	got := mountIn(t, m.Dev, pid)
	if got.Point != dir {
		t.Errorf("found at %s", got.Point)
	}
	must(t, blockdev.Seal(got, true))
}

// bindSystem makes root a place to chroot to.
func bindSystem(t *testing.T, root string) {
	t.Helper()
	for _, d := range []string{"/bin", "/lib", "/lib64", "/usr"} {
		if _, err := os.Stat(d); err != nil {
			continue
		}
		must(t, os.Mkdir(root+d, 0o755))
		must(t, unix.Mount(d, root+d, "", unix.MS_BIND, ""))
		t.Cleanup(func() { blocktest.Detach(t, root+d) })
	}
}

// A namespace that no process is in lives on in a descriptor.
func TestMountsOfNamespaceWithoutProcess(t *testing.T) {
	dir, _ := blocktest.NewVolume(t, "ext4", 32<<20)
	m, err := blockdev.MountAt(dir)
	must(t, err)
	pid := startIn(t, "private", "sleep", "1000")
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/mnt", pid))
	must(t, err)
	defer ns.Close()
	must(t, unix.Kill(pid, unix.SIGKILL))
	waitFor(t, "the process's end", func() bool {
		_, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/mnt", pid))
		return err != nil
	})
	all, err := blockdev.MountsOf(m.Dev)
	must(t, err)
	if len(all) != 2 {
		t.Fatalf("found %+v, want ours and the one that the descriptor keeps", all)
	}
	for _, m := range all {
		must(t, blockdev.Seal(m, true))
	}
}

// A covered mount can be sealed by descriptor, not by its place.
func TestSealCovered(t *testing.T) {
	dir, _ := blocktest.NewVolume(t, "ext4", 32<<20)
	m, err := blockdev.MountAt(dir)
	must(t, err)
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_CLOEXEC, 0)
	must(t, err)
	defer unix.Close(fd)
	must(t, unix.Mount("none", dir, "tmpfs", 0, ""))
	wantErr(t, "by place", blockdev.Seal(m, true), blockdev.ErrCovered)
	must(t, blockdev.SealFd(fd, true))
	_, err = os.Create(fmt.Sprintf("/proc/self/fd/%d/late", fd))
	wantErr(t, "late writer", err, unix.EROFS)
}

// Who stays in a detached mount writes through it unseen; nobody can seal
// it any more. So: seal first, then detach. The superblock is what remains.
func TestDetachedMounts(t *testing.T) {
	for _, fstype := range fstypes {
		t.Run(fstype, func(t *testing.T) {
			dir, dev := blocktest.NewVolume(t, fstype, blocktest.MinSize(fstype))
			must(t, os.Mkdir(dir+"/d", 0o755))
			m, err := blockdev.MountAt(dir)
			must(t, err)
			sealed := cloneTree(t, dir)
			place := blocktest.TempPoint(t)
			must(t, sealed.Attach(place))
			inOpen, inSealed := start(t, dir+"/d", "echo ready; exec sleep 1000"), start(t, place, "echo ready; exec sleep 1000")
			must(t, sealed.SetReadOnly(true))
			must(t, sealed.Close())
			must(t, blockdev.DetachTop(dir))
			must(t, blockdev.DetachTop(place))

			if all, err := blockdev.MountsOf(m.Dev); err != nil || len(all) != 0 {
				t.Fatalf("attached mounts: %+v, %v", all, err)
			}
			found, err := blockdev.DetachedMountsOf(m.Dev)
			must(t, err)
			if len(found) != 2 {
				t.Fatalf("detached mounts: %+v", found)
			}
			for _, d := range found {
				wantErr(t, d.Via, blockdev.Seal(d, true), blockdev.ErrDetached)
			}
			must(t, os.WriteFile(fmt.Sprintf("/proc/%d/cwd/late", inOpen), nil, 0o644))
			wantErr(t, "through the sealed one", os.WriteFile(fmt.Sprintf("/proc/%d/cwd/late", inSealed), nil, 0o644), unix.EROFS)

			list, err := blockdev.FileHolders(m.Dev, "", blockdev.IgnorePID(os.Getpid()))
			must(t, err)
			if len(list) != 2 || list[0].Kind != "cwd" {
				t.Errorf("holders: %+v", list)
			}
			on, err := blockdev.DeviceHolders(dev)
			must(t, err)
			if !slices.ContainsFunc(on, func(h blockdev.Holder) bool { return h.Kind == "mount" && h.Writes }) {
				t.Errorf("holders of the device: %+v", on)
			}
			_, err = blockdev.OpenExclusive(dev)
			wantErr(t, "exclusive open", err, unix.EBUSY)

			// The root of the mount, reached through whoever stays, still makes
			// the whole superblock read-only.
			fd, err := unix.Open(fmt.Sprintf("/proc/%d/cwd", inSealed), unix.O_PATH|unix.O_CLOEXEC, 0)
			must(t, err)
			defer unix.Close(fd)
			must(t, blockdev.SuperReadOnly(fd, true))
			wantErr(t, "behind the fence", os.WriteFile(fmt.Sprintf("/proc/%d/cwd/late2", inOpen), nil, 0o644), unix.EROFS)
		})
	}
}
