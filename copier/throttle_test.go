package copier

import (
	"context"
	"errors"
	"math"
	"runtime"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// fakeMachine is a clock that moves when somebody sleeps, and a disk on which
// others wait for the given share of the time.
type fakeMachine struct {
	at     time.Time
	others float64
	total  time.Duration
	broken bool
	slept  time.Duration
}

func (f *fakeMachine) throttle(policy string, rate int64) *Throttle {
	f.at = time.Unix(1000, 0)
	t := NewThrottle(policy, rate)
	t.now = func() time.Time { return f.at }
	t.sleep = func(ctx context.Context, d time.Duration) error {
		f.pass(d)
		f.slept += d
		return ctx.Err()
	}
	t.pressure = func() (time.Duration, error) {
		if f.broken {
			return 0, unix.ENOENT
		}
		return f.total, nil
	}
	t.since, t.next = f.at, f.at
	return t
}

func (f *fakeMachine) pass(d time.Duration) {
	f.at = f.at.Add(d)
	f.total += time.Duration(float64(d) * f.others)
}

// copyFor moves pieces that cost what a disk of speed bytes/s needs.
func (f *fakeMachine) copyFor(t *testing.T, th *Throttle, d time.Duration, piece int, speed float64) (rate float64) {
	t.Helper()
	start, moved := f.at, 0
	for f.at.Sub(start) < d {
		if err := th.Wait(t.Context(), piece); err != nil {
			t.Fatal(err)
		}
		f.pass(time.Duration(float64(piece) / speed * float64(time.Second)))
		moved += piece
	}
	return float64(moved) / f.at.Sub(start).Seconds()
}

func TestThrottleCap(t *testing.T) {
	for _, piece := range []int{4096, 1 << 20, 64 << 20} {
		var f fakeMachine
		th := f.throttle(PolicyASAP, 10<<20)
		if got := f.copyFor(t, th, time.Minute, piece, 1<<30); math.Abs(got/(10<<20)-1) > 0.1+float64(piece)/(600<<20) {
			t.Errorf("pieces of %d: %.0f bytes/s under a cap of %d", piece, got, 10<<20)
		}
	}
}

func TestThrottleASAPNeverWaits(t *testing.T) {
	f := fakeMachine{others: 1}
	th := f.throttle(PolicyASAP, 0)
	f.copyFor(t, th, time.Minute, 1<<20, 1<<30)
	if f.slept != 0 {
		t.Errorf("slept %v", f.slept)
	}
	var none *Throttle
	if err := none.Wait(t.Context(), 1<<30); err != nil {
		t.Error(err)
	}
}

// Alone, gentle costs a few per cent; beside somebody who waits for the disk it
// falls to its floor within seconds, and it comes back when they stop.
func TestThrottleGentle(t *testing.T) {
	const speed = 1 << 30
	var f fakeMachine
	th := f.throttle(PolicyGentle, 0)
	if got := f.copyFor(t, th, 20*time.Second, 1<<20, speed); got < 0.93*speed {
		t.Errorf("alone: %.0f MiB/s", got/(1<<20))
	}
	f.others = 0.8
	f.copyFor(t, th, 5*time.Second, 1<<20, speed)
	if got := f.copyFor(t, th, 10*time.Second, 1<<20, speed); got > 1.2*floorRate {
		t.Errorf("beside others: %.0f MiB/s", got/(1<<20))
	}
	if heard, rate := th.Heard(); heard < 0.7 || rate != floorRate {
		t.Errorf("heard %v, limit %v", heard, rate)
	}
	f.others = 0.05
	f.copyFor(t, th, 20*time.Second, 1<<20, speed)
	if got := f.copyFor(t, th, 10*time.Second, 1<<20, speed); got < 0.93*speed {
		t.Errorf("alone again: %.0f MiB/s", got/(1<<20))
	}
	// A little that is heard now and then is the noise of our own writeback.
	for i := range 100 {
		f.others = map[bool]float64{true: 0.3}[i%4 == 0]
		f.copyFor(t, th, 400*time.Millisecond, 1<<20, speed)
	}
	if got := f.copyFor(t, th, time.Second, 1<<20, speed); got < 0.2*speed {
		t.Errorf("beside noise: %.0f MiB/s", got/(1<<20))
	}
	// Small files are slowed by their number.
	f.others = 0.8
	f.copyFor(t, th, 5*time.Second, 4096, speed)
	if got := f.copyFor(t, th, 10*time.Second, 4096, speed) / 4096; got > 600 {
		t.Errorf("beside others: %.0f small files/s", got)
	}
}

// What is heard before the first byte is somebody else for certain: the copy begins at its floor,
// and no application has to wait until the limit has come down to it.
func TestThrottleBeginsGently(t *testing.T) {
	f := fakeMachine{others: 0.3}
	th := f.throttle(PolicyGentle, 0)
	if got := f.copyFor(t, th, time.Second, 4096, 1<<30) / 4096; got > 600 {
		t.Errorf("%.0f small files in the first second beside others", got)
	}
	if _, rate := th.Heard(); rate != floorRate {
		t.Errorf("limit %v", rate)
	}
}

// A kernel without pressure information leaves the cap alone to work.
func TestThrottleWithoutPressure(t *testing.T) {
	f := fakeMachine{broken: true}
	th := f.throttle(PolicyGentle, 10<<20)
	if got := f.copyFor(t, th, time.Minute, 1<<20, 1<<30); math.Abs(got/(10<<20)-1) > 0.1 {
		t.Errorf("%.0f bytes/s", got)
	}
}

// On the real clock: workers share one throttle, and a context ends every wait.
func TestThrottleConcurrent(t *testing.T) {
	th := NewThrottle(PolicyGentle, 50<<20)
	start := time.Now()
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 50 {
				if err := th.Wait(t.Context(), 128<<10); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if d := time.Since(start); d < 400*time.Millisecond {
		t.Errorf("25 MiB at 50 MiB/s took %v", d)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	start = time.Now()
	for range 4 {
		wg.Go(func() {
			for {
				if err := th.Wait(ctx, 1<<30); err != nil {
					if !errors.Is(err, context.DeadlineExceeded) {
						t.Error(err)
					}
					return
				}
			}
		})
	}
	wg.Wait()
	if d := time.Since(start); d > 5*time.Second {
		t.Errorf("a wait outlived its context by %v", d)
	}
}

func TestReadPressure(t *testing.T) {
	a, err := readPressure()
	if err != nil {
		t.Fatal(err)
	}
	if b, err := readPressure(); err != nil || b < a {
		t.Errorf("%v, then %v: %v", a, b, err)
	}
}

func TestSetThreadIOPriority(t *testing.T) {
	done := make(chan error)
	go func() {
		// Never unlocked: the thread ends with its goroutine.
		runtime.LockOSThread()
		err := SetThreadIOPriority(IOPriorityLow)
		if err == nil {
			prio, _, e := unix.Syscall(unix.SYS_IOPRIO_GET, 1, 0, 0)
			if e != 0 || prio != IOPriorityLow {
				err = errors.Join(errors.New("priority was not taken"), errnoErr(e))
			}
		}
		if err == nil {
			err = SetThreadIOPriority(IOPriorityIdle)
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
