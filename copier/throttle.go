package copier

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

// The policies of a Throttle.
const (
	PolicyGentle = "gentle" // give way to everybody else's I/O
	PolicyASAP   = "asap"   // as soon as possible
)

// What listening costs and how it reacts. PSI says how long tasks waited for
// I/O, but not whose: a cold copy alone keeps "some" near 100 %. So a gentle
// copy falls silent for a moment and listens: what waits then is somebody else.
const (
	listenDrain  = 4 * time.Millisecond    // for what is in flight to end
	listenFor    = 16 * time.Millisecond   // then listen
	listenOften  = 200 * time.Millisecond  // between two, while others are heard
	listenSeldom = 1000 * time.Millisecond // between two, after a long silence: 2 % of the time
	heardAt      = 0.10                    // share of the time that others waited
	floorRate    = 8 << 20                 // bytes/s below which it never goes: a copy must end
	firstRate    = 256 << 20               // bytes/s assumed before any was measured
	rateStep     = 16 << 20                // bytes/s regained per silent listening, at least
	opCost       = 16 << 10                // bytes that an operation counts for beside its own
)

// Throttle keeps a copy, or a verification, out of the application's way. One
// is shared by all workers. A nil Throttle never waits.
type Throttle struct {
	mu       sync.Mutex
	now      func() time.Time
	sleep    func(context.Context, time.Duration) error
	pressure func() (time.Duration, error) // total time that some task waited for I/O
	limit    bucket                        // the operator's cap
	share    bucket                        // what listening allows
	gentle   bool
	quiet    chan struct{} // closed when the listening under way ends
	next     time.Time     // of the next listening
	every    time.Duration
	since    time.Time // moved is counted since then
	moved    int64
	heard    float64
}

// NewThrottle makes a throttle. bytesPerSec caps what Wait lets through; 0 is no
// cap. Unknown policies are an error of the caller's validation and count as gentle.
// Without pressure information in the kernel, gentle is only the cap.
func NewThrottle(policy string, bytesPerSec int64) *Throttle {
	t := &Throttle{now: time.Now, sleep: sleepCtx, pressure: readPressure, gentle: policy != PolicyASAP, every: listenOften}
	t.limit.rate = float64(bytesPerSec)
	t.since = t.now()
	t.next = t.since // listen before the first byte
	return t
}

// Heard is the share of the last listening during which somebody else waited for
// I/O, and the rate in bytes/s that followed from it; 0: no limit.
func (t *Throttle) Heard() (others, bytesPerSec float64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.heard, t.share.rate
}

// Wait returns when n more bytes may be moved, or the context's error. It is
// called before each read; what is read is assumed to be written too.
func (t *Throttle) Wait(ctx context.Context, n int) error {
	if err := ctx.Err(); err != nil || t == nil {
		return err
	}
	if t.gentle {
		if err := t.listen(ctx); err != nil {
			return err
		}
	}
	t.mu.Lock()
	now := t.now()
	t.moved += int64(n) + opCost
	wait := max(t.limit.take(now, float64(n)), t.share.take(now, float64(n)+opCost))
	t.mu.Unlock()
	if wait <= 0 {
		return nil
	}
	return t.sleep(ctx, wait)
}

// listen waits while another worker listens, or does so itself when it is time.
func (t *Throttle) listen(ctx context.Context) error {
	t.mu.Lock()
	if quiet := t.quiet; quiet != nil {
		t.mu.Unlock()
		select {
		case <-quiet:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	now := t.now()
	if now.Before(t.next) {
		t.mu.Unlock()
		return nil
	}
	quiet := make(chan struct{})
	t.quiet = quiet
	rate := 0.0
	if d := now.Sub(t.since).Seconds(); d > 0 {
		rate = float64(t.moved) / d
	}
	t.mu.Unlock()
	heard, err := t.listenOnce(ctx)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.quiet = nil
	close(quiet)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	t.since, t.moved = t.now(), 0
	if err != nil {
		t.gentle, t.share.rate = false, 0 // the kernel keeps no pressure: the cap is all there is
		return nil
	}
	t.heard = heard
	t.adjust(rate)
	t.next = t.since.Add(t.every)
	return nil
}

func (t *Throttle) listenOnce(ctx context.Context) (float64, error) {
	if err := t.sleep(ctx, listenDrain); err != nil {
		return 0, err
	}
	before, err := t.pressure()
	if err != nil {
		return 0, err
	}
	start := t.now()
	if err := t.sleep(ctx, listenFor); err != nil {
		return 0, err
	}
	after, err := t.pressure()
	if err != nil {
		return 0, err
	}
	took := t.now().Sub(start)
	if took <= 0 {
		return 0, nil
	}
	return min(1, float64(after-before)/float64(took)), nil
}

// adjust lowers the limit by up to half, the more the more others waited, and
// lets it grow by a little when they did not. In proportion, because the silence
// is not perfect: the kernel's own writeback of what was copied waits in it. rate is what was moved per second since the last listening; 0 is
// the silence before the first byte. Above twice of what the copy reaches anyway, the limit is lifted.
func (t *Throttle) adjust(rate float64) {
	s := &t.share
	if t.heard > heardAt {
		t.every = listenOften
		if rate == 0 {
			// Nothing was moved before this silence, so that nothing of ours waits in it: it is all theirs.
			s.rate = floorRate
		}
		if s.rate == 0 {
			s.rate = min(firstRate, rate)
		}
		s.rate = max(s.rate*(1-t.heard/2), floorRate)
		return
	}
	if s.rate == 0 {
		t.every = min(t.every+listenOften, listenSeldom)
		return
	}
	if s.rate += max(rateStep, s.rate/8); s.rate > max(2*rate, firstRate) {
		s.rate, s.debt = 0, 0
	}
}

// bucket is a token bucket that may be overdrawn: whoever takes waits until the
// debt is paid, so an operation larger than the bucket passes, late.
type bucket struct {
	rate float64 // bytes/s; 0: no limit
	debt float64
	last time.Time
}

// bucketDepth is the time whose unused bytes may be taken at once.
const bucketDepth = 50 * time.Millisecond

func (b *bucket) take(now time.Time, n float64) time.Duration {
	if b.rate <= 0 {
		return 0
	}
	if !b.last.IsZero() {
		b.debt = max(b.debt-now.Sub(b.last).Seconds()*b.rate, -bucketDepth.Seconds()*b.rate)
	}
	b.last = now
	b.debt += n
	if b.debt <= 0 {
		return 0
	}
	return time.Duration(b.debt / b.rate * float64(time.Second))
}

func sleepCtx(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// readPressure is the total of "some" in /proc/pressure/io: exact at every read,
// unlike its averages.
func readPressure() (time.Duration, error) {
	raw, err := os.ReadFile("/proc/pressure/io")
	if err != nil {
		return 0, err
	}
	return parsePressure(string(raw))
}

var errPressure = errors.New("no total of some in /proc/pressure/io")

func parsePressure(s string) (time.Duration, error) {
	for line := range strings.Lines(s) {
		if !strings.HasPrefix(line, "some ") {
			continue
		}
		_, total, ok := strings.Cut(strings.TrimSpace(line), "total=")
		if !ok {
			return 0, errPressure
		}
		us, err := strconv.ParseUint(total, 10, 63)
		if err != nil || us > uint64(1<<63-1)/1000 {
			return 0, fmt.Errorf("parse /proc/pressure/io %q: %w", total, errPressure)
		}
		return time.Duration(us) * time.Microsecond, nil
	}
	return 0, errPressure
}
