package blockdev_test

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fsmigrate/fsmigrate/blockdev"
	"github.com/fsmigrate/fsmigrate/blockdev/blocktest"
)

// underParent makes a tmpfs with the given propagation and a mount point in it.
func underParent(t *testing.T, propagation uintptr) string {
	t.Helper()
	parent := blocktest.TempPoint(t)
	must(t, unix.Mount("none", parent, "tmpfs", 0, ""))
	must(t, unix.Mount("", parent, "", propagation, ""))
	must(t, os.Mkdir(parent+"/data", 0o755))
	t.Cleanup(func() { blocktest.Detach(t, parent+"/data") })
	return parent + "/data"
}

var propagations = map[string]uintptr{"private": unix.MS_PRIVATE, "shared": unix.MS_SHARED}

// The swap: beneath, then the top goes, and at no moment is there nothing.
func TestAttachBeneath(t *testing.T) {
	for name, propagation := range propagations {
		t.Run(name, func(t *testing.T) {
			dir := underParent(t, propagation)
			oldDev, newDev := blocktest.NewDevice(t, "ext4", 32<<20), blocktest.NewDevice(t, "xfs", blocktest.MinSize("xfs"))
			blocktest.MountAt(t, oldDev, "ext4", dir)
			writeFile(t, dir+"/name", "old")
			next := openTree(t, newDev, "xfs", blockdev.MountOptions{})
			writeFile(t, next.Path()+"/name", "new")
			back := cloneTree(t, dir)

			must(t, next.AttachBeneath(dir))
			wantFile(t, dir+"/name", "old")
			must(t, blockdev.DetachTop(dir))
			wantFile(t, dir+"/name", "new")
			m, err := blockdev.MountAt(dir)
			must(t, err)
			if m.Source != newDev {
				t.Fatalf("%s is in place", m.Source)
			}
			// And back, with what was kept of the old one.
			must(t, back.AttachBeneath(dir))
			must(t, blockdev.DetachTop(dir))
			wantFile(t, dir+"/name", "old")
		})
	}
}

// Nobody who looks the place up while it is swapped finds it missing.
func TestSwapWithoutAbsence(t *testing.T) {
	dir := underParent(t, unix.MS_SHARED)
	devs := []string{blocktest.NewDevice(t, "ext4", 32<<20), blocktest.NewDevice(t, "ext4", 32<<20)}
	trees := make([]*blockdev.Tree, 2)
	for i, dev := range devs {
		trees[i] = openTree(t, dev, "ext4", blockdev.MountOptions{})
		writeFile(t, trees[i].Path()+"/name", dev)
	}
	first, err := blockdev.CloneFd(trees[0].Fd())
	must(t, err)
	defer first.Close()
	must(t, first.Attach(dir))
	stop, done := make(chan struct{}), make(chan error, 1)
	go func() {
		for {
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
			var st unix.Stat_t
			if err := unix.Stat(dir+"/name", &st); err != nil {
				done <- err
				return
			}
		}
	}()
	for i := range 200 {
		next, err := blockdev.CloneFd(trees[(i+1)%2].Fd())
		must(t, err)
		must(t, next.AttachBeneath(dir))
		must(t, blockdev.DetachTop(dir))
		must(t, next.Close())
	}
	close(stop)
	if err := <-done; err != nil {
		t.Fatalf("seen during a swap: %v", err)
	}
}

// With a shared parent moving an attached mount is EINVAL; its clone works.
func TestBeneathNeedsClone(t *testing.T) {
	dir, other := underParent(t, unix.MS_SHARED), underParent(t, unix.MS_SHARED)
	dev, dev2 := blocktest.NewDevice(t, "ext4", 32<<20), blocktest.NewDevice(t, "ext4", 32<<20)
	blocktest.MountAt(t, dev, "ext4", dir)
	next := openTree(t, dev2, "ext4", blockdev.MountOptions{})
	must(t, next.Attach(other))
	wantErr(t, "moving from below a shared parent", next.AttachBeneath(dir), unix.EINVAL)
	must(t, cloneTree(t, other).AttachBeneath(dir))
}

func TestBeneathRefusals(t *testing.T) {
	dev := blocktest.NewDevice(t, "ext4", 32<<20)
	tree := openTree(t, dev, "ext4", blockdev.MountOptions{})
	for what, dir := range map[string]string{"the root": "/", "a directory": t.TempDir()} {
		if err := tree.AttachBeneath(dir); err == nil {
			t.Errorf("attached beneath %s", what)
		}
	}
}

// A slave namespace, as a container has, follows the swap; a private one keeps the old.
func TestSwapInOtherNamespaces(t *testing.T) {
	dir := underParent(t, unix.MS_SHARED)
	oldDev, newDev := blocktest.NewDevice(t, "ext4", 32<<20), blocktest.NewDevice(t, "ext4", 32<<20)
	blocktest.MountAt(t, oldDev, "ext4", dir)
	writeFile(t, dir+"/name", "old")
	slave := startIn(t, "slave", "sleep", "1000")
	private := startIn(t, "private", "sleep", "1000")
	next := openTree(t, newDev, "ext4", blockdev.MountOptions{})
	writeFile(t, next.Path()+"/name", "new")
	must(t, next.AttachBeneath(dir))
	must(t, blockdev.DetachTop(dir))
	wantFile(t, dir+"/name", "new")
	wantFile(t, procRoot(slave)+dir+"/name", "new")
	wantFile(t, procRoot(private)+dir+"/name", "old")
}

