package shadow

import (
	"context"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fsmigrate/fsmigrate/copier"
	"github.com/fsmigrate/fsmigrate/formats"
	"github.com/fsmigrate/fsmigrate/migrate"
)

// An object that cannot exist on the other side, with the plan's consent, is left behind
// and counted: it does not stand in the way of a cutover.
func TestPairLeftBehindIsCounted(t *testing.T) {
	r := newSyncRig(t, "ext4", "xfs")
	var classes []string
	r.p.waived = func(class string) bool { classes = append(classes, class); return true }
	r.p.workers = 1
	r.sh("mkdir d; ln -s $(printf '%02000d' 0) d/long; echo x > d/x; ln -s $(printf '%02000d' 1) long; ln d/long d/again")
	ctx := context.Background()
	must(t, r.p.walk(ctx))
	proof, err := r.p.drain(ctx)
	must(t, err)
	if proof.Waived != 2 || proof.Different != 0 || proof.Verified+proof.Waived != proof.Objects {
		t.Errorf("proof %+v, classes %v", proof, classes)
	}
	r.p.fenced = false
	r.sh("rm d/long d/again; echo file > long2; mv long2 long")
	must(t, r.w.Barrier(ctx))
	proof, err = r.p.drain(ctx)
	must(t, err)
	if proof.Waived != 0 || proof.Different != 0 || proof.Verified != proof.Objects {
		t.Errorf("proof after they were removed %+v", proof)
	}
	r.p.fenced = false
	r.equal()
}

// A blocker ends with its reason: the object was removed, or changed so that it fits.
func TestPairBlockersEnd(t *testing.T) {
	r := newSyncRig(t, "ext4", "xfs")
	r.sh("ln -s $(printf '%02000d' 0) long; ln -s $(printf '%02000d' 0) gone; touch -d '2490-01-01' far")
	ctx := context.Background()
	must(t, r.p.walk(ctx))
	if n := len(r.p.fails.list()); n < 2 {
		t.Fatalf("blockers: %v", r.p.fails.list())
	}
	r.sh("rm gone; ln -sf short long; touch far")
	r.quiet()
	r.settle()
	r.equal()
	if b := r.p.fails.list(); len(b) != 0 {
		t.Errorf("blockers stay: %v", b)
	}
}

// A file that cannot be read is what is named, not the directory that lacks it; and it
// is copied once it can be read, although nothing is heard of that.
func TestPairUnreadableFileIsNamed(t *testing.T) {
	r := newSyncRig(t, "ext4", "xfs")
	ctx := context.Background()
	r.sh("mkdir -p d/sub; echo x > d/bad")
	r.p.step = func(op string) error {
		if op == "write" {
			return &copier.SourceError{Op: "read", Err: unix.EIO}
		}
		return nil
	}
	must(t, r.p.walk(ctx))
	for range maxRecopies + 2 {
		proof, err := r.p.verifyAll(ctx)
		must(t, err)
		if proof.Different != 0 {
			t.Errorf("different: %v", proof.Examples)
		}
		_, err = r.p.pass(ctx, passMode{})
		must(t, err)
	}
	b := r.p.fails.list()
	if len(b) != 1 || b[0].Class != unreadable || b[0].Object != "/d/bad" {
		t.Errorf("blockers: %+v", b)
	}
	r.p.step = nil
	r.p.racyMu.Lock()
	r.p.racy[r.node("d/bad")] = time.Time{} // its time has come
	r.p.racyMu.Unlock()
	r.quiet()
	if b := r.p.fails.list(); len(b) != 0 {
		t.Errorf("blockers stay: %v", b)
	}
	r.settle()
	r.equal()
}

// ext4 gives a file 65,000 names and not one more.
func TestPairLinksAtTheLimit(t *testing.T) {
	r := newSyncRig(t, "xfs", "ext4")
	ctx := context.Background()
	r.sh("mkdir d e f; echo x > d/0; python3 -c 'import os\nfor i in range(1, 65000): os.link(\"d/0\", \"d/%d\" % i)'")
	must(t, r.p.walk(ctx))
	r.quiet()
	// One more than there is room for, until the old name is taken away: whichever comes first.
	r.sh("mv d/17 e/17; ln d/0 f/0; rm d/18; mv d/19 e/19; rm f/0; ln d/0 f/1")
	r.quiet()
	if b := r.p.fails.list(); len(b) != 0 {
		t.Fatalf("blockers: %v", b)
	}
	r.settle()
	r.sh("ln d/0 e/over")
	r.quiet()
	named := false
	for _, b := range r.p.fails.list() {
		named = named || b.Class == formats.LossLinks
		if b.Class != formats.LossLinks {
			t.Errorf("blocker %+v", b)
		}
	}
	if !named {
		t.Error("nothing says that a file has too many names")
	}
	r.sh("rm d/5")
	r.quiet()
	r.quiet() // all directories are compared for the name that found no place
	if b := r.p.fails.list(); len(b) != 0 {
		t.Errorf("blockers stay: %v", b)
	}
	r.settle()
	r.equal()
}

