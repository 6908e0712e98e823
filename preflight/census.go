package preflight

import (
	"context"
	"fmt"
	"hash/maphash"
	"os/exec"
	"path"
	"sort"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fsmigrate/fsmigrate/blockdev"
	"github.com/fsmigrate/fsmigrate/copier"
	"github.com/fsmigrate/fsmigrate/formats"
	"github.com/fsmigrate/fsmigrate/migrate"
)

// fitSamples is how many paths of a class are shown.
const fitSamples = 5

// lossSubvolume is the class of btrfs subvolumes below the one that is migrated.
const lossSubvolume = "subvolume"

// census is one walk of the source: what the estimate needs, and the fit.
type census struct {
	limits formats.Limits
	stats  formats.TreeStats
	fit    []migrate.Fit

	tally   formats.DirTally
	seed    maphash.Seed
	classes map[string]*migrate.Fit
}

// take walks the source once, through a clone of its own mount, below which
// submounts hide nothing. It reads no data.
func take(ctx context.Context, t *target) (*census, error) {
	tree, err := blockdev.CloneTree(t.mount.Point)
	if err != nil {
		return nil, err
	}
	defer tree.Close()
	c := &census{limits: t.limits, tally: formats.DirTally{}, seed: maphash.MakeSeed(), classes: map[string]*migrate.Fit{}}
	o := copier.SurveyOptions{Workers: 4}
	// Mapping every file costs as much again: only where the outcome counts.
	o.Extents = t.volume.Limits.Records.Has(formats.Reflink) && !t.limits.Records.Has(formats.Reflink)
	sum, err := copier.SurveyTree(ctx, tree.Fd(), o, c.observe)
	if err != nil {
		return nil, err
	}
	c.close(&sum)
	for _, l := range formats.TreeMisfit(t.limits, c.stats) {
		c.lose(l, "")
	}
	for _, l := range formats.PairFit(t.volume.Limits, t.limits) {
		if l.Class == formats.LossReflink {
			if !sum.Reflinked {
				continue
			}
			l.Why = bytes(sum.SharedBytes) + " lie in extents that files share: each gets its own copy"
		}
		c.classes[l.Class] = &migrate.Fit{Class: l.Class, Count: -1, Why: l.Why, Always: l.Always}
	}
	if sum.Boundaries > 0 {
		c.subvolumes(ctx, t, sum.Boundaries)
	}
	for _, f := range c.classes {
		c.fit = append(c.fit, *f)
	}
	sort.Slice(c.fit, func(i, j int) bool { return c.fit[i].Class < c.fit[j].Class })
	return c, nil
}

// observe takes in one inode, under the first of its names.
func (c *census) observe(p string, a copier.Attr) error {
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
	if p != "." {
		dir, name := path.Split(p)
		c.tally.Name(maphash.String(c.seed, dir), len(name))
	}
	for _, l := range formats.Misfit(c.limits, facts(p, &a)) {
		c.lose(l, p)
	}
	return nil
}

// lose counts an object, or with an empty path the tree, in a class of loss.
func (c *census) lose(l formats.Loss, p string) {
	f := c.classes[l.Class]
	if f == nil {
		f = &migrate.Fit{Class: l.Class, Why: l.Why, Always: l.Always || l.Class == formats.LossPrecision}
		c.classes[l.Class] = f
	}
	f.Count++
	if p != "" && len(f.Samples) < fitSamples {
		f.Samples = append(f.Samples, p)
	}
}

