package e2e

import (
	"encoding/json"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/fsmigrate/fsmigrate/blockdev/record"
	"github.com/fsmigrate/fsmigrate/e2e/vol"
)

// The application and its judge without fsmigrate: on a plain volume of each kind, what was
// acknowledged outlives every cut; and when the same application acknowledges without
// syncing, that is found out.
func TestPowerCutsOfAPlainVolume(t *testing.T) {
	for _, spec := range []string{"ext4", "xfs", "btrfs"} {
		for _, lie := range []bool{false, true} {
			name := spec
			if lie {
				name += "_lies"
			}
			t.Run(name, func(t *testing.T) {
				rng := seeded(t)
				r := newPowerRig(t, pair{spec: spec, to: spec}, "ext4")
				args := r.pledgeArgs(rng.Uint64(), "--ops", "150")
				if lie {
					args = append(args, "--lie")
				}
				r.disks.mark("begin")
				vol.Run(t, programs.pledge, append([]string{"run"}, args...)...)
				r.finish()
				violated := 0
				const states = 8
				for range states {
					n := r.marks[len(r.marks)/4+rng.IntN(len(r.marks)*3/4)].at + 1
					cut := record.Cut{Entries: n, Loss: record.Losses()[rng.IntN(len(record.Losses()))], Seed: rng.Uint64() % 1e6}
					v := r.judgeCut(cut, false)
					if v.unmounted != "" {
						t.Errorf("cut %v: not mountable: %s", cut, v.unmounted)
					}
					if len(v.wrong) == 0 {
						continue
					}
					violated++
					if !lie {
						t.Errorf("cut %v:\n  %s", cut, strings.Join(v.wrong, "\n  "))
					}
				}
				if lie && violated < states/2 {
					t.Errorf("nothing was synced, and that shows in %d of %d states only", violated, states)
				}
			})
		}
	}
}

// fault is a mistake that is built into fsmigrate for a test.
type fault struct {
	name, file, old, new string
	resume               bool // it shows only when the migration goes on
}

// plantedFaults are mistakes that no test sees which only ends processes.
var plantedFaults = []fault{
	{name: "the switch record is not synced", file: "statedir/fsys.go",
		old: "\t\terr = w.Sync()\n", new: "\t\t_ = w.Sync\n"},
	{name: "the new volume is not synced before the record", file: "shadow/pass.go",
		old: "if err := blockdev.Syncfs(p.to.fd); err != nil {", new: "if err := error(nil); err != nil {"},
	{name: "the boot asks the phase and not the record", file: "shadow/place_boot.go",
		old: "\tside, err := truth()\n", new: "\tside, err := truth()\n\tside = migrate.Source\n"},
	{name: "what was cleaned since the last commit stays clean after a reboot", file: "shadow/journal_durable.go", resume: true,
		old: "Rebooted: j.bootID != bootID}", new: "Rebooted: false}"},
	{name: "what was copied before a reboot is not read again", file: "shadow/journal_durable.go", resume: true,
		old: "m.Doubt(r.Epoch)", new: "m.Distrust(r.Epoch)"},
}

// buildWith builds fsmigrate with a fault. What is replaced must be there once.
func buildWith(t *testing.T, f fault) (binary string) {
	t.Helper()
	dir := t.TempDir()
	file, err := filepath.Abs(filepath.Join("..", f.file))
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(text), f.old); n != 1 {
		t.Fatalf("%s has %d times what the fault replaces: %q", f.file, n, f.old)
	}
	changed, overlay := filepath.Join(dir, "changed.go"), filepath.Join(dir, "overlay.json")
	b, err := json.Marshal(map[string]map[string]string{"Replace": {file: changed}})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(changed, []byte(strings.Replace(string(text), f.old, f.new, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(overlay, b, 0o600); err != nil {
		t.Fatal(err)
	}
	binary = filepath.Join(dir, "fsmigrate")
	cmd := exec.Command("go", "build", "-overlay", overlay, "-o", binary, "github.com/fsmigrate/fsmigrate/cmd/fsmigrate")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build with %q: %v\n%s", f.name, err, out)
	}
	if err := os.Symlink(binary, filepath.Join(dir, "mount.fsmigrate")); err != nil {
		t.Fatal(err)
	}
	return binary
}

// The power cuts find mistakes in fsmigrate itself, built in on purpose.
func TestPowerCutsFindPlantedFaults(t *testing.T) {
	faults := plantedFaults[:1]
	if long() {
		faults = plantedFaults
	}
	for _, f := range faults {
		t.Run(strings.ReplaceAll(f.name, " ", "_"), func(t *testing.T) {
			was := programs
			defer func() { programs = was }()
			programs.fsmigrate = buildWith(t, f)
			programs.mountHelper = filepath.Join(filepath.Dir(programs.fsmigrate), "mount.fsmigrate")
			rng := seeded(t)
			for judged := 0; judged < 180; judged += 60 { // recordings
				s := scene{pairs[rng.IntN(len(pairs))], "ext4", "files", "finalize"}
				if f.resume {
					s = scene{inPlace[rng.IntN(len(inPlace))], "ext4", "files", "abort"}
				}
				r := newPowerRig(t, s.pair, s.root)
				r.recorded(rng.Uint64(), s)
				if at := r.firstViolation(rng, 60, f.resume); at > 0 {
					t.Logf("found in the %d. state", judged+at)
					return
				}
			}
			t.Errorf("not found: %s", f.name)
		})
	}
}

// inPlace are the pairs whose source overwrites data where it stands: a power cut may keep
// what was written and lose the inode that tells of it.
var inPlace = slices.DeleteFunc(slices.Clone(pairs), func(p pair) bool { return p.spec == "btrfs" })

// firstViolation is the number of the first state that is judged wrong, 0 when none is.
func (r *powerRig) firstViolation(rng *rand.Rand, states int, resume bool) int {
	cuts := r.cuts(rng, states)
	if resume {
		cuts = r.cutsInSyncs(rng, states, "catch-up", "verify", "hold")
	}
	var sum tally
	for n, cut := range cuts {
		if resume && cut.Seed%3 == 0 {
			cut.Seed++ // such a one is only aborted
		}
		v := r.judgeCut(cut, resume)
		if sum.count(v); len(v.wrong) > 0 {
			r.t.Logf("cut %v, during %q, truth %s:\n  %s", cut, r.during(cut.Entries), v.truth, strings.Join(v.wrong, "\n  "))
			return n + 1
		}
	}
	r.t.Log(sum)
	return 0
}

// cutsInSyncs are cuts in phases of the migration, each right before a flush of the source: what
// the application is just syncing is on its way, and the log that tells of it is not.
func (r *powerRig) cutsInSyncs(rng *rand.Rand, states int, phases ...string) (list []record.Cut) {
	var flushes []int
	for _, p := range phases {
		for _, s := range r.phaseSpans()[p] {
			for n := s.from; n < s.to; n++ {
				if e := r.log.Entries[n]; e.Image == 0 && e.Has(record.FlagFlush) {
					flushes = append(flushes, n)
				}
			}
		}
	}
	if len(flushes) == 0 {
		r.t.Fatalf("the source is not flushed in %v", phases)
	}
	rng.Shuffle(len(flushes), func(i, j int) { flushes[i], flushes[j] = flushes[j], flushes[i] })
	for i := range states {
		list = append(list, record.Cut{
			Entries: flushes[i%len(flushes)], Loss: record.Losses()[rng.IntN(len(record.Losses()))], Seed: rng.Uint64() % 1e6,
		})
	}
	return list
}