func TestUnmountFd(t *testing.T) {
	dir, dev := blocktest.NewVolume(t, "ext4", 32<<20)
	clone := cloneTree(t, dir)
	must(t, clone.Attach(blocktest.TempPoint(t)))
	busy, err := os.Create(clone.Path() + "/busy")
	must(t, err)
	wantErr(t, "busy mount", blockdev.UnmountFd(clone.Fd(), false), unix.EBUSY)
	wantFile(t, clone.Path()+"/busy", "") // the descriptor names the mount again
	must(t, busy.Close())
	must(t, blockdev.UnmountFd(clone.Fd(), false))
	m, err := blockdev.MountAt(dir)
	must(t, err)
	if all, err := blockdev.MountsOf(m.Dev); err != nil || len(all) != 1 {
		t.Fatalf("mounts of %s: %+v, %v; want one", dev, all, err)
	}
	lazy := cloneTree(t, dir)
	must(t, lazy.Attach(blocktest.TempPoint(t)))
	must(t, blockdev.UnmountFd(lazy.Fd(), true))
	wantFile(t, lazy.Path()+"/busy", "")
}

// Undoing a swap before its second half: the mount beneath goes, the top stays.
func TestUnmountBeneath(t *testing.T) {
	for name, propagation := range propagations {
		for _, fallback := range []bool{false, true} {
			if fallback {
				name += "-without-beneath"
			}
			t.Run(name, func(t *testing.T) {
				dir := underParent(t, propagation)
				oldDev, newDev := blocktest.NewDevice(t, "ext4", 32<<20), blocktest.NewDevice(t, "ext4", 32<<20)
				blocktest.MountAt(t, oldDev, "ext4", dir)
				writeFile(t, dir+"/name", "old")
				must(t, os.Mkdir(dir+"/sub", 0o755))
				must(t, unix.Mount("none", dir+"/sub", "tmpfs", 0, ""))
				writeFile(t, dir+"/sub/name", "sub")
				next := openTree(t, newDev, "ext4", blockdev.MountOptions{})
				must(t, next.AttachBeneath(dir))
				if fallback {
					blockdev.WithoutBeneath(t)
				}
				wantErr(t, "not lazily", blockdev.UnmountFd(next.Fd(), false), blockdev.ErrCovered)
				must(t, blockdev.UnmountFd(next.Fd(), true))
				must(t, next.Close())
				wantFile(t, dir+"/name", "old")
				wantFile(t, dir+"/sub/name", "sub")
				f, err := blockdev.OpenExclusive(newDev)
				must(t, err)
				must(t, f.Close())
			})
		}
	}
}

// Without the kernel's help: over the old one, which then goes from below.
func TestFallbackWithoutBeneath(t *testing.T) {
	dir := underParent(t, unix.MS_SHARED)
	oldDev, newDev := blocktest.NewDevice(t, "ext4", 32<<20), blocktest.NewDevice(t, "ext4", 32<<20)
	blocktest.MountAt(t, oldDev, "ext4", dir)
	next := openTree(t, newDev, "ext4", blockdev.MountOptions{})
	writeFile(t, next.Path()+"/name", "new")
	blockdev.WithoutBeneath(t)
	wantErr(t, "beneath", next.AttachBeneath(dir), blockdev.ErrNoBeneath)
	old, err := unix.Open(dir, unix.O_PATH|unix.O_CLOEXEC, 0)
	must(t, err)
	must(t, next.AttachOver(dir))
	wantFile(t, dir+"/name", "new")
	must(t, blockdev.UnmountFd(old, true))
	must(t, unix.Close(old))
	wantFile(t, dir+"/name", "new")
	f, err := blockdev.OpenExclusive(oldDev)
	must(t, err)
	must(t, f.Close())
	wantErr(t, "over a directory", next.AttachOver(t.TempDir()), blockdev.ErrNotMountPoint)
}

// Submounts vanish with the detached top unless they are cloned and attached again.
func TestSubmountsSurviveTheSwap(t *testing.T) {
	for name, propagation := range propagations {
		t.Run(name, func(t *testing.T) {
			dir := underParent(t, propagation)
			oldDev, newDev := blocktest.NewDevice(t, "ext4", 32<<20), blocktest.NewDevice(t, "ext4", 32<<20)
			blocktest.MountAt(t, oldDev, "ext4", dir)
			next := openTree(t, newDev, "ext4", blockdev.MountOptions{})
			for _, d := range []string{dir, next.Path()} {
				must(t, os.MkdirAll(d+"/a/b", 0o755))
				writeFile(t, d+"/file", "")
			}
			must(t, unix.Mount("none", dir+"/a/b", "tmpfs", 0, ""))
			must(t, os.Mkdir(dir+"/a/b/c", 0o755))
			must(t, unix.Mount("none", dir+"/a/b/c", "tmpfs", 0, ""))
			writeFile(t, dir+"/a/b/c/deep", "deep")
			writeFile(t, dir+"/a/b/bound", "bound")
			must(t, unix.Mount(dir+"/a/b/bound", dir+"/file", "", unix.MS_BIND, ""))

			subs, err := blockdev.CloneSubmounts(dir)
			must(t, err)
			defer blockdev.CloseSubmounts(subs)
			if len(subs) != 2 || subs[0].Rel != "a/b" || subs[1].Rel != "file" {
				t.Fatalf("submounts %+v", subs)
			}
			must(t, next.AttachBeneath(dir))
			for _, s := range subs {
				must(t, s.AttachUnderFd(next.Fd()))
			}
			must(t, blockdev.DetachTop(dir))
			wantFile(t, dir+"/a/b/c/deep", "deep")
			wantFile(t, dir+"/file", "bound")
		})
	}
}
