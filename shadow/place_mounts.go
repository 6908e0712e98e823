package shadow

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/fsmigrate/fsmigrate/blockdev"
	"github.com/fsmigrate/fsmigrate/migrate"
)

// mountPoint is one mount of one of the two volumes, in some mount namespace.
type mountPoint struct {
	blockdev.Mount
	side   migrate.Side
	own    bool   // in our namespace
	ground string // propagation of the mount it lies on
}

// space names the mount's namespace for people.
func (m *mountPoint) space() string {
	switch {
	case m.own:
		return "this mount namespace"
	case m.PID == 0:
		return fmt.Sprintf("mount namespace %d without a process", m.NS)
	}
	return fmt.Sprintf("mount namespace %d (pid %d, %s)", m.NS, m.PID, commandOf(m.PID))
}

func hasOption(options, name string) bool {
	for o := range strings.SplitSeq(options, ",") {
		if o == name {
			return true
		}
	}
	return false
}

// listing is every mount of the two volumes in every mount namespace, ours first.
type listing struct {
	mounts []*mountPoint
	all    []blockdev.Mount
	ns     uint64 // ours
}

func (l *listing) of(s migrate.Side) []*mountPoint {
	var out []*mountPoint
	for _, m := range l.mounts {
		if m.side == s {
			out = append(out, m)
		}
	}
	return out
}

// list reads the mount tables of all namespaces. It looks at every process, so
// what happens during the pause uses listOwn where that is enough.
func (p *Place) list() (*listing, error) {
	all, err := blockdev.AllMounts()
	if err != nil {
		return nil, err
	}
	return p.newListing(all)
}

// listOwn reads the mount table of our namespace.
func (p *Place) listOwn() (*listing, error) {
	infos, err := mountinfo.GetMounts(nil)
	if err != nil {
		return nil, fmt.Errorf("read mounts: %w", err)
	}
	all := make([]blockdev.Mount, 0, len(infos))
	for _, i := range infos {
		all = append(all, blockdev.Mount{
			ID: i.ID, Parent: i.Parent, Dev: unix.Mkdev(uint32(i.Major), uint32(i.Minor)), Root: i.Root, Point: i.Mountpoint,
			FSType: i.FSType, Source: i.Source, Options: i.Options, SuperOptions: i.VFSOptions, Propagation: i.Optional,
		})
	}
	return p.newListing(all)
}

func (p *Place) newListing(all []blockdev.Mount) (*listing, error) {
	if len(all) == 0 {
		return nil, errors.New("read mounts: the own namespace has none")
	}
	match := p.matcher()
	l := &listing{all: all, ns: all[0].NS}
	type key struct {
		ns uint64
		id int
	}
	propagation := make(map[key]string, len(all))
	for _, m := range all {
		propagation[key{m.NS, m.ID}] = m.Propagation
	}
	for _, m := range all {
		if side, ok := match(m); ok {
			l.mounts = append(l.mounts, &mountPoint{Mount: m, side: side, own: m.NS == l.ns, ground: propagation[key{m.NS, m.Parent}]})
		}
	}
	return l, nil
}

// group picks the group of a kind ("shared:", "master:") from a mount's propagation.
func group(propagation, kind string) string {
	for f := range strings.FieldsSeq(propagation) {
		if g, ok := strings.CutPrefix(f, kind); ok {
			return g
		}
	}
	return ""
}

// matcher tells whose mount one is. Btrfs has an anonymous device number in the
// mount table, so its mounts are known by their source.
func (p *Place) matcher() func(blockdev.Mount) (migrate.Side, bool) {
	rdev := map[uint64]migrate.Side{}
	for _, s := range []migrate.Side{migrate.Source, migrate.Shadow} {
		if d, err := p.deviceIfThere(s); err == nil && d != nil {
			rdev[unix.Mkdev(d.Major, d.Minor)] = s
		}
	}
	sources := map[string]uint64{}
	return func(m blockdev.Mount) (migrate.Side, bool) {
		if s, ok := rdev[m.Dev]; ok {
			return s, true
		}
		if m.FSType != "btrfs" {
			return "", false
		}
		dev, ok := sources[m.Source]
		if !ok {
			var st unix.Stat_t
			if unix.Stat(m.Source, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFBLK {
				dev = st.Rdev
			}
			sources[m.Source] = dev
		}
		s, ok := rdev[dev]
		return s, ok && dev != 0
	}
}

func commandOf(pid int) string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	if err != nil {
		return "?"
	}
	return strings.TrimSpace(string(b))
}
