package shadow

import (
	"errors"
	"sort"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fsmigrate/fsmigrate/copier"
	"github.com/fsmigrate/fsmigrate/formats"
	"github.com/fsmigrate/fsmigrate/migrate"
)

// fdName names an object for a message: an entry of a directory, or what a
// descriptor is. The path is made only when it is needed.
type fdName struct {
	fd   int
	name string
}

func (f fdName) path() string {
	if f.name == "" {
		return fdPath(f.fd)
	}
	return fdPath(f.fd) + "/" + f.name
}

// fitted is what `to` can hold of an object: its attributes cut to the target's
// limits. Each loss that the plan does not waive becomes a blocker (I5); ok is false when the
// object cannot exist there at all. With a nil attr only the name is judged.
func (p *pair) fitted(n Node, at fdName, attr *copier.Attr) (want copier.Attr, ok bool) {
	if !p.fails.empty() {
		_, refused := p.left.place(n)
		p.fails.clearNode(n, func(class string) bool {
			return !isUnread(class) && class != "different" && (class != formats.LossSubdirs || !refused || attr == nil)
		})
	}
	if attr == nil {
		if len(at.name) <= p.to.limits.NameBytes {
			return want, true
		}
		p.lose(n, at, formats.Loss{Class: formats.LossName, Why: "the name is too long"})
		return want, false
	}
	want, ok = *attr, true
	f := formats.Facts4Fit{
		Name: at.name, Mode: attr.Mode, UID: attr.UID, GID: attr.GID, Nlink: uint64(attr.Nlink), Size: attr.Size,
		Times: [3]int64{attr.Atime.Sec, attr.Mtime.Sec}, Nsec: [3]uint32{attr.Atime.Nsec, attr.Mtime.Nsec},
		Flags: attr.Flags, ProjID: attr.ProjID,
		Major: unix.Major(attr.Rdev), Minor: unix.Minor(attr.Rdev),
	}
	if attr.IsSymlink() {
		f.Target = int(attr.Size)
	}
	if len(attr.Xattrs) > 0 {
		f.Xattrs = make([]formats.XattrSize, len(attr.Xattrs))
		for i, x := range attr.Xattrs {
			f.Xattrs[i] = formats.XattrSize{Name: x.Name, Value: len(x.Value)}
		}
	}
	p.cutTimes(&want)
	for _, l := range formats.Misfit(p.to.limits, f) {
		if !p.cut(&want, l) {
			ok = false
		}
		if l.Class != formats.LossPrecision {
			p.lose(n, at, l)
		}
	}
	return want, ok
}

// cutTimes rounds down what is finer than the target's stamps, as its kernel
// driver does; that is in the fit once for the pair, not an object's loss.
func (p *pair) cutTimes(a *copier.Attr) {
	g := p.to.limits.TimeGranularity
	if g <= 1 {
		return
	}
	for _, t := range []*copier.Time{&a.Atime, &a.Mtime} {
		if g >= time.Second {
			t.Nsec = 0
			t.Sec -= ((t.Sec % int64(g/time.Second)) + int64(g/time.Second)) % int64(g/time.Second)
		} else {
			t.Nsec -= t.Nsec % uint32(g)
		}
	}
}

// cut takes out of want what l says is lost. It answers false when nothing can be left.
func (p *pair) cut(want *copier.Attr, l formats.Loss) bool {
	lim := &p.to.limits
	switch l.Class {
	case formats.LossTime:
		for _, t := range []*copier.Time{&want.Atime, &want.Mtime} {
			if t.Sec < lim.TimeMin {
				*t = copier.Time{Sec: lim.TimeMin}
			}
			if t.Sec > lim.TimeMax {
				*t = copier.Time{Sec: lim.TimeMax}
			}
		}
	case formats.LossXattr, formats.LossXattrSize, formats.LossACL, formats.LossCaps:
		cutXattrs(want, lim)
	case formats.LossFlag:
		want.Flags &= lim.Flags
	case formats.LossProject:
		want.ProjID, want.ProjInherit = 0, false
	case formats.LossCasefold:
		want.Flags &^= formats.FlagCasefold
	case formats.LossSubdirs:
		// The directory is there; those in it that find no place are lost, each by its name.
	case formats.LossName, formats.LossSize, formats.LossSymlink, formats.LossSymlinks, formats.LossSpecials,
		formats.LossDevice, formats.LossLinks, formats.LossEncrypted, formats.LossUID, formats.LossGID:
		return false
	}
	return true
}

// cutXattrs drops the largest extended attributes until the rest fits.
func cutXattrs(want *copier.Attr, lim *formats.Limits) {
	xs := append([]copier.Xattr(nil), want.Xattrs...)
	sort.Slice(xs, func(i, j int) bool { return len(xs[i].Value) < len(xs[j].Value) })
	for len(xs) > 0 {
		sizes := make([]formats.XattrSize, len(xs))
		for i, x := range xs {
			sizes[i] = formats.XattrSize{Name: x.Name, Value: len(x.Value)}
		}
		if len(formats.Misfit(*lim, formats.Facts4Fit{Mode: want.Mode, Xattrs: sizes, Nlink: 1})) == 0 {
			break
		}
		xs = xs[:len(xs)-1]
	}
	sort.Slice(xs, func(i, j int) bool { return xs[i].Name < xs[j].Name })
	want.Xattrs = xs
}

// lose records one loss: a blocker unless it is waived; on the way back the end of it.
func (p *pair) lose(n Node, at fdName, l formats.Loss) {
	path := at.path()
	if p.onLoss != nil {
		p.onLoss(path, l)
		return
	}
	if p.waived != nil && p.waived(l.Class) {
		return
	}
	p.fails.addNode(n, migrate.Blocker{Class: l.Class, Object: path, Why: l.Why,
		Hint: "change it on the source, or waive the class " + l.Class + ": abort, then run again with --waive " + l.Class + "=REASON"})
}

// dressOptions is what `to` can hold as far as the volume decides.
func (p *pair) dressOptions(b *copier.Buffers) copier.DressOptions {
	return copier.DressOptions{
		Flags: p.to.limits.Flags & copier.FlagsOf(p.to.format.Name()), Project: p.to.limits.Records.Has(formats.Project),
		XFlags: p.from.format.Name() == "xfs" && p.to.format.Name() == "xfs", Buffers: b,
	}
}

// dress puts the attributes want on the object behind fd.
func (p *pair) dress(w *worker, fd int, want *copier.Attr) error {
	var b *copier.Buffers
	if w != nil {
		b = w.bufs
	}
	if err := p.touch("dress"); err != nil {
		return err
	}
	err := copier.Dress(fd, *want, p.dressOptions(b))
	var t *copier.TargetError
	if err == nil || errors.As(err, &t) {
		return err
	}
	return &copier.TargetError{Op: "dress", Off: -1, Err: err}
}

// equalAttr compares an object of both sides as far as `to` can hold it.
func (p *pair) equalAttr(want, have *copier.Attr) []copier.Difference {
	w, h := *want, *have
	p.cutTimes(&w)
	mask := p.to.limits.Flags & copier.FlagsOf(p.to.format.Name())
	w.Flags &= mask
	h.Flags &= mask
	if !p.to.limits.Records.Has(formats.Project) || !p.from.limits.Records.Has(formats.Project) {
		w.ProjID, h.ProjID, w.ProjInherit, h.ProjInherit = 0, 0, false, false
	}
	if w.IsDir() {
		w.Nlink, h.Nlink, w.Size, h.Size = 0, 0, 0, 0
	}
	return copier.EqualAttr(w, h, p.ignore())
}
