package preflight

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// checkSpace compares what the tree will take with what there is, with room to grow.
func checkSpace(ctx context.Context, l *list, t *target, _ *Options) error {
	c, err := take(ctx, t)
	if err != nil {
		return fmt.Errorf("look at every object of %s: %w", t.mount.Point, err)
	}
	t.census = c
	have := t.spareBytes()
	est, err := t.to.Estimate(c.stats, t.plan.Target.Options, have)
	if err != nil { // not even the empty file system fits
		l.refuse("space", catHardware, fmt.Sprintf("%s: %v", bytes(have), err), "room for "+bytes(c.stats.Bytes), "use a larger spare")
		return t.rates.finish(ctx, t)
	}
	t.estimate = est
	if err := t.rates.finish(ctx, t); err != nil {
		return err
	}
	growth := t.rates.growth(t.used(), t.copyTime())
	bare := est.Bytes + est.OverheadBytes
	need := est.Need() + growth
	found := fmt.Sprintf("%s for %s in %d objects", bytes(have), bytes(c.stats.Bytes), c.stats.Objects())
	want := fmt.Sprintf("%s: %s, %s of tables and log, margin %s, growth %s", bytes(need), bytes(est.Bytes),
		bytes(est.OverheadBytes), bytes(est.MarginBytes), bytes(growth))
	switch {
	case have < bare:
		l.refuse("space", catHardware, found, want, "use a larger spare")
	case have < need:
		l.warn("space", catHardware, found, want, "it fits, but for the margin: when it is full the migration pauses; use a larger spare")
	default:
		l.ok("space", catHardware, found, want)
	}
	found = fmt.Sprintf("%d", est.InodesMax)
	if est.InodesMax == 0 {
		found = "no limit"
	}
	switch {
	case est.InodesMax == 0 || est.InodesMax >= est.Inodes+est.Inodes/50:
		l.ok("inodes", catHardware, found, fmt.Sprintf("%d", est.Inodes))
	case est.InodesMax >= est.Inodes:
		l.warn("inodes", catHardware, found, fmt.Sprintf("%d and some to grow", est.Inodes), "use a larger spare, or an option that makes more inodes")
	default:
		l.refuse("inodes", catHardware, found, fmt.Sprintf("%d", est.Inodes), "use a larger spare, or an option that makes more inodes")
	}
	return nil
}

// used is what statfs says of the source.
func (t *target) used() int64 {
	var st unix.Statfs_t
	if unix.Statfs(t.mount.Point, &st) != nil {
		return 0
	}
	return int64(st.Blocks-st.Bfree) * st.Bsize
}

// objectRate is how many objects a second a copy makes at best: half of what the
// fastest format was seen to create and sync on two processors.
const objectRate = 10000

// copyTime is how long the first walk takes at the measured speed.
func (t *target) copyTime() time.Duration {
	if t.census == nil {
		return 0
	}
	return duration(float64(t.census.stats.Objects())/objectRate + float64(t.census.stats.Bytes)/t.rates.copySpeed(t.plan.Copy.Rate))
}

// verifyTime is how long every object takes to be read back from the spare.
func (t *target) verifyTime() time.Duration {
	if t.census == nil {
		return 0
	}
	return duration(float64(t.census.stats.Objects())/(3*objectRate) + float64(t.census.stats.Bytes)/t.rates.copySpeed(t.plan.Copy.Rate))
}

func duration(seconds float64) time.Duration {
	return time.Duration(seconds * float64(time.Second)).Round(time.Second)
}
