package shadow

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fsmigrate/fsmigrate/blockdev/blocktest"
	"github.com/fsmigrate/fsmigrate/copier"
	"github.com/fsmigrate/fsmigrate/formats"
)

// The digests of a large file's ranges are of its whole content, or not there: a copy that
// ended in the middle must not leave those of before.
func TestPairRangesAreOfTheWholeContent(t *testing.T) {
	r := newSyncRig(t, "ext4", "xfs")
	ctx := context.Background()
	r.sh("head -c 9000000 /dev/urandom > large")
	must(t, r.p.walk(ctx))
	r.quiet()
	n := r.node("large")
	first, ok, err := r.p.nodes.Ranges(n)
	if err != nil || !ok || len(first) == 0 {
		t.Fatalf("ranges of a large file: %d bytes, %v, %v", len(first), ok, err)
	}
	r.sh("printf change | dd of=large bs=1 seek=5000000 conv=notrunc status=none")
	must(t, r.w.Barrier(ctx))
	r.p.step = func(op string) error {
		if op == "write" {
			return errStep
		}
		return nil
	}
	if _, err := r.p.pass(ctx, passMode{}); !errors.Is(err, errStep) {
		t.Fatalf("the pass: %v", err)
	}
	r.p.step = nil
	if _, ok, err := r.p.nodes.Ranges(n); err != nil || ok {
		t.Errorf("a copy that ended has ranges: %v", err)
	}
	r.quiet()
	if again, ok, err := r.p.nodes.Ranges(n); err != nil || !ok || string(again) == string(first) {
		t.Errorf("ranges of the new content: %v, %v", ok, err)
	}
	r.equal()
}

// A file that is shorter at the end of its copy than at the beginning is copied again,
// whether or not that was heard.
func TestPairTruncatedWhileItIsCopied(t *testing.T) {
	r := newSyncRig(t, "ext4", "xfs")
	ctx := context.Background()
	r.sh("head -c 300000 /dev/urandom > f")
	must(t, r.p.walk(ctx))
	r.quiet()
	must(t, r.w.Close())
	n := r.node("f")
	r.sh("head -c 300000 /dev/urandom > f")
	r.p.journal.Mark(n, Data|Attrs)
	r.p.step = func(op string) error {
		if op == "write" {
			return os.Truncate(filepath.Join(r.src, "f"), 1000)
		}
		return nil
	}
	_, err := r.p.pass(ctx, passMode{})
	must(t, err)
	r.p.step = nil
	if r.p.journal.Dirty(n)&Data == 0 {
		t.Error("it counts as copied")
	}
	_, err = r.p.pass(ctx, passMode{})
	must(t, err)
	r.equal()
}

// What is read back of a file with holes was flushed before: on ext4 an unflushed file
// shows holes over data. A flush that fails takes back what was claimed of the shadow (I6).
func TestOrderOfADigest(t *testing.T) {
	r := newSyncRig(t, "xfs", "ext4")
	ctx := context.Background()
	path := filepath.Join(r.dst, "sparse")
	must(t, os.WriteFile(path, []byte("x"), 0o644))
	must(t, os.Truncate(path, 5<<20))
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	must(t, err)
	defer unix.Close(fd)
	w := &worker{bufs: copier.NewBuffers()}
	attr, err := copier.ReadAttr(fd, w.bufs)
	must(t, err)
	got := blocktest.Calls(t, r.dst, func() {
		_, err := r.p.digest(ctx, w, fd, &attr, false)
		must(t, err)
	})
	wantCalls(t, "a digest", got, "fdatasync sparse")
	if _, err := r.p.digest(ctx, w, -1, &attr, false); err == nil {
		t.Error("a digest of what could not be flushed")
	}
	if rescan, _ := r.p.journal.NeedRescan(); !rescan {
		t.Error("what the shadow did not keep is not looked for")
	}
}

