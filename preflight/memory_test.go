package preflight

import (
	"testing"
	"time"

	"github.com/fsmigrate/fsmigrate/migrate"
)

// One run plans, checks and begins, with the engine in its own process or in another: every
// object is looked at once. Another target, or a look of yesterday, is another question.
func TestOneWalkARun(t *testing.T) {
	r := newRig(t, "ext4")
	here := new(Memory)
	want := func(m *Memory, walks int, what string) {
		t.Helper()
		if m.walks != walks {
			t.Errorf("%s: %d walks, want %d", what, m.walks, walks)
		}
	}
	make := func(to string) *migrate.Plan {
		t.Helper()
		p, err := Make(t.Context(), Request{ID: "t1", Source: r.dir, To: to, Spare: r.spare, Fstab: r.tab, Memory: here,
			Set: func(p *migrate.Plan) { p.Service.AcceptEROFS = true }})
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	run := func(p *migrate.Plan, m *Memory) {
		t.Helper()
		checks, f, err := Run(t.Context(), Options{Plan: p, State: r.state, Memory: m})
		if err != nil || f.Objects < 52 || Verdict(checks) == migrate.Refused {
			t.Errorf("forecast %+v, %v, %+v", f, err, checks)
		}
	}
	p := make("xfs")
	run(p, here)
	run(p, here)
	want(here, 1, "plan, check and engine")
	if err := here.Leave(r.state); err != nil {
		t.Fatal(err)
	}
	there := new(Memory)
	there.Pick(r.state)
	run(p, there)
	want(there, 0, "the engine in another process")
	late := new(Memory)
	late.Pick(r.state)
	run(p, late)
	want(late, 1, "resumed later")
	make("btrfs")
	want(here, 2, "another target")
	here.last.At = time.Now().Add(-24 * time.Hour)
	make("btrfs")
	want(here, 3, "a day later")
}
