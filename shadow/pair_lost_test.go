package shadow

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// pass runs passes until nothing is dirty and no stamp is racy.
func (r *syncRig) quiet() {
	r.t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		must(r.t, r.w.Barrier(context.Background()))
		_, err := r.p.pass(context.Background(), passMode{})
		must(r.t, err)
		if r.p.journal.Len() == 0 && r.p.racyLen() == 0 {
			return
		}
		if time.Now().After(deadline) {
			r.t.Fatalf("%d units are dirty and %d racy after 20 s", r.p.journal.Len(), r.p.racyLen())
		}
		<-tick.C
	}
}

// mapped is a file of src with a shared writable mapping of all of it.
func (r *syncRig) mapped(name string, size int) []byte {
	r.t.Helper()
	f, err := os.OpenFile(filepath.Join(r.src, name), os.O_RDWR|os.O_CREATE, 0o644)
	must(r.t, err)
	defer f.Close()
	must(r.t, f.Truncate(int64(size)))
	m, err := unix.Mmap(int(f.Fd()), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	must(r.t, err)
	// The end of the mapping makes an event, which would hide what is looked for.
	r.t.Cleanup(func() { must(r.t, unix.Munmap(m)) })
	return m
}

// A store through a mapping makes no event, and an event about attributes only moves the
// ctime on: the pass that follows it must not take the new ctime for the content's.
func TestPairMmapStoreHiddenByAttributes(t *testing.T) {
	for _, c := range []struct{ name, then string }{
		{"chmod", "chmod 600 f"}, {"rename", "mv f g"}, {"link", "ln f g"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newSyncRig(t, "ext4", "ext4")
			r.sh("head -c 8192 /dev/zero > f")
			m := r.mapped("f", 8192)
			must(t, r.p.walk(context.Background()))
			r.p.scans.Store(false) // the scan may come later than the event
			r.quiet()
			m[0] = 1
			r.sh(c.then)
			must(t, r.w.Barrier(context.Background()))
			<-time.After(4 * coarseTick) // the new stamp is not racy any more
			_, err := r.p.pass(context.Background(), passMode{})
			must(t, err)
			r.settle()
			r.equal()
		})
	}
}

// A power cut took a file that was not synced, and a directory, from both sides, but not
// what the node map knew of them: they were never verified, and no cutover was possible any more.
func TestPairForgetsWhatIsOnNeitherSide(t *testing.T) {
	for _, from := range []string{"ext4", "xfs", "btrfs"} {
		r := newSyncRig(t, from, "ext4")
		r.sh("echo stays > a; echo goes > f; mkdir d; echo too > d/x")
		must(t, r.p.walk(context.Background()))
		r.quiet()
		r.sh("rm -r f d; rm -r '" + r.dst + "'/f '" + r.dst + "'/d; sync -f .")
		r.quiet()
		if _, err := r.p.verifyAll(context.Background()); err != nil {
			t.Fatal(err)
		}
		if n, v := r.p.nodes.Count(), r.p.verifiedCount(); n != v || n < 2 {
			t.Errorf("%s: %d objects are known, %d are verified", from, n, v)
		}
		r.settle()
		r.equal()
	}
}

// A page that was written back early in a long fdatasync may be dirtied again before
// it returns: a later store into it bumps no ctime, so that stamp counts as racy.
func TestPairMmapStoreDuringSync(t *testing.T) {
	r := newSyncRig(t, "ext4", "ext4")
	m := r.mapped("f", 8192)
	m[0] = 1
	r.p.step = func(op string) error {
		switch {
		case op == "source-synced":
			m[1] = 2
			<-time.After(100 * time.Millisecond) // the rest of the fdatasync
		case op == "dress" && m[1] == 2:
			m[2] = 3 // after it was read
		}
		return nil
	}
	must(t, r.w.Barrier(context.Background()))
	must(t, r.p.walk(context.Background()))
	r.p.step = nil
	r.settle()
	r.equal()
}

