package e2e

import (
	"fmt"
	"iter"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/fsmigrate/fsmigrate/blockdev/record"
	"github.com/fsmigrate/fsmigrate/e2e/pledge"
)

// A power cut at every kind of instant of a migration, there and back or to its end:
// what the disks hold then boots, by the real mount.fsmigrate, to the one truth that the
// switch record in that state names, with everything that the application had been
// promised, and the migration can be resumed to its end.
//
// FSMIGRATE_CUTS=N judges about N states; by default 150, 2,000 in the long suite.
func TestPowerCuts(t *testing.T) {
	states, each := 150, 75
	if long() {
		states, each = 2000, 160
	}
	if s := os.Getenv("FSMIGRATE_CUTS"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 {
			t.Fatalf("FSMIGRATE_CUTS: %q", s)
		}
		states, each = n, min(each, n)
	}
	rng := seeded(t)
	total, asked := tally{}, states
	for n, s := range scenes(rng) {
		t.Run(fmt.Sprintf("%d_%s", n, s), func(t *testing.T) {
			r := newPowerRig(t, s.pair, s.root)
			r.recorded(rng.Uint64(), s)
			total.add(r.judgeCuts(rng, min(each, states)))
		})
		if t.Failed() {
			return
		}
		if states -= each; states <= 0 {
			break
		}
	}
	t.Log(total)
	for _, phase := range []string{"copy", "hold", "cutover", "reverse", "rollback", "finalizing"} {
		if asked >= 150 && total.phases[phase] == 0 {
			t.Errorf("no state of phase %s was judged", phase)
		}
	}
	if total.judged == 0 || asked >= 50 && (total.shadow == 0 || total.resumed == 0 || total.twice == 0) || total.unmountable*10 > total.judged || total.revived*50 > total.judged {
		t.Errorf("this proves too little: %v", total)
	}
}

// scenes are what is recorded, without end: one to rollback, one to finalize, in each
// five one that is aborted; formats, applications and what holds the state change too.
func scenes(rng *rand.Rand) iter.Seq2[int, scene] {
	mixes, pair, mix, root := pledge.Mixes(), rng.IntN(1000), rng.IntN(1000), rng.IntN(len(roots))
	return func(yield func(int, scene) bool) {
		for n := 0; ; n++ {
			end := []string{"rollback", "finalize", "rollback", "finalize", "abort"}[n%5]
			if !yield(n, scene{pairs[(pair+n)%len(pairs)], roots[(root+n+n/len(pairs))%len(roots)], mixes[(mix+n+n/len(mixes))%len(mixes)], end}) {
				return
			}
		}
	}
}

// tally counts states.
type tally struct {
	phases                                         map[string]int // what the state in them says
	judged, shadow, resumed, unmountable, violated int
	twice                                          int          // judged after a second cut
	revived                                        int          // with a name that the file system brought back
	resumable                                      []record.Cut // those that were resumed
	took                                           time.Duration
}

func (s *tally) count(v verdict) {
	switch {
	case len(v.wrong) > 0:
		s.violated++
	case v.unmounted != "":
		s.unmountable++
		return
	case v.resumed != "":
		s.resumed++
	}
	s.judged++
	if v.revived != nil {
		s.revived++
	}
	if v.truth == "shadow" {
		s.shadow++
	}
	if s.phases == nil {
		s.phases = map[string]int{}
	}
	s.phases[v.phase]++
}

func (s *tally) add(o tally) {
	if s.phases == nil {
		s.phases = map[string]int{}
	}
	for phase, n := range o.phases {
		s.phases[phase] += n
	}
	s.judged += o.judged
	s.shadow += o.shadow
	s.resumed += o.resumed
	s.unmountable += o.unmountable
	s.violated += o.violated
	s.twice += o.twice
	s.revived += o.revived
	s.took += o.took
}

func (s tally) String() string {
	return fmt.Sprintf("%d states judged, in %d of them the shadow was the truth, %d after a second cut, %d resumed to the end, "+
		"%d in which the file system itself brought a name back, %d more that it did not mount, %d violations, %v a state; phases %v",
		s.judged, s.shadow, s.twice, s.resumed, s.revived, s.unmountable, s.violated, (s.took / time.Duration(max(1, s.judged))).Round(time.Millisecond), s.phases)
}