// lost+found is the target's own until the source has one too: then it is part of the tree.
func TestPairLostAndFoundOfTheTree(t *testing.T) {
	r := newSyncRig(t, "xfs", "ext4")
	ctx := context.Background()
	r.sh("echo x > f")
	must(t, r.p.walk(ctx))
	r.quiet()
	must(t, r.w.Close()) // whoever made it was not heard
	r.sh("mkdir lost+found; echo mine > lost+found/in")
	for range 2 {
		_, err := r.p.pass(ctx, passMode{})
		must(t, err)
	}
	if got, err := os.ReadFile(filepath.Join(r.dst, "lost+found/in")); err != nil || string(got) != "mine\n" {
		t.Errorf("%q, %v", got, err)
	}
}

// What was left behind with consent is tried once more behind the fence, whether or not its
// time has come.
func TestPairLeftBehindIsTriedBehindTheFence(t *testing.T) {
	r := newSyncRig(t, "ext4", "xfs")
	r.p.waived = func(class string) bool { return class == unreadable }
	ctx := context.Background()
	r.sh("mkdir d; echo x > d/bad")
	r.p.step = func(op string) error {
		if op == "write" {
			return &copier.SourceError{Op: "read", Err: unix.EIO}
		}
		return nil
	}
	must(t, r.p.walk(ctx))
	for deadline := time.Now().Add(20 * time.Second); r.p.racyLen() > 1 && time.Now().Before(deadline); {
		must(t, r.w.Barrier(ctx))
		_, err := r.p.pass(ctx, passMode{})
		must(t, err)
	}
	r.p.step = nil
	if len(r.p.left.nodes()) == 0 || r.p.journal.Len() != 0 {
		t.Fatalf("%v are left behind, %d units are dirty", r.p.left.nodes(), r.p.journal.Len())
	}
	r.p.racyMu.Lock()
	r.p.racy = map[Node]time.Time{} // nothing else would look again
	r.p.racyMu.Unlock()
	must(t, r.w.Barrier(ctx))
	proof, err := r.p.drain(ctx)
	must(t, err)
	r.p.fenced = false
	if proof.Waived != 0 || proof.Verified != proof.Objects {
		t.Errorf("proof %+v, left behind %v", proof, r.p.left.nodes())
	}
	r.equal()
}

// Limbo keeps an object whose new name was not heard of yet: it is fetched from there, and
// not copied again.
func TestPairLimboKeepsWhatLives(t *testing.T) {
	r := newSyncRig(t, "ext4", "xfs")
	ctx := context.Background()
	r.sh("mkdir x y; echo f > x/f; mkdir x/d; echo in > x/d/in")
	must(t, r.p.walk(ctx))
	r.quiet()
	must(t, r.w.Close())
	r.p.scans.Store(false)
	number := func(name string) uint64 {
		var st unix.Stat_t
		must(t, unix.Lstat(filepath.Join(r.dst, name), &st))
		return st.Ino
	}
	f, in := number("x/f"), number("x/d/in")
	r.sh("mv x/f x/d y/")
	for _, dir := range []string{"x", "y"} {
		for _, name := range []string{"f", "d"} {
			r.p.names.add(r.node(dir), name)
		}
		r.p.journal.Mark(r.node(dir), Entries)
		_, err := r.p.pass(ctx, passMode{})
		must(t, err)
		if left, err := os.ReadDir(filepath.Join(r.dst, ".fsmigrate-test")); dir == "x" && len(left) != 2 {
			t.Errorf("limbo has %d entries, %v", len(left), err)
		}
	}
	if number("y/f") != f || number("y/d/in") != in {
		t.Error("what was renamed was copied again")
	}
	r.equal()
}

// What the other side cannot hold is told at the moment it is met, with its name: it closes
// the way back.
func TestPairTellsALoss(t *testing.T) {
	r := newSyncRig(t, "ext4", "xfs")
	ctx := context.Background()
	var told []string
	var mu sync.Mutex
	r.p.onLoss = func(path string, l formats.Loss) {
		mu.Lock()
		defer mu.Unlock()
		told = append(told, path+" "+l.Class)
	}
	r.sh("mkdir d; ln -s $(printf '%02000d' 0) d/long")
	must(t, r.p.walk(ctx))
	mu.Lock()
	defer mu.Unlock()
	if len(told) == 0 || !strings.HasSuffix(told[0], "d/long "+formats.LossSymlink) {
		t.Errorf("told %q", told)
	}
}