// close sums the directories up. The further names of hard links were counted and not
// seen: they are spread over the directories as the names that were.
func (c *census) close(sum *copier.TreeStats) {
	s := &c.stats
	c.tally.Flush(s)
	c.tally = nil
	s.HardLinks, s.Reflinked, s.MaxName = sum.HardLinks, sum.Reflinked, sum.MaxName
	if sum.HardLinks > 0 && s.NameBytes > 0 {
		var entries int64
		for _, n := range s.DirEntries {
			entries += n
		}
		names, more := float64(sum.NameBytes-s.NameBytes)/float64(s.NameBytes), float64(sum.HardLinks)/float64(entries)
		for i := range s.DirEntries {
			s.DirBytes[i] += int64(names * float64(s.DirBytes[i]))
			s.DirEntries[i] += int64(more * float64(s.DirEntries[i]))
		}
		s.NameBytes = sum.NameBytes
	}
	if sum.LargestDir > s.LargestDir {
		if s.LargestDir > 0 {
			s.LargestDirBytes += s.LargestDirBytes / s.LargestDir * (sum.LargestDir - s.LargestDir)
		}
		s.LargestDir = sum.LargestDir
	}
}

// subvolumes names what lies below the volume and is a volume of its own.
func (c *census) subvolumes(ctx context.Context, t *target, n int64) {
	f := &migrate.Fit{Class: lossSubvolume, Count: n, Why: "a subvolume or snapshot is a volume of its own and is left behind"}
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, "btrfs", "subvolume", "list", t.mount.Point).Output()
	if err == nil { // else there are no names, but the number is known
		for line := range strings.Lines(string(out)) {
			if _, p, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " path "); ok && len(f.Samples) < fitSamples {
				f.Samples = append(f.Samples, p)
			}
		}
	}
	c.classes[f.Class] = f
}

// facts is what the fit judges of an object.
func facts(p string, a *copier.Attr) formats.Facts4Fit {
	f := formats.Facts4Fit{Path: p, Name: path.Base(p), Mode: a.Mode, UID: a.UID, GID: a.GID, Nlink: uint64(a.Nlink), Size: a.Size,
		Times: [3]int64{a.Atime.Sec, a.Mtime.Sec, a.Btime.Sec}, Nsec: [3]uint32{a.Atime.Nsec, a.Mtime.Nsec, a.Btime.Nsec},
		Flags: a.Flags, ProjID: a.ProjID, Major: unix.Major(a.Rdev), Minor: unix.Minor(a.Rdev)}
	if a.IsSymlink() {
		f.Target = int(a.Size)
	}
	for _, x := range a.Xattrs {
		f.Xattrs = append(f.Xattrs, formats.XattrSize{Name: x.Name, Value: len(x.Value)})
	}
	return f
}

// checkFit refuses each class of facts that the target cannot hold and the plan does not waive.
func checkFit(_ context.Context, l *list, t *target, _ *Options) error {
	for _, f := range t.census.fit {
		found := f.Why
		if f.Count > 0 {
			found = fmt.Sprintf("%d: %s", f.Count, f.Why)
		}
		if len(f.Samples) > 0 {
			found += fmt.Sprintf(" (%s)", strings.Join(quoted(shorten(f.Samples, 3)), ", "))
		}
		if f.Always {
			l.add(migrate.Check{Name: f.Class, Category: catFit, Found: found, Need: "known", Verdict: migrate.OK})
			continue
		}
		l.refuseUnlessWaived(f.Class, catFit, found, "all that "+t.to.Name()+" can hold", remedyOf(f.Class))
	}
	return nil
}

// remedyOf says what an operator can do about a class of loss.
func remedyOf(class string) string {
	switch class {
	case lossSubvolume:
		return "mount and migrate them one by one, or delete old snapshots"
	case formats.LossTime:
		return "set other times (touch -d), or choose options with more room (fsmigrate formats)"
	case formats.LossEncrypted, formats.LossVerity:
		return "copy these files yourself, with their keys or seals"
	case formats.LossProject:
		return "note the project ids (lsattr -p) and set them otherwise"
	}
	return "change or remove those objects, or choose another format (fsmigrate formats)"
}

// quoted makes paths printable, but for the "and N more" of shorten.
func quoted(paths []string) []string {
	out := make([]string, len(paths))
	for i, p := range paths {
		out[i] = p
		if strings.ContainsFunc(p, func(r rune) bool { return r < ' ' || r == 0x7f || r == 0xfffd }) {
			out[i] = fmt.Sprintf("%q", p)
		}
	}
	return out
}