// judgeCuts judges so many states of what was recorded, one in seven of them after a
// second cut, while it was recovered from the first.
func (r *powerRig) judgeCuts(rng *rand.Rand, states int) (sum tally) {
	r.t.Helper()
	second := states / 7
	sum = r.judgeAll(r.cuts(rng, states-second))
	if sum.violated == 0 && second > 0 && len(sum.resumable) > 0 {
		twice := r.again(rng, sum.resumable[rng.IntN(len(sum.resumable))], second)
		twice.twice = twice.judged
		sum.add(twice)
	}
	return sum
}

// resumeEvery is how often a state is resumed to the end of the migration.
const resumeEvery = 9

func (r *powerRig) judgeAll(cuts []record.Cut) (sum tally) {
	t := r.t
	t.Helper()
	began := time.Now()
	for n, cut := range cuts {
		v := r.judgeCut(cut, n%resumeEvery == resumeEvery/2)
		sum.count(v)
		switch {
		case len(v.wrong) > 0:
			t.Errorf("cut %v, during %q, truth %s:\n  %s", cut, r.during(cut.Entries), v.truth, strings.Join(v.wrong, "\n  "))
		case v.unmounted != "":
			t.Logf("cut %v, during %q: not mountable: %s", cut, r.during(cut.Entries), v.unmounted)
		case v.revived != nil:
			t.Logf("cut %v, during %q: %v", cut, r.during(cut.Entries), v.revived)
		case v.resumed != "":
			sum.resumable = append(sum.resumable, cut)
			t.Logf("cut %v, during %q, truth %s, resumed: %s", cut, r.during(cut.Entries), v.truth, v.resumed)
		}
		if sum.violated >= 3 {
			break
		}
	}
	sum.took = time.Since(began)
	t.Log(sum)
	return sum
}

// cuts chooses where the power fails: of each eight, three at the flushes between the
// stop of the application and its first acknowledgments on the other side, where who is the
// truth is decided, and one anywhere there; one right behind an acknowledgment; three
// anywhere in a phase, each phase in turn.
func (r *powerRig) cuts(rng *rand.Rand, states int) (list []record.Cut) {
	var acks, flushes []int
	var decisive []span
	begin := 0
	for i, m := range r.marks {
		switch {
		case m.text == "begin":
			begin = m.at + 1
		case begin > 0 && (strings.HasPrefix(m.text, "ack ") || strings.HasPrefix(m.text, "row ")):
			acks = append(acks, m.at+1)
		case m.text == "hook stop done" && slices.ContainsFunc(r.marks[i:], func(m mark) bool { return m.text == "hook start" }):
			decisive = append(decisive, span{m.at, r.settledBy(i)})
		}
	}
	if decisive == nil { // it was aborted
		decisive = []span{{begin, len(r.log.Entries)}}
	}
	for _, d := range decisive {
		flushes = append(flushes, r.flushes(d.from, d.to)...)
	}
	phases, spans := r.phaseNames(), r.phaseSpans()
	if begin == 0 || len(acks) == 0 || len(flushes) == 0 || len(phases) < 4 {
		r.t.Fatalf("nothing to choose from: begin %d, %d acknowledgments, %d flushes, phases %v", begin, len(acks), len(flushes), phases)
	}
	rng.Shuffle(len(flushes), func(i, j int) { flushes[i], flushes[j] = flushes[j], flushes[i] })
	within := func(s span) int { return s.from + rng.IntN(s.to-s.from+1) }
	atFlush, inPhase := 0, 0
	for i := range states {
		c := record.Cut{Loss: record.Losses()[rng.IntN(len(record.Losses()))], Seed: rng.Uint64() % 1e6}
		switch i % 8 {
		case 0, 2, 5:
			c.Entries = flushes[atFlush%len(flushes)]
			atFlush++
		case 3:
			c.Entries = within(decisive[rng.IntN(len(decisive))])
		case 7:
			c.Entries = acks[rng.IntN(len(acks))]
		default:
			of := spans[phases[inPhase%len(phases)]]
			inPhase++
			c.Entries = within(of[rng.IntN(len(of))])
		}
		list = append(list, c)
	}
	return list
}

// settledBy is an entry some acknowledgments after the application was started again
// behind the i-th mark.
func (r *powerRig) settledBy(i int) int {
	acks := 0
	for _, m := range r.marks[i+1:] {
		if strings.HasPrefix(m.text, "ack ") {
			if acks++; acks == 12 {
				return m.at
			}
		}
	}
	return len(r.log.Entries)
}

// flushes are the cuts right before and right behind each flush between two entries.
func (r *powerRig) flushes(from, to int) (cuts []int) {
	for n := from; n < to; n++ {
		if r.log.Entries[n].Has(record.FlagFlush) {
			cuts = append(cuts, n, n+1)
		}
	}
	return cuts
}
