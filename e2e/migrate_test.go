package e2e

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/fsmigrate/fsmigrate/e2e/oracle"
	"github.com/fsmigrate/fsmigrate/e2e/vol"
)

const (
	toHold = 120 * time.Second
	toEnd  = 90 * time.Second
)

// There and back again: after the cutover the new volume is what was
// acknowledged, the old one is kept in step, and after the rollback it is what
// was acknowledged, the writes after the cutover included.
func TestCutoverAndRollback(t *testing.T) {
	for i, p := range pairs {
		t.Run(p.name, func(t *testing.T) {
			rng := seeded(t)
			r := newRig(t, p, 640)
			r.populate(rng.Uint64(), 3000, 5000)
			r.background(nil, r.runArgs()...)
			r.waitPhase(toHold, "hold")
			r.moreChurn(500)

			r.must([]string{"wait", id, "--for", "hold", "--timeout", "60s"})
			r.must([]string{"cutover", id})
			r.waitPhase(toEnd, "reverse")
			if got := r.fsType(); got != fstypeOf(p.to) {
				t.Fatalf("%s is mounted, want %s", got, p.to)
			}
			r.moreChurn(300)
			r.quiesced(func() {
				r.judge("after the cutover", r.dir, 0)
				r.inStep()
				r.otherSide(fstypeOf(p.spec), r.source, func(old string) {
					r.judge("the old volume in reverse", old, p.back)
					if i%2 == 0 {
						r.sameTree("new and old volume", r.dir, old, p.back)
					}
				})
			})
			r.moreChurn(500)

			r.must([]string{"rollback", id}, 0, 6)
			if code := r.engine.code(t, toEnd); code != 6 {
				t.Errorf("run: exit %d after a rollback, want 6", code)
			}
			if got := r.fsType(); got != fstypeOf(p.spec) {
				t.Fatalf("%s is mounted, want the old %s", got, p.spec)
			}
			r.moreChurn(300)
			r.hook("stop")
			r.judge("after the rollback", r.dir, p.back)
			r.released(p.spec, r.source, "native entry")
		})
	}
}

// released unmounts the truth and proves that nothing else holds it, that its
// checker finds nothing, and that fstab is native again.
func (r *rig) released(spec, device, _ string) {
	r.t.Helper()
	b, err := os.ReadFile(r.fstab)
	if err != nil || strings.Contains(string(b), " fsmigrate ") || !strings.Contains(string(b), " "+fstypeOf(spec)+" ") {
		r.t.Errorf("fstab is not native for %s: %v\n%s", spec, err, b)
	}
	if n := len(vol.Mounts(r.dir)); n != 1 {
		r.t.Errorf("%d mounts at %s, want one", n, r.dir)
	}
	r.Unmount(r.dir)
	if err := oracle.Fsck(fstypeOf(spec), device); err != nil {
		r.t.Error(err)
	}
}

// Finalized: the new volume alone, in fstab by its own name, the old one let go.
func TestFinalize(t *testing.T) {
	p := pairs[0]
	rng := seeded(t)
	r := newRig(t, p, 512)
	r.populate(rng.Uint64(), 1000, 2000)
	r.background(nil, r.runArgs("--cutover", "auto")...)
	r.waitPhase(toHold, "reverse")
	r.moreChurn(300)
	if code, out := r.cmd("abort", id); code != 3 || !strings.Contains(out, "rollback") {
		t.Errorf("abort after the switch: exit %d, want 3 and the word rollback\n%s", code, out)
	}
	r.must([]string{"finalize", id})
	if code := r.engine.code(t, toEnd); code != 0 {
		t.Errorf("run: exit %d after finalize, want 0", code)
	}
	r.moreChurn(200)
	r.hook("stop")
	r.judge("finalized", r.dir, 0)
	requireReport(t, r.report, "finalized", "shadow")
	r.released(p.to, r.spare, "")
	if err := oracle.Fsck(fstypeOf(p.spec), r.source); err != nil {
		t.Errorf("the old volume: %v", err)
	}
	// What fstab says now is mountable as it stands.
	vol.Run(t, "mount", "--fstab", r.fstab, r.dir)
	r.judge("mounted from fstab", r.dir, 0)
	audit, err := os.ReadFile(r.Path("state/" + id + "/audit.jsonl"))
	if err != nil || len(audit) == 0 {
		t.Errorf("the audit log is not kept: %v", err)
	}
}

