package e2e

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strings"

	"github.com/fsmigrate/fsmigrate/blockdev/record"
	"github.com/fsmigrate/fsmigrate/e2e/oracle"
)

// resumeCut lets the migration go on after a cut, to an end that the cut chooses: abort
// or cutover before the record, finalize or rollback after it. The volume that is in
// place then, and right after a cutover, is, in everything that anybody can see of it, what was booted.
func (r *powerRig) resumeCut(v *verdict, cut record.Cut) {
	r.t.Helper()
	switch v.phase {
	case "", "preflight", "finalized", "rolled-back", "aborted":
		return // nothing was begun, or all is over
	}
	window := oracle.Options{Window: r.pair.back}
	before, err := oracle.Take(r.dir, window)
	if err != nil {
		v.bad("look at the volume: %v", err)
		return
	}
	same := func(when string) {
		after, err := oracle.Take(r.dir, window)
		if err != nil {
			v.bad("look at the volume: %v", err)
			return
		}
		if d := before.Compare(after); len(d) > 0 {
			v.bad("%s, and the volume is not what was booted:\n    %s", when, strings.Join(d, "\n    "))
		}
	}
	r.background(nil, "resume", id)
	want := r.toTheEnd(v, cut.Seed, func() { same("resumed from " + v.phase + " to the cutover") })
	r.engine.code(r.t, toEnd)
	r.engine = nil
	v.resumed = fmt.Sprintf("from %s to %s", v.phase, want)
	if s, err := r.status(); err != nil || s["phase"] != want {
		v.bad("resumed from %s: phase %v, want %s (%v)", v.phase, s["phase"], want, err)
		return
	}
	same("resumed " + v.resumed)
	r.judgeVolume(v, cut)
}

// toTheEnd asks for what ends the migration, and answers the phase that it will end in. It
// calls switched where it had the volume switched to the shadow.
func (r *powerRig) toTheEnd(v *verdict, choice uint64, switched func()) (want string) {
	r.t.Helper()
	switch {
	case v.phase == "finalizing":
		return "finalized" // it is decided, and so are the next two
	case v.phase == "aborting":
		return "aborted"
	case v.phase == "rollback" && v.truth == "source":
		return "rolled-back"
	case v.truth == "source" && choice%3 == 0:
		r.waitPhase(toHold, "hold")
		r.must([]string{"abort", id}, 0, 5)
		return "aborted"
	}
	r.cutOver()
	if v.truth == "source" { // else a rollback may be on its way
		switched()
	}
	if choice%2 == 0 {
		r.must([]string{"finalize", id})
		return "finalized"
	}
	r.must([]string{"rollback", id}, 0, 6)
	return "rolled-back"
}

// again records the boot after a cut and the migration that is resumed then, to its end, and
// judges what a second cut leaves of that. Nothing works on the volume meanwhile: what was
// promised before the first cut is promised still.
func (r *powerRig) again(rng *rand.Rand, first record.Cut, states int) tally {
	t := r.t
	t.Helper()
	s := &powerRig{rig: r.rig, disks: r.disks.beside(r.Path("again.log")), root: r.root, bootID: r.bootID, first: &firstCut{r, first}}
	s.newBoot()
	s.disks.start("continue", "--log", s.disks.log, "--after", r.disks.log, "--cut", first.String())
	s.attached()
	s.disks.mark("begin")
	v := verdict{}
	err := s.mountRoot()
	if err == nil {
		v.truth = s.recordedTruth(&v)
		err = s.bootCut()
	}
	if err != nil {
		t.Fatalf("cut %v was judged good, and now: %v", first, err)
	}
	v.phase = s.savedPhase()
	stop := s.markPhases()
	defer stop()
	s.background(nil, "resume", id)
	s.toTheEnd(&v, first.Seed, func() {})
	s.engine.code(t, toEnd)
	stop()
	s.finish()
	defer os.Remove(s.disks.log)
	return s.judgeAll(s.cutsAfter(rng, states))
}

// cutsAfter are cuts in what was recorded after a first one: half of them at flushes.
func (r *powerRig) cutsAfter(rng *rand.Rand, states int) (list []record.Cut) {
	from := 0
	for _, m := range r.marks {
		if m.text == "begin" {
			from = m.at + 1
		}
	}
	flushes := r.flushes(from, len(r.log.Entries))
	if len(flushes) == 0 {
		r.t.Fatalf("no flush in %d entries of a boot", len(r.log.Entries)-from)
	}
	for i := range states {
		c := record.Cut{Loss: record.Losses()[rng.IntN(len(record.Losses()))], Seed: rng.Uint64() % 1e6}
		c.Entries = from + rng.IntN(len(r.log.Entries)-from+1)
		if i%2 == 0 {
			c.Entries = flushes[rng.IntN(len(flushes))]
		}
		list = append(list, c)
	}
	return list
}
