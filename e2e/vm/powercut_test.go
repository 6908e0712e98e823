package vm_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fsmigrate/fsmigrate/blockdev/record"
	"github.com/fsmigrate/fsmigrate/e2e/vm"
)

const id = "t1"

// change is a migration whose machine loses its power.
type change struct{ name, spec, to string }

var changes = []change{
	{"ext4-128_to_xfs", "ext4-128", "xfs"},
	{"ext4-128_to_ext4", "ext4-128", "ext4:inode_size=256"},
	{"xfs_to_ext4", "xfs", "ext4"},
	{"ext4-128_to_btrfs", "ext4-128", "btrfs"},
	{"btrfs_to_xfs", "btrfs", "xfs"},
}

// A machine that is killed at random instants of a migration, loses what its disks had not
// flushed, and boots: what its fstab mounts is the one truth, with everything that the
// application was promised, and the migration goes on to the end that was asked for.
//
// FSMIGRATE_KILLS=N asks for about N kills; 60 otherwise.
func TestMachineLosesPower(t *testing.T) {
	kills, each := int(number(t, "FSMIGRATE_KILLS", 60)), 7
	rng := seeded(t)
	first := rng.IntN(len(changes))
	total := count{phases: map[string]int{}}
	for n, left := 0, kills; left > 0; n, left = n+1, left-each {
		c := changes[(first+n)%len(changes)]
		goal := []string{"rolled-back", "finalized", "aborted"}[(first+n)%3]
		t.Run(fmt.Sprintf("%d_%s_%s", n, c.name, goal), func(t *testing.T) {
			r := newOutage(t, c, goal, rng)
			r.lived(min(each, left))
			total.add(r.count)
		})
		if t.Failed() {
			break
		}
	}
	t.Log(total)
	all := kills > 2*each // the goals: one of them is on the source all the time
	if total.boots == 0 || all && total.shadow == 0 || total.unmounted*10 > total.boots {
		t.Errorf("this proves too little: %v", total)
	}
}

// count is what was seen.
type count struct {
	boots, shadow, unmounted, acked int
	phases                          map[string]int // of the migration when the power failed, as its output had said
}

func (c *count) add(o count) {
	c.boots += o.boots
	c.shadow += o.shadow
	c.unmounted += o.unmounted
	c.acked += o.acked
	for p, n := range o.phases {
		c.phases[p] += n
	}
}

func (c count) String() string {
	return fmt.Sprintf("%d boots after a kill judged, in %d of them the shadow was the truth, %d operations acknowledged, %d states that the file system did not mount; killed after: %v",
		c.boots, c.shadow, c.acked, c.unmounted, c.phases)
}

// outage is one migration in a machine that loses its power again and again.
type outage struct {
	*tiny
	change
	count
	goal  string // the phase it is to end in
	rng   *rand.Rand
	seed  uint64 // of the application
	first int    // the first worker of the application in this boot
	said  string // the last that the migration said of where it is
	asked bool   // for the goal, in this boot
}

const workers = 3

func newOutage(t *testing.T, c change, goal string, rng *rand.Rand) *outage {
	return &outage{tiny: newTiny(t, c.spec), change: c, goal: goal, rng: rng, seed: rng.Uint64() % 1e6, first: -workers, count: count{phases: map[string]int{}}}
}

// lived runs the migration to its end, with so many kills on the way, if it takes that long.
func (r *outage) lived(kills int) {
	t := r.t
	t.Helper()
	r.on()
	r.boot(nil)
	for n := 1; ; n++ {
		engine := r.begin()
		if n > kills {
			r.toTheEnd(engine)
			break
		}
		ended := r.killSometime(engine, r.moment(n, kills))
		loss := record.Losses()[r.rng.IntN(len(record.Losses()))]
		cut := r.disks.Cut(loss, r.rng.Uint64()%1e6)
		r.phases[r.said]++
		r.on()
		truth := r.boot(&cut)
		if truth == "nothing" {
			return
		}
		t.Logf("kill %d, after %q, cut %v: %s in place, %s", n, r.said, cut, truth, r.phase())
		if t.Failed() {
			t.Log(engine.Out())
			return
		}
		if ended || r.phase() == r.goal {
			break
		}
	}
	r.end()
}

// begin starts the application, with workers of its own, and the migration's engine, as a
// boot would.
func (r *outage) begin() *vm.Job {
	r.t.Helper()
	r.first += workers
	r.asked, r.said = false, "boot"
	r.Sh(time.Minute, fmt.Sprintf("echo --seed=%d --workers=%d --first=%d --rate=15 >/run/pledge.args", r.seed, workers, r.first))
	r.Must(time.Minute, "/etc/app", "start")
	if r.phase() != "none" {
		return r.Go("fsmigrate", "resume", id)
	}
	// The machine is slow, not the program: how long the pause is is not the point here.
	args := []string{
		"fsmigrate", "run", "/data", "--to", r.to, "--spare", "/dev/vdc", "--id", id, "--yes", "--no-supervisor", "--policy", "asap", "--wipe",
		"--pause-budget", "2m", "--deadline", "4m", "--stop", "/etc/app stop", "--start", "/etc/app start",
	}
	if r.goal != "aborted" {
		args = append(args, "--cutover", "auto")
	}
	return r.Go(args...)
}