// A comparison of a whole directory that failed half way is begun anew: the names that
// come by events after it are not all that differs.
func TestPairFailedComparisonIsWholeAgain(t *testing.T) {
	broken := errors.New("broken")
	for _, what := range []string{"walk", "rescan"} {
		t.Run(what, func(t *testing.T) {
			r := newSyncRig(t, "ext4", "ext4")
			ctx := context.Background()
			if what == "rescan" {
				must(t, r.p.walk(ctx))
				r.quiet()
				r.p.scans.Store(false)
			}
			r.sh("mkdir -p d; for i in $(seq 20); do echo $i > d/f$i; echo $i > f$i; done")
			must(t, r.w.Barrier(ctx))
			if what == "rescan" {
				r.p.names.full()
				r.p.journal.MarkAll("test")
			}
			var n atomic.Int32 // of several workers
			r.p.step = func(op string) error {
				if op == "create" && n.Add(1) == 5 {
					return broken
				}
				return nil
			}
			var err error
			if what == "walk" {
				err = r.p.walk(ctx)
			} else {
				_, err = r.p.pass(ctx, passMode{})
			}
			if !errors.Is(err, broken) {
				t.Fatalf("got %v", err)
			}
			r.p.step = nil
			r.sh("touch new d/new")
			must(t, r.w.Barrier(ctx))
			_, err = r.p.pass(ctx, passMode{})
			must(t, err)
			r.settle()
			r.equal()
		})
	}
}

// What a pass touched is dressed also when the pass ended before it came to that.
func TestPairInterruptedPassDressesLater(t *testing.T) {
	r := newSyncRig(t, "ext4", "ext4")
	ctx := context.Background()
	r.sh("mkdir d; echo x > d/x; touch -d 2001-01-01 d")
	must(t, r.p.walk(ctx))
	r.settle()
	r.p.scans.Store(false)
	r.sh("rm d/x; touch -d 2002-02-02 d")
	must(t, r.w.Barrier(ctx))
	short, cancel := context.WithCancel(ctx)
	r.p.step = func(op string) error {
		if op == "limbo" {
			cancel()
		}
		return nil
	}
	_, err := r.p.pass(short, passMode{})
	r.p.step = nil
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
	r.quiet()
	r.settle()
	r.equal()
}

// Every object that is read behind the fence is accounted for once, also after
// the marks of some were dropped before they could be verified.
func TestPairProofAddsUp(t *testing.T) {
	r := newSyncRig(t, "ext4", "xfs")
	ctx := context.Background()
	r.sh("mkdir a b; for i in $(seq 50); do echo $i > a/f$i; done; ln a/f1 b/l1")
	must(t, r.p.walk(ctx))
	r.settle()
	_, err := r.p.verifyAll(ctx)
	must(t, err)
	r.sh("mv a/f2 b/f2; chattr +i a/f3; ln a/f4 b/l4; rm a/f5; mv a/f6 b; mv b/f6 a; chattr +i a/f6")
	t.Cleanup(func() { r.shQuiet("chattr -i a/*") })
	must(t, r.w.Barrier(ctx))
	_, err = r.p.pass(ctx, passMode{verify: true})
	must(t, err)
	r.p.names.full()
	r.p.journal.MarkAll("test")
	_, err = r.p.pass(ctx, passMode{verify: true})
	must(t, err)
	proof, err := r.p.drain(ctx)
	must(t, err)
	if proof.Different != 0 || proof.Verified != proof.Objects || r.p.nodes.Count() != proof.Objects {
		t.Errorf("proof %+v of %d", proof, r.p.nodes.Count())
	}
	r.p.fenced = false
	r.equal()
	out := r.lsattr(r.dst + "/a/f6")
	if !strings.Contains(out, "i") {
		t.Errorf("a/f6 lost its flag: %s", out)
	}
}

func (r *syncRig) lsattr(path string) string {
	r.t.Helper()
	var flags int
	fd, err := unix.Open(path, unix.O_RDONLY, 0)
	must(r.t, err)
	defer unix.Close(fd)
	flags, err = unix.IoctlGetInt(fd, unix.FS_IOC_GETFLAGS)
	must(r.t, err)
	if flags&unix.STATX_ATTR_IMMUTABLE != 0 {
		return "i"
	}
	return "-"
}

// A copy that fails leaves its unit dirty: only what was copied clears a mark (I3).
func TestPairFailedCopyStaysDirty(t *testing.T) {
	r := newSyncRig(t, "ext4", "ext4")
	ctx := context.Background()
	r.sh("mkdir d; echo a > d/f; echo b > d/g")
	must(t, r.p.walk(ctx))
	r.quiet()
	n := r.node("d/f")
	r.sh("echo more >> d/f")
	must(t, r.w.Barrier(ctx))
	failAt(r.p, 0, true)
	if _, err := r.p.pass(ctx, passMode{}); !errors.Is(err, errStep) {
		t.Fatalf("the pass: %v", err)
	}
	r.p.step = nil
	if r.p.journal.Dirty(n) == 0 {
		t.Error("the file that was not copied counts as clean")
	}
	r.quiet()
	r.equal() // without the scan of the proof
	r.settle()
	r.equal()
}
