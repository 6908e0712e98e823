package migrate

import (
	"context"
	"strings"
	"testing"
	"time"
)

// guardedSubject finds one road to the old volume that it cannot close.
type guardedSubject struct {
	*fakeSubject
	looks []time.Time
	sides map[Side]bool
}

func (g *guardedSubject) Guard(_ context.Context, old Side) error {
	g.looks = append(g.looks, g.w.now)
	g.sides[old] = true
	return &Busy{What: "the source", Holders: []Holder{{PID: 77, Command: "tar", Kind: "cwd", Path: "/old"}}}
}

// Reverse looks again and again for who could write the old volume, tells it once, and goes on.
func TestReverseGuardsTheOldVolume(t *testing.T) {
	for _, old := range []string{"", "keep"} {
		r := newRig(t, func(p *Plan) { auto(p); p.Cutover.Old = old }, nil)
		g := &guardedSubject{fakeSubject: r.subject, sides: map[Side]bool{}}
		r.opt.Subject = g
		told := 0
		r.opt.Events.Warning = func(what, why, _ string) {
			if strings.Contains(what, "the old volume may be written") && strings.Contains(why, "tar (pid 77)") {
				told++
			}
		}
		n := 0
		out, _ := r.until(t, func(_ int, p Phase) bool {
			if p == Reverse {
				n++
			}
			return n > 200
		})
		if out.Phase != Reverse || told != 1 || len(g.looks) < 3 || len(g.sides) != 1 || !g.sides[Source] {
			t.Fatalf("old %q: %s, told %d times, %d looks, at %v", old, out.Phase, told, len(g.looks), g.sides)
		}
		for i := 1; i < len(g.looks); i++ {
			if gap := g.looks[i].Sub(g.looks[i-1]); gap < guardEvery {
				t.Errorf("looked again after %v", gap)
			}
		}
	}
}
