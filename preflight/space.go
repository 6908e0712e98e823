package preflight

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fsmigrate/fsmigrate/migrate"
)

// checkSpace compares what the tree will take with what there is, with room to grow.
func checkSpace(ctx context.Context, l *list, t *target, o *Options) error {
	c, err := o.Memory.census(ctx, t)
	if err != nil {
		return fmt.Errorf("look at every object of %s: %w", t.mount.Point, err)
	}
	t.census = c
	l.room(t)
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

// room is what the target could hold on the largest device there is. A tree that is over
// that needs another target: this one is impossible.
func (l *list) room(t *target) {
	if m := t.census.impossible(t); m != nil {
		l.add(migrate.Check{Name: "volume-limit", Category: catFit, Found: m.found, Need: m.need, Verdict: migrate.Refused,
			Impossible: true, Remedy: otherTarget})
		return
	}
	limit := "no limit that a device meets"
	if t.limits.MaxVolume > 0 {
		limit = "at most " + bytes(t.limits.MaxVolume)
	}
	l.ok("volume-limit", catFit, limit, bytes(t.census.stats.Bytes))
}

const otherTarget = "no spare is large enough for it: choose options with more room, or another format (fsmigrate formats)"

// misfit is a tree that no volume of a format can hold.
type misfit struct{ found, need string }

// impossible compares the tree with the largest volume that the target can be; nil where it fits.
func (c *census) impossible(t *target) *misfit {
	l := t.limits
	objects := c.stats.Objects()
	if l.MaxInodes > 0 && objects > l.MaxInodes {
		return &misfit{fmt.Sprintf("%d objects", objects), fmt.Sprintf("at most %d, the limit of %s with these options", l.MaxInodes, t.to.Name())}
	}
	// An estimate for the largest volume goes through all its groups: only where it may matter.
	if l.MaxVolume == 0 || c.stats.Bytes < l.MaxVolume/2 {
		return nil
	}
	est, err := t.to.Estimate(c.stats, t.plan.Target.Options, l.MaxVolume)
	if err == nil && est.Bytes+est.OverheadBytes <= l.MaxVolume {
		return nil
	}
	return &misfit{bytes(c.stats.Bytes) + " in files", fmt.Sprintf("at most %s, tables and log included: the limit of %s with these options",
		bytes(l.MaxVolume), t.to.Name())}
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