// ext4 without dir_nlink takes 64,998 directories in one; btrfs does not count them.
func TestPairDirectoriesAtTheLimit(t *testing.T) {
	r := newSyncRigWith(t, "btrfs", "ext4", nil, []string{"-O", "^dir_nlink", "-i", "4096"})
	ctx := context.Background()
	r.sh("mkdir d e; mkdir e/moves; echo x > e/moves/x; cd d; seq 64997 | xargs mkdir")
	must(t, r.p.walk(ctx))
	r.quiet()
	if b := r.p.fails.list(); len(b) != 0 {
		t.Fatalf("blockers: %v", b)
	}
	r.sh("mkdir d/last; mv e/moves d/; mkdir d/over")
	for range 3 {
		must(t, r.w.Barrier(ctx))
		_, err := r.p.pass(ctx, passMode{})
		must(t, err)
	}
	b := r.p.fails.list()
	if len(b) != 2 || b[0].Class != formats.LossSubdirs || b[1].Class != formats.LossSubdirs {
		t.Errorf("blockers: %+v", b)
	}
	r.sh("rmdir d/3 d/4")
	r.p.racyMu.Lock()
	for n := range r.p.racy {
		r.p.racy[n] = time.Time{}
	}
	r.p.racyMu.Unlock()
	r.quiet()
	if b := r.p.fails.list(); len(b) != 0 {
		t.Errorf("blockers stay: %v", b)
	}
	r.settle()
	r.equal()
}

// With consent, a file that was copied and cannot be read any more is left behind by name: the
// earlier state, half overwritten, under its name would be taken for it. It is copied when it can be read.
func TestPairUnreadableNowIsLeftBehind(t *testing.T) {
	r := newSyncRig(t, "ext4", "xfs")
	r.p.waived = func(class string) bool { return class == unreadable }
	ctx := context.Background()
	r.sh("mkdir d; echo x > d/bad; echo y > d/good")
	must(t, r.p.walk(ctx))
	r.quiet()
	r.sh("echo xx >> d/bad")
	must(t, r.w.Barrier(ctx))
	r.p.step = func(op string) error {
		if op == "write" {
			return &copier.SourceError{Op: "read", Err: unix.EIO}
		}
		return nil
	}
	proof, err := r.p.drain(ctx)
	must(t, err)
	if proof.Waived != 1 || proof.Different != 0 || proof.Verified+proof.Waived != proof.Objects {
		t.Errorf("proof %+v", proof)
	}
	if got := strings.Fields(run(t, "ls", filepath.Join(r.dst, "d"))); len(got) != 1 || got[0] != "good" {
		t.Errorf("the shadow has %q", got)
	}
	r.p.fenced, r.p.step = false, nil
	proof, err = r.p.drain(ctx)
	must(t, err)
	r.p.fenced = false
	if proof.Waived != 0 || proof.Verified != proof.Objects {
		t.Errorf("proof once it could be read %+v", proof)
	}
	r.equal()
}

// What an earlier process left behind is in no memory of this one, and no directory changed: it is
// found by the scan, and is no reason against a cutover.
func TestPairLeftBehindBeforeARestart(t *testing.T) {
	r := newSyncRig(t, "ext4", "xfs")
	r.p.waived = func(class string) bool { return true }
	ctx := context.Background()
	r.sh("mkdir d; ln -s $(printf '%02000d' 0) d/long; echo x > d/x")
	must(t, r.p.walk(ctx))
	r.quiet()
	r.p.left.m = nil
	r.p.journal.MarkAll("nobody watched")
	r.quiet()
	r.p.journal.MarkAll("the next scan")
	r.quiet()
	proof, err := r.p.drain(ctx)
	must(t, err)
	if proof.Waived != 1 || proof.Different != 0 || proof.Verified+proof.Waived != proof.Objects {
		t.Errorf("proof %+v", proof)
	}
}

// A firm blocker is told although its class is waived.
func TestFirmBlockersAreTold(t *testing.T) {
	r := newSyncRig(t, "ext4", "xfs")
	tree := &Tree{o: TreeOptions{Plan: &migrate.Plan{ID: "t1", Waive: []migrate.Waiver{{Class: "different", Reason: "known"}, {Class: "x", Reason: "known"}}}}}
	tree.setPairs(r.p, nil)
	r.p.fails.add(migrate.Blocker{Class: "different", Object: "/f", Firm: true})
	r.p.fails.add(migrate.Blocker{Class: "x", Object: "/g"})
	b, err := tree.Backlog(context.Background())
	must(t, err)
	if len(b.Blockers) != 1 || b.Blockers[0].Object != "/f" {
		t.Errorf("blockers %+v", b.Blockers)
	}
}