// --finalize: one command, and the old volume stays as it was at the fence.
func TestRunToTheEnd(t *testing.T) {
	r := newRig(t, pairs[3], 512)
	r.populate(seeded(t).Uint64(), 800, 1500)
	r.background(nil, r.runArgs("--cutover", "auto", "--finalize")...)
	if code := r.engine.code(t, toHold); code != 0 {
		t.Fatalf("run --finalize: exit %d, want 0", code)
	}
	r.moreChurn(200)
	r.hook("stop")
	r.judge("after run --finalize", r.dir, 0)
	requireReport(t, r.report, "finalized", "shadow")
	r.released(r.pair.to, r.spare, "")
}

// requireReport requires every field that the report promises.
func requireReport(t *testing.T, path, phase, truth string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Error(err)
		return
	}
	m := map[string]any{}
	if err := json.Unmarshal(b, &m); err != nil {
		t.Fatalf("report: %v\n%s", err, b)
	}
	for _, f := range []string{
		"id", "source", "from", "to", "tracker", "phase", "truth", "objects", "bytes", "passes", "pause_ms", "hooks_ms", "gap_ms",
		"verified_objects", "differences", "waived", "copy_seconds", "peak_rss_bytes", "proof", "timeline",
	} {
		if _, ok := m[f]; !ok {
			t.Errorf("the report has no %q", f)
		}
	}
	for _, f := range []string{"objects", "bytes", "passes", "pause_ms", "hooks_ms", "gap_ms", "verified_objects", "copy_seconds", "peak_rss_bytes"} {
		if v, _ := m[f].(float64); v <= 0 {
			t.Errorf("the report says %s = %v", f, m[f])
		}
	}
	if m["phase"] != phase || m["truth"] != truth || m["tracker"] != "watch" || m["differences"] != 0.0 {
		t.Errorf("the report says phase %v, truth %v, tracker %v, differences %v", m["phase"], m["truth"], m["tracker"], m["differences"])
	}
	if gap, pause := m["gap_ms"], m["pause_ms"]; gap != nil && pause != nil && gap.(float64) < pause.(float64) {
		t.Errorf("the gap (%v ms) is shorter than the pause (%v ms) within it", gap, pause)
	}
	if steps, _ := m["timeline"].([]any); len(steps) < 6 {
		t.Errorf("the timeline has %d phases", len(steps))
	}
}

// An abort from Hold is the rehearsal: the source is as if nothing had been.
func TestAbortFromHold(t *testing.T) {
	for _, p := range []pair{pairs[0], pairs[4], pairs[5]} {
		t.Run(p.name, func(t *testing.T) {
			r := newRig(t, p, 512)
			r.populate(seeded(t).Uint64(), 1000, 2000)
			r.hook("stop")
			native, err := os.ReadFile(r.fstab)
			if err != nil {
				t.Fatal(err)
			}
			before, err := oracle.Take(r.dir, oracle.Options{})
			if err != nil {
				t.Fatal(err)
			}
			r.background(nil, r.runArgs()...)
			r.waitPhase(toHold, "hold")
			r.must([]string{"abort", id}, 0, 5)
			if code := r.engine.code(t, toEnd); code != 5 {
				t.Errorf("run: exit %d after an abort, want 5", code)
			}
			after, err := oracle.Take(r.dir, oracle.Options{})
			if err != nil {
				t.Fatal(err)
			}
			if d := before.Compare(after); len(d) > 0 {
				t.Errorf("the source changed:\n%s", strings.Join(d, "\n"))
			}
			if now, err := os.ReadFile(r.fstab); err != nil || string(now) != string(native) {
				t.Errorf("fstab: %v\n%s\nwant\n%s", err, now, native)
			}
			r.judge("after the abort", r.dir, 0)
			r.released(p.spec, r.source, "")
		})
	}
}
