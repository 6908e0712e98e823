package e2e

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/fsmigrate/fsmigrate/blockdev/record"
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
	first := rng.IntN(len(pairs))
	total := tally{}
	for n := 0; states > 0; n++ {
		p := pairs[(first+n)%len(pairs)]
		t.Run(fmt.Sprintf("%d_%s", n, p.name), func(t *testing.T) {
			r := newPowerRig(t, p)
			r.recorded(rng.Uint64(), n%2 == 1)
			total.add(r.judgeCuts(rng, min(each, states)))
		})
		if t.Failed() {
			return
		}
		states -= each
	}
	t.Log(total)
	if total.judged == 0 || total.shadow == 0 || total.resumed == 0 || total.unmountable*10 > total.judged {
		t.Errorf("this proves too little: %v", total)
	}
}

// tally counts states.
type tally struct {
	judged, shadow, resumed, unmountable, violated int
	took                                           time.Duration
}

func (s *tally) add(o tally) {
	s.judged += o.judged
	s.shadow += o.shadow
	s.resumed += o.resumed
	s.unmountable += o.unmountable
	s.violated += o.violated
	s.took += o.took
}

func (s tally) String() string {
	return fmt.Sprintf("%d states judged, in %d of them the shadow was the truth, %d resumed to the end, %d more that the file system did not mount, %d violations, %v a state",
		s.judged, s.shadow, s.resumed, s.unmountable, s.violated, (s.took / time.Duration(max(1, s.judged))).Round(time.Millisecond))
}

// judgeCuts judges so many states of what was recorded.
func (r *powerRig) judgeCuts(rng *rand.Rand, states int) (sum tally) {
	t := r.t
	t.Helper()
	began := time.Now()
	for n, cut := range r.cuts(rng, states) {
		v := r.judgeCut(cut, n%20 == 7)
		switch {
		case len(v.wrong) > 0:
			sum.violated++
			t.Errorf("cut %v, during %q, truth %s:\n  %s", cut, r.during(cut.Entries), v.truth, strings.Join(v.wrong, "\n  "))
		case v.unmounted != "":
			sum.unmountable++
			t.Logf("cut %v, during %q: not mountable: %s", cut, r.during(cut.Entries), v.unmounted)
			continue
		case v.resumed != "":
			sum.resumed++
			t.Logf("cut %v, during %q, truth %s, resumed: %s", cut, r.during(cut.Entries), v.truth, v.resumed)
		}
		sum.judged++
		if v.truth == "shadow" {
			sum.shadow++
		}
		if sum.violated >= 3 {
			break
		}
	}
	sum.took = time.Since(began)
	t.Log(sum)
	return sum
}

// cuts chooses where the power fails. Half of it at the flushes between the stop of the
// application and its first acknowledgments on the other side, where who is the truth is
// decided; a quarter right behind an acknowledgment; the rest anywhere.
func (r *powerRig) cuts(rng *rand.Rand, states int) (list []record.Cut) {
	begin := 0
	var dense, acks []int
	for i, m := range r.marks {
		switch {
		case m.text == "begin":
			begin = m.at + 1
		case strings.HasPrefix(m.text, "ack ") && begin > 0:
			acks = append(acks, m.at+1)
		case m.text == "hook stop done" && i+1 < len(r.marks):
			dense = append(dense, r.flushes(m.at, r.settledBy(i))...)
		}
	}
	if begin == 0 || len(acks) == 0 || len(dense) == 0 {
		r.t.Fatalf("nothing to choose from: begin %d, %d acknowledgments, %d flushes", begin, len(acks), len(dense))
	}
	rng.Shuffle(len(dense), func(i, j int) { dense[i], dense[j] = dense[j], dense[i] })
	for i := range states {
		c := record.Cut{Loss: record.Losses()[rng.IntN(len(record.Losses()))], Seed: rng.Uint64() % 1e6}
		switch i % 4 {
		case 0, 1:
			c.Entries = dense[(i/4*2+i%4)%len(dense)]
		case 2:
			c.Entries = acks[rng.IntN(len(acks))]
		case 3:
			c.Entries = begin + rng.IntN(len(r.log.Entries)-begin+1)
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
