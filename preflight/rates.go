package preflight

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fsmigrate/fsmigrate/blockdev"
	"github.com/fsmigrate/fsmigrate/migrate"
)

// observeFor is the least time over which writes to the source are counted.
const observeFor = time.Second

// rates is what was measured while the checks ran, bytes/s. Reading is measured on both
// devices; writing is never tried, because nothing is written before the start.
type rates struct {
	root  string // of sysfs
	began time.Time
	start struct{ sectors, used int64 }
	known bool // the kernel counts sectors of the source

	written         float64 // to the source's device
	grown           float64 // space taken on the source
	readSource      float64
	readSpare       float64 // 0: not measured
	measuredSeconds float64
}

// begin starts counting.
func (r *rates) begin(t *target) {
	r.began = time.Now()
	r.start.sectors, r.known = sectorsWritten(r.root, t.source)
	r.start.used = t.used()
}

// finish ends counting, after at least observeFor, and measures reading.
func (r *rates) finish(ctx context.Context, t *target) error {
	if left := observeFor - time.Since(r.began); left > 0 {
		select {
		case <-time.After(left):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	r.measuredSeconds = time.Since(r.began).Seconds()
	if now, ok := sectorsWritten(r.root, t.source); ok && r.known {
		r.written = float64(now-r.start.sectors) * 512 / r.measuredSeconds
	}
	r.grown = max(0, float64(t.used()-r.start.used)/r.measuredSeconds)
	r.readSource = readSpeed(t.source)
	if t.plan.Target.Spare.File == "" {
		r.readSpare = readSpeed(t.spare)
	}
	return nil
}

// growth is what may be added until the copy has caught up: two percent, or
// twice what is added now for as long as the copy takes.
func (r *rates) growth(used int64, copying time.Duration) int64 {
	return max(used/50, int64(2*r.grown*copying.Seconds()))
}

// assumedSpeed is taken where nothing could be measured.
const assumedSpeed = 100e6

// copySpeed is what a copy can be expected to move: half of what the slower side reads,
// at most the plan's rate.
func (r *rates) copySpeed(limit int64) float64 {
	s := float64(assumedSpeed)
	switch {
	case r.readSource > 0 && r.readSpare > 0:
		s = min(r.readSource, r.readSpare) / 2
	case r.readSource > 0:
		s = r.readSource / 2
	}
	if limit > 0 {
		s = min(s, float64(limit))
	}
	return max(s, 1e6)
}

// checkConvergence compares what is written now with what can be copied: passes
// converge when copying is clearly faster.
func checkConvergence(_ context.Context, l *list, t *target, _ *Options) error {
	r := &t.rates
	speed := r.copySpeed(t.plan.Copy.Rate)
	found := fmt.Sprintf("%s/s written now, source reads %s/s", bytes(int64(r.written)), bytes(int64(r.readSource)))
	if !r.known {
		found = "the kernel does not count writes of " + t.source.Path
	}
	if r.readSpare > 0 {
		found += fmt.Sprintf(", spare reads %s/s", bytes(int64(r.readSpare)))
	}
	c := migrate.Check{Name: "convergence", Category: catHardware, Found: found, Verdict: migrate.OK,
		Need: fmt.Sprintf("less than %s/s written; the copy takes about %s", bytes(int64(speed/2)), t.copyTime())}
	if r.written > speed/2 || !r.known {
		c.Verdict = migrate.Warning
		c.Remedy = fmt.Sprintf("measured for %.0f s, writing not tried: it may not converge; run it when less is written", r.measuredSeconds)
	}
	l.add(c)
	return nil
}

// sectorsWritten is the kernel's count for a device.
func sectorsWritten(root string, d blockdev.Device) (int64, bool) {
	b, err := os.ReadFile(fmt.Sprintf("%s/sys/dev/block/%d:%d/stat", root, d.Major, d.Minor))
	if err != nil {
		return 0, false
	}
	f := strings.Fields(string(b))
	if len(f) < 7 {
		return 0, false
	}
	n, err := strconv.ParseInt(f[6], 10, 64)
	return n, err == nil
}

// readSpeed reads a device past the page cache, in steps over its whole length, for at
// most a quarter of a second. 0: it cannot be read so.
func readSpeed(d blockdev.Device) float64 {
	const step, limit, most = 1 << 20, 250 * time.Millisecond, 128
	fd, err := unix.Open(d.Path, unix.O_RDONLY|unix.O_DIRECT|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0
	}
	defer unix.Close(fd)
	buf, err := unix.Mmap(-1, 0, step, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return 0
	}
	defer unix.Munmap(buf) //nolint:errcheck // our own mapping
	stride := max(d.Bytes/most, step) / step * step
	began, n := time.Now(), int64(0)
	for off := int64(0); off+step <= d.Bytes && time.Since(began) < limit; off += stride {
		got, err := unix.Pread(fd, buf, off)
		if err != nil || got <= 0 {
			return 0
		}
		n += int64(got)
	}
	if n == 0 {
		return 0
	}
	return float64(n) / time.Since(began).Seconds()
}
