package e2e

import (
	"fmt"
	"strings"
	"testing"

	"github.com/fsmigrate/fsmigrate/e2e/vol"
)

// spareFaults are what a spare can do wrong: which operation, what it answers, and
// whether it recovers.
var spareFaults = []string{
	"write %d EIO", "write %d EIO sticky", "sync %d EIO", "read %d EIO sticky", "any %d EIO sticky", "write %d ENOSPC sticky", "read %d EIO", "write %d EROFS sticky",
}

// The k-th operation on the spare fails, from the first look at it to right before the
// switch record: in `make test-long` for every k until a run gets through, in `make test`
// for one k of half the kinds. The migration is refused, aborted, paused, or goes through; the
// application is never told, and whichever volume it is on in the end holds on its disk
// all that it was promised.
func TestFailingSpare(t *testing.T) {
	rng := seeded(t)
	kinds := rng.Perm(len(spareFaults))
	if !long() {
		kinds = kinds[:len(kinds)/2]
	}
	for _, i := range kinds {
		fault, p := spareFaults[i], pairs[i%3] // to xfs, btrfs, ext4
		run := func(k int) (through bool) {
			f := fmt.Sprintf(fault, k)
			t.Run(p.to+"_"+strings.ReplaceAll(f, " ", "_"), func(t *testing.T) { through = failSpare(t, p, f, rng.Uint64()) })
			return through
		}
		if long() {
			for k := 0; !run(k) && !t.Failed(); k++ {
			}
			continue
		}
		most := 1000
		if strings.HasPrefix(fault, "sync") {
			most = 40
		}
		run(rng.IntN(most))
	}
}

// A spare that fails while it is formatted gives the migration up. The engine ended instead
// with "prepare failed 3 times", and with it nobody was left to ask for an abort. Of
// mkfs.btrfs nothing is heard of such a failure: what it had not made was never made again.
func TestSpareFailsInPrepare(t *testing.T) {
	for _, c := range []struct {
		pair  pair
		fault string
	}{{pairs[0], "write 0 EIO sticky"}, {pairs[1], "write 35 EIO sticky"}} {
		t.Run(c.pair.name, func(t *testing.T) {
			if failSpare(t, c.pair, c.fault, seeded(t).Uint64()) {
				t.Error("nothing failed")
			}
		})
	}
}

// What was copied in Hold cannot be read back. That was told of the source, three times, and
// the engine ended; nothing but the spare had failed.
func TestSpareUnreadable(t *testing.T) {
	r := newFaultRig(t, pairs[0], 400, seeded(t).Uint64())
	r.run()
	if at := r.comesTo(); at != "hold" {
		t.Fatalf("it comes to %s\n%s", at, r.rig.said())
	}
	r.arm("spare read 0 EIO sticky")
	if code := r.engine.code(t, toHold); code != 5 {
		t.Errorf("exit %d, want 5", code)
	}
	r.arm("spare mend")
	r.givenUp("ended", 1)
	r.moreChurn(50)
	r.never()
	r.fromDisk(r.pair.spec, r.source, 0)
	r.off()
}

// failSpare is one migration with one fault; it answers whether it was done before the
// fault came.
func failSpare(t *testing.T, p pair, fault string, seed uint64) (through bool) {
	t.Helper()
	r := newFaultRig(t, p, 400, seed)
	r.arm("spare " + fault)
	r.run()
	at := r.comesTo()
	if at == "hold" {
		r.moreChurn(50)
		r.cutover()
		switch {
		case r.beforeRecord():
			at = "reverse"
		case r.engine.ended():
			at = "ended"
		default:
			at = r.comesTo()
		}
	}
	seen, fired := r.counts("spare")
	t.Logf("%s: %d counted, %d failed, %s", fault, seen, fired, at)
	if fired == 0 && at != "reverse" {
		t.Fatalf("nothing failed, but it comes to %s\n%s%s", at, &r.answer, r.rig.said())
	}
	r.arm("spare mend")
	if at == "reverse" {
		r.goOn()
		r.moreChurn(50)
		r.must([]string{"finalize", id})
		r.engine.code(t, toEnd)
		r.never()
		r.fromDisk(p.to, r.spare, 0)
		r.off()
		return fired == 0
	}
	r.givenUp(at, fired)
	r.moreChurn(50)
	r.never()
	r.fromDisk(p.spec, r.source, 0)
	r.off()
	return false
}

// givenUp proves that a migration whose spare fails ends as docs/bad-days.md says.
func (r *faultRig) givenUp(at string, fired int) {
	t := r.t
	t.Helper()
	switch at {
	case "paused":
		d := dayOf(t, "what lies below SPARE is full")
		d.judge(t, 0, r.rig.said())
		r.must([]string{"abort", id}, 0, 5)
		r.engine.code(t, toEnd)
	case "hold":
		if code := r.asked.code(t, toEnd); code == 0 {
			t.Errorf("it holds, and the cutover exits 0\n%s", &r.answer)
		}
		r.must([]string{"abort", id}, 0, 5)
		r.engine.code(t, toEnd)
	case "ended":
		switch code := r.engine.code(t, toEnd); {
		case code == 5:
			dayOf(t, "I/O errors on SPARE").judge(t, code, r.rig.said())
		case code == 3 && fired > 0: // refused before it began
		default:
			t.Errorf("exit %d\n%s", code, r.rig.said())
		}
	default:
		t.Errorf("it comes to %s\n%s", at, r.rig.said())
	}
	if got := r.fsType(); got != fstypeOf(r.pair.spec) {
		t.Errorf("%s is in place", got)
	}
	if n := len(vol.Mounts(r.dir)); n != 1 {
		t.Errorf("%d mounts at %s", n, r.dir)
	}
}
