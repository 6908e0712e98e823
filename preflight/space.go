package preflight

import (
	"context"
	"fmt"
	"path"
	"sort"

	"golang.org/x/sys/unix"

	"github.com/fsmigrate/fsmigrate/blockdev"
	"github.com/fsmigrate/fsmigrate/copier"
	"github.com/fsmigrate/fsmigrate/formats"
	"github.com/fsmigrate/fsmigrate/migrate"
)

// fitSamples is how many paths of a class are shown.
const fitSamples = 5

// census is one walk of the source: what the estimate needs, and the fit.
type census struct {
	stats   formats.TreeStats
	fit     []migrate.Fit
	foreign int64 // subvolumes and the like that were not entered
}

// take walks the source once, through a clone of its own mount, below which
// submounts hide nothing.
func take(ctx context.Context, t *target) (*census, error) {
	tree, err := blockdev.CloneTree(t.mount.Point)
	if err != nil {
		return nil, err
	}
	defer tree.Close()
	c := &census{}
	classes := map[string]*migrate.Fit{}
	sum, err := copier.SurveyTree(ctx, tree.Fd(), copier.SurveyOptions{Workers: 4},
		func(p string, a copier.Attr) error {
			c.observe(p, &a)
			for _, l := range formats.Misfit(t.limits, facts(p, &a)) {
				f := classes[l.Class]
				if f == nil {
					f = &migrate.Fit{Class: l.Class, Why: l.Why, Always: l.Always || l.Class == formats.LossPrecision}
					classes[l.Class] = f
				}
				f.Count++
				if len(f.Samples) < fitSamples {
					f.Samples = append(f.Samples, p)
				}
			}
			return nil
		})
	if err != nil {
		return nil, err
	}
	c.stats.HardLinks, c.stats.LargestDir, c.foreign = sum.HardLinks, sum.LargestDir, sum.Boundaries
	for _, l := range formats.PairFit(t.volume.Limits, t.limits) {
		classes[l.Class] = &migrate.Fit{Class: l.Class, Count: -1, Why: l.Why, Always: l.Always}
	}
	if c.foreign > 0 {
		classes["subvolume"] = &migrate.Fit{Class: "subvolume", Count: c.foreign,
			Why: "subvolumes and snapshots below it are volumes of their own and are not followed"}
	}
	for _, f := range classes {
		c.fit = append(c.fit, *f)
	}
	sort.Slice(c.fit, func(i, j int) bool { return c.fit[i].Class < c.fit[j].Class })
	return c, nil
}

func (c *census) observe(p string, a *copier.Attr) {
	s := formats.Sample{Mode: a.Mode, Size: a.Size, Allocated: a.Blocks * 512, Nlink: uint64(a.Nlink), UID: a.UID, GID: a.GID,
		Atime: a.Atime.Sec, Mtime: a.Mtime.Sec, Xattrs: len(a.Xattrs)}
	for _, x := range a.Xattrs {
		s.XattrBytes += len(x.Name) + len(x.Value)
		s.MaxXattrValue = max(s.MaxXattrValue, len(x.Value))
	}
	if a.IsSymlink() {
		s.Target = int(a.Size)
	}
	c.stats.Observe(s)
	name := len(path.Base(p))
	c.stats.NameBytes += int64(name)
	c.stats.MaxName = max(c.stats.MaxName, name)
}

// facts is what the fit judges of an object.
func facts(p string, a *copier.Attr) formats.Facts4Fit {
	f := formats.Facts4Fit{Path: p, Name: path.Base(p), Mode: a.Mode, UID: a.UID, GID: a.GID, Nlink: uint64(a.Nlink), Size: a.Size,
		Times: [3]int64{a.Atime.Sec, a.Mtime.Sec, a.Btime.Sec}, Nsec: [3]uint32{a.Atime.Nsec, a.Mtime.Nsec, a.Btime.Nsec},
		Flags: a.Flags, ProjID: a.ProjID}
	if a.IsSymlink() {
		f.Target = int(a.Size)
	}
	for _, x := range a.Xattrs {
		f.Xattrs = append(f.Xattrs, formats.XattrSize{Name: x.Name, Value: len(x.Value)})
	}
	return f
}

// checkSpace compares what the tree will take with what there is, with room to grow.
func checkSpace(ctx context.Context, l *list, t *target, _ *Options) error {
	c, err := take(ctx, t)
	if err != nil {
		return fmt.Errorf("look at every object of %s: %w", t.mount.Point, err)
	}
	t.census = c
	have := t.spareBytes()
	est, err := t.to.Estimate(c.stats, t.plan.Target.Options, have)
	if err != nil {
		return fmt.Errorf("estimate the space needed: %w", err)
	}
	t.estimate = est
	growth := t.used() / 50 // two percent: what may be added while the copy runs
	need := est.Need() + growth
	found := fmt.Sprintf("%s, for %d objects", bytes(have), c.stats.Objects())
	want := fmt.Sprintf("%s (data %s, tables and log %s, margin %s, growth %s)", bytes(need), bytes(est.Bytes),
		bytes(est.OverheadBytes), bytes(est.MarginBytes), bytes(growth))
	switch {
	case have < est.Bytes+est.OverheadBytes:
		l.refuse("space", catHardware, found, want, "use a larger spare")
	case have < need:
		l.warn("space", catHardware, found+" (inside the margin)", want, "use a larger spare; when it is full the migration pauses")
	default:
		l.ok("space", catHardware, found, want)
	}
	found = fmt.Sprintf("%d", est.InodesMax)
	if est.InodesMax == 0 {
		found = "no limit"
	}
	if est.InodesMax != 0 && est.InodesMax < est.Inodes {
		l.refuse("inodes", catHardware, found, fmt.Sprintf("%d", est.Inodes), "use a larger spare, or an option that makes more inodes")
	} else {
		l.ok("inodes", catHardware, found, fmt.Sprintf("%d", est.Inodes))
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

// checkFit refuses each class of facts that the target cannot hold and the plan does not waive.
func checkFit(_ context.Context, l *list, t *target, _ *Options) error {
	for _, f := range t.census.fit {
		found := f.Why
		if f.Count > 0 {
			found = fmt.Sprintf("%d objects: %s (%q)", f.Count, f.Why, shorten(f.Samples, 3))
		}
		if f.Always {
			l.add(migrate.Check{Name: f.Class, Category: catFit, Found: found, Need: "told, no waiver needed", Verdict: migrate.OK})
			continue
		}
		l.refuseUnlessWaived(f.Class, catFit, found, "every fact representable in "+t.to.Name(), "change the objects")
	}
	return nil
}