// ends is how long a migration of so few files may take on a machine that is emulated.
const ends = 6 * time.Minute

// What the migration says when it gets somewhere. A kill comes a while after one of
// them, or ("") after the boot.
var (
	before  = []string{"", "", "prepare", "copy", "copy", "catch-up", "pass", "verify", "proof", "hold", "hold"}
	cutover = []string{
		"cutover: stop-intent", "cutover: stop", "cutover: arm", "cutover: fence", "cutover: drain", "cutover: swap-in", "cutover: follow",
		"cutover: record", "cutover: settle", "cutover: start", "cutover: disarm",
	}
	after = []string{"reverse", "reverse", "reverse"}
)

// moments are those on the way to a goal, in order.
func (r *outage) moments() []string {
	switch r.goal {
	case "aborted":
		return append(slices.Clone(before), "hold", "aborting")
	case "rolled-back":
		return slices.Concat(before, cutover, after, cutover)
	}
	return slices.Concat(before, cutover, after, []string{"finalizing"})
}

// moment chooses the one for a kill, of so many: they move along with the migration, so
// that it is not brought to its end by waiting for a late one.
func (r *outage) moment(n, kills int) string {
	m := r.moments()
	from, to := max(0, (n-1)*len(m)/kills-1), min(len(m), n*len(m)/kills+1)
	return m[from+r.rng.IntN(to-from)]
}

// killSometime turns the power off at a random instant, and says whether the migration had
// reached its end by then.
func (r *outage) killSometime(engine *vm.Job, moment string) (ended bool) {
	scale := []time.Duration{30 * time.Millisecond, 250 * time.Millisecond, 1500 * time.Millisecond, 5 * time.Second}[r.rng.IntN(4)]
	wait := time.Duration(r.rng.Int64N(int64(scale)))
	var kill <-chan time.Time
	if moment == "" {
		kill = time.After(wait)
	}
	limit := time.After(ends)
	for {
		select {
		case line := <-engine.Lines:
			if said := r.heard(line); kill == nil && strings.HasPrefix(said, moment) {
				kill = time.After(wait)
			}
		case <-kill:
			r.Kill()
			return false
		case <-engine.Done:
			if engine.Code != 0 && !r.wanted(engine.Code) {
				r.t.Fatalf("the engine ended with %d:\n%s", engine.Code, engine.Out())
			}
			r.Kill()
			return true
		case <-limit:
			r.t.Fatalf("the migration does not get on:\n%s", engine.Out())
		}
	}
}

// wanted says whether an exit code is that of the goal.
func (r *outage) wanted(code int) bool {
	return map[string]int{"rolled-back": 6, "finalized": 0, "aborted": 5}[r.goal] == code
}

// heard takes in a line of the engine's, and asks for what comes next.
func (r *outage) heard(line string) string {
	if len(line) < 9 || line[2] != ':' || line[5] != ':' {
		return "-"
	}
	said := line[9:]
	for _, m := range r.moments() {
		if m != "" && strings.HasPrefix(said, m) {
			r.said = m
		}
	}
	next := map[string]string{"rolled-back": "rollback", "finalized": "finalize"}[r.goal]
	at := "reverse"
	if r.goal == "aborted" {
		at, next = "hold", "abort"
	}
	if strings.TrimSpace(said) == at && !r.asked {
		r.asked = true
		r.Go("sh", "-c", "sleep 1; for n in $(seq 200); do fsmigrate "+next+" "+id+"; case $? in 0|5|6) break;; esac; sleep 0.5; done")
	}
	return said
}

// toTheEnd lets the migration reach its goal.
func (r *outage) toTheEnd(engine *vm.Job) {
	limit := time.After(ends)
	for {
		select {
		case line := <-engine.Lines:
			r.heard(line)
		case <-engine.Done:
			if !r.wanted(engine.Code) {
				r.t.Fatalf("the engine ended with %d, which is not %s:\n%s", engine.Code, r.goal, engine.Out())
			}
			return
		case <-limit:
			r.t.Fatalf("the migration does not get on:\n%s", engine.Out())
		}
	}
}

// end stops everything in order, and has both volumes read by their own checkers.
func (r *outage) end() {
	t := r.t
	t.Helper()
	if phase := r.phase(); phase != r.goal {
		t.Fatalf("phase %s at the end, want %s", phase, r.goal)
	}
	r.Sh(time.Minute, "/etc/app stop")
	truth := r.judge()
	r.Sh(time.Minute, "umount /data && sync")
	r.Go("poweroff", "-f")
	if err := r.Off(time.Minute); err != nil {
		t.Error(err)
	}
	r.Kill()
	cut := r.disks.Cut(record.LoseNone, 0)
	r.fsck(cut, truth)
	_, r.acked = r.acknowledged()
	if r.acked < 10 {
		t.Errorf("only %d operations were acknowledged", r.acked)
	}
	t.Log(r.count)
}
