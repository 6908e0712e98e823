package shadow

import (
	"context"
	"testing"
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
