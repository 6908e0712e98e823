package e2e

import (
	"fmt"
	"strings"
	"testing"

	"github.com/fsmigrate/fsmigrate/e2e/vol"
)

// hang lets a device hang at the k-th of the operations from now on, and those that follow.
func (r *faultRig) hang(name, op string, k int) {
	r.arm(fmt.Sprintf("%s %s %d hold sticky", name, op, k))
}

// hangs waits until something waits for the device.
func (r *faultRig) hangs(name string) {
	r.t.Helper()
	if !vol.Eventually(toHold, func() bool { _, fired := r.counts(name); return fired > 0 }) {
		r.t.Fatalf("nothing waits for the %s\n%s", name, r.said())
	}
}

// A spare that hangs, in the copy and in Hold: the application goes on, an operator is
// answered, and when the spare goes on, so does the migration, to the end.
func TestSpareHangs(t *testing.T) {
	d := dayOf(t, "SPARE hangs")
	rng := seeded(t)
	r := newFaultRig(t, pairs[rng.IntN(3)], 400, rng.Uint64())
	r.run()
	r.waitPhase(toHold, "copy", "catch-up", "verify", "hold")
	for _, phase := range []string{"on the way", "in hold"} {
		r.hang("spare", "any", 0)
		r.hangs("spare")
		r.moreChurn(200)
		if s, err := r.status(); err != nil || s["truth"] != "source" {
			t.Errorf("%s: while the spare hangs the status is %v, %v", phase, s, err)
		}
		r.arm("spare mend")
		if at := r.comesTo(); at != "hold" {
			t.Fatalf("%s: it comes to %s\n%s", phase, at, r.said())
		}
	}
	r.cutover()
	if !r.beforeRecord() {
		t.Fatalf("no cutover: %s", &r.answer)
	}
	r.goOn()
	d.judge(t, 0, r.said())
	r.must([]string{"finalize", id})
	r.engine.code(t, toEnd)
	r.never()
	r.fromDisk(r.pair.to, r.spare, 0)
	r.off()
}

// The last sync of a cutover hangs when its deadline passes: the application is on the
// source again while the spare still hangs. When the spare goes on, the engine finds the
// attempt undone, and the next one succeeds.
func TestSpareHangsInTheCutover(t *testing.T) {
	d := dayOf(t, "SPARE hangs in the cutover")
	ops := []string{"sync", "any", "write"}
	if !long() {
		ops = ops[:1]
	}
	for i, op := range ops {
		t.Run(op, func(t *testing.T) {
			rng := seeded(t)
			r := newFaultRig(t, pairs[i], 400, rng.Uint64())
			r.script("stop", "touch "+r.Path("stopped")+"; "+r.churnCommand("stop"))
			r.run("--deadline", "4s", "--pause-budget", "2s")
			if at := r.comesTo(); at != "hold" {
				t.Fatalf("it comes to %s", at)
			}
			// What hangs is only what comes behind the service's stop.
			r.script("stop", r.churnCommand("stop")+fmt.Sprintf("; printf %%s '%sspare %s 0 hold sticky' >%s", r.disks.prefix, op, r.disks.marks()))
			r.cutover()
			r.hangs("spare")
			r.moreChurn(100)
			if got := r.fsType(); got != fstypeOf(r.pair.spec) {
				t.Errorf("while the spare hangs %s is in place", got)
			}
			if _, fired := r.counts("spare"); fired == 0 {
				t.Error("it does not hang any more")
			}
			r.arm("spare mend")
			d.judge(t, r.asked.code(t, toEnd), r.answer.String())
			r.script("stop", r.churnCommand("stop"))
			if r.engine.ended() {
				t.Fatalf("the engine has ended\n%s", r.said())
			}
			r.waitPhase(toHold, "hold")
			r.again()
			r.fromDisk(r.pair.to, r.spare, 0)
			r.off()
		})
	}
}

