package shadow

import (
	"context"
	"strings"
	"testing"
)

// What the shadow holds differently is found, named, copied again and then equal; what
// was found equal is remembered as such.
func TestPairVerifyFindsPlantedDifferences(t *testing.T) {
	r := newSyncRig(t, "ext4", "xfs")
	ctx := context.Background()
	r.sh("mkdir d; for f in same flip mode xattr gone; do echo content of $f > d/$f; setfattr -n user.a -v b d/$f; done")
	must(t, r.p.walk(ctx))
	r.quiet()
	r.sh(`cd ` + r.dst + `/d; printf C | dd of=flip bs=1 conv=notrunc status=none; touch -r ` + r.src + `/d/flip flip
chmod 600 mode; setfattr -x user.a xattr; rm gone; touch -r ` + r.src + `/d .`)
	proof, err := r.p.verifyAll(ctx)
	must(t, err)
	for _, name := range []string{"flip", "mode", "xattr"} {
		if !strings.Contains(strings.Join(proof.Examples, "\n"), "d/"+name+": ") {
			t.Errorf("%s is not named: %v", name, proof.Examples)
		}
		if r.p.journal.Dirty(r.node("d/"+name)) == 0 {
			t.Errorf("%s is not copied again", name)
		}
	}
	rec, known, err := r.p.nodes.Get(r.node("d/same"))
	if err != nil || !known || rec.Flags&Verified == 0 {
		t.Errorf("what is equal is not remembered as verified: %+v, %v", rec, err)
	}
	r.quiet()
	proof, err = r.p.verifyAll(ctx)
	must(t, err)
	if proof.Different != 0 || r.p.verifiedCount() != r.p.nodes.Count() {
		t.Errorf("afterwards %+v", proof)
	}
	r.equal()
}

// What changed on the truth, unheard, is no difference of the shadow: it is dirty.
func TestPairVerifyMarksWhatChanged(t *testing.T) {
	r := newSyncRig(t, "ext4", "xfs")
	ctx := context.Background()
	r.sh("mkdir d; echo x > d/f; echo y > g")
	must(t, r.p.walk(ctx))
	r.quiet()
	must(t, r.w.Close())
	r.sh("echo more >> g; echo new > d/n")
	proof, err := r.p.verifyAll(ctx)
	must(t, err)
	if proof.Different != 0 {
		t.Errorf("differences %v", proof.Examples)
	}
	if r.p.journal.Dirty(r.node("g"))&Data == 0 {
		t.Error("the file is not marked")
	}
	if r.p.journal.Dirty(r.node("d"))&Entries == 0 {
		t.Error("the directory is not marked")
	}
	for r.p.journal.Len() > 0 {
		_, err := r.p.pass(ctx, passMode{})
		must(t, err)
	}
	r.equal()
}
