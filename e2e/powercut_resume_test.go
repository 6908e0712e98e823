package e2e

import (
	"fmt"
	"strings"

	"github.com/fsmigrate/fsmigrate/blockdev/record"
	"github.com/fsmigrate/fsmigrate/e2e/oracle"
)

// resumeCut lets the migration go on after a cut, to an end that the cut chooses: abort
// or cutover before the record, finalize or rollback after it. The volume that is in
// place then is, in everything that anybody can see of it, what was booted.
func (r *powerRig) resumeCut(v *verdict, cut record.Cut, acked []int) {
	r.t.Helper()
	s, err := r.status()
	if err != nil {
		v.resumed = "" // no migration was begun: nothing to resume
		return
	}
	phase, _ := s["phase"].(string)
	if phase == "finalized" || phase == "rolled-back" || phase == "aborted" || phase == "preflight" {
		return
	}
	window := oracle.Options{Window: r.pair.back}
	before, err := oracle.Take(r.dir, window)
	if err != nil {
		v.bad("look at the volume: %v", err)
		return
	}
	r.background(nil, "resume", id)
	want := ""
	switch {
	case v.truth == "source" && cut.Seed%3 == 0:
		r.waitPhase(toHold, "hold")
		r.must([]string{"abort", id}, 0, 5)
		want = "aborted"
	case cut.Seed%2 == 0:
		r.cutOver()
		r.must([]string{"finalize", id})
		want = "finalized"
	default:
		r.cutOver()
		r.must([]string{"rollback", id}, 0, 6)
		want = "rolled-back"
	}
	r.engine.code(r.t, toEnd)
	r.engine = nil
	v.resumed = fmt.Sprintf("from %s to %s", phase, want)
	if s, err := r.status(); err != nil || s["phase"] != want {
		v.bad("resumed from %s: phase %v, want %s (%v)", phase, s["phase"], want, err)
		return
	}
	after, err := oracle.Take(r.dir, window)
	if err != nil {
		v.bad("look at the volume: %v", err)
		return
	}
	if d := before.Compare(after); len(d) > 0 {
		v.bad("%s, and the volume is not what was booted:\n    %s", v.resumed, strings.Join(d, "\n    "))
	}
	r.judgeVolume(v, acked)
}