// again cuts over and finalizes, now that nothing is wrong any more.
func (r *faultRig) again() {
	r.t.Helper()
	for n := 0; ; n++ {
		r.cutover()
		if r.beforeRecord() {
			break
		}
		if n == 20 || r.engine.ended() {
			r.t.Fatalf("no cutover: %s\n%s", &r.answer, r.rig.said())
		}
	}
	r.goOn()
	r.moreChurn(50)
	r.must([]string{"finalize", id})
	r.engine.code(r.t, toEnd)
	r.never()
}

// The old volume fails, or hangs, while it follows the new one: the application goes on,
// the way back is what it is said to be, and the migration is finalized.
func TestOldVolumeFails(t *testing.T) {
	faults := []string{"write 0 EIO", "any 3 EIO sticky", "sync 0 EIO", "write 0 ENOSPC sticky", "any 0 hold sticky"}
	if !long() {
		faults = []string{[]string{"any 3 EIO sticky", "any 0 hold sticky"}[seeded(t).IntN(2)]}
	}
	for _, fault := range faults {
		t.Run(strings.ReplaceAll(fault, " ", "-"), func(t *testing.T) {
			d := dayOf(t, "the old volume fails")
			rng := seeded(t)
			r := newFaultRig(t, pairs[rng.IntN(3)], 400, rng.Uint64())
			r.run()
			if at := r.comesTo(); at != "hold" {
				t.Fatalf("it comes to %s", at)
			}
			r.cutover()
			if !r.beforeRecord() {
				t.Fatalf("no cutover: %s", &r.answer)
			}
			r.goOn()
			r.waitPhase(toHold, "reverse")
			r.arm("source " + fault)
			r.hangs("source")
			r.moreChurn(200)
			if s, err := r.status(); err != nil || s["truth"] != "shadow" || s["phase"] != "reverse" {
				t.Errorf("the status is %v, %v", s, err)
			}
			if strings.Contains(fault, "EIO") {
				r.cmd("verify", id)
				if !r.says(toHold, d.message) {
					t.Errorf("it is not said that %s:\n%s", d.message, r.said())
				}
			}
			r.never()
			r.arm("source mend")
			r.must([]string{"finalize", id})
			r.engine.code(t, toEnd)
			r.fromDisk(r.pair.to, r.spare, 0)
			r.off()
		})
	}
}

// The source fails, for the application too. Whatever it is told, nothing is cut over that
// could not be read or written back, and the truth is the source.
func TestFailingSource(t *testing.T) {
	faults := []string{"write 0 EIO sticky", "read 0 EIO sticky", "write 5 EIO sticky"}
	if !long() {
		faults = faults[seeded(t).IntN(2):][:1]
	}
	for _, fault := range faults {
		t.Run(strings.ReplaceAll(fault, " ", "-"), func(t *testing.T) {
			rng := seeded(t)
			r := newFaultRig(t, pairs[3*rng.IntN(2)], 400, rng.Uint64())
			r.run()
			if at := r.comesTo(); at != "hold" {
				t.Fatalf("it comes to %s", at)
			}
			vol.Run(t, "sh", "-c", "echo 3 >/proc/sys/vm/drop_caches")
			r.arm("source " + fault)
			vol.Run(t, "sh", "-c", `for i in 1 2 3; do echo $i >"$0/more$i"; sync "$0/more$i"; done; ls -lR "$0" >/dev/null 2>&1; true`, r.dir)
			r.hangs("source")
			code, out := r.cmd("cutover", id)
			if code == 0 {
				t.Errorf("a cutover from a source that fails exits 0\n%s", out)
			}
			if code != 0 && !strings.Contains(out, "hint: ") {
				t.Errorf("exit %d, and no hint:\n%s", code, out)
			}
			if got := r.fsType(); got != fstypeOf(r.pair.spec) {
				t.Errorf("%s is in place", got)
			}
			r.arm("source mend")
			r.cmd("abort", id)
			if code := r.engine.code(t, toEnd); code != 5 {
				t.Errorf("after the abort: exit %d\n%s", code, r.said())
			}
			r.killApplication()
			r.off()
		})
	}
}
