package shadow

import (
	"context"
	"errors"

	"golang.org/x/sys/unix"

	"github.com/fsmigrate/fsmigrate/copier"
)

// content copies a file's content. With the record of an earlier copy only the
// ranges of a large file that differ are written; a record that is known to be wrong
// is no help, then every byte is read and written.
func (p *pair) content(ctx context.Context, w *worker, n Node, r *reader, dst int, rec *Record, every bool) (copier.CopyResult, error) {
	// Holes are true behind the sync. Where the record was wrong all the same, every byte is
	// read, but not for hours where there is next to none: what differs again is a blocker then.
	huge := r.attr.Size > rangedMax && r.attr.Blocks*512 < r.attr.Size/16
	holes := r.synced && (!every || huge)
	o := copier.CopyOptions{
		Sparse: holes && r.attr.Sparse(), Prealloc: holes, Fresh: rec == nil, Buffers: w.bufs, Throttle: p.throttle,
		WriteBehind: r.attr.Size >= copier.RangedMin, Punch: every && r.attr.Sparse(), NoRanges: huge,
	}
	if rec != nil && !every && rec.Size >= copier.RangedMin {
		raw, ok, err := p.nodes.Ranges(n)
		if err != nil {
			return copier.CopyResult{}, err
		}
		if ok {
			o.Ranges = decodeRanges(raw)
		}
	}
	if rec != nil {
		// While the content is half written nothing may claim to know it.
		if err := p.nodes.PutRanges(n, nil); err != nil {
			return copier.CopyResult{}, err
		}
	}
	if err := p.touch("write"); err != nil {
		return copier.CopyResult{}, err
	}
	res, err := copier.CopyFd(ctx, r.fd, dst, r.attr.Size, o)
	if err != nil {
		return res, err
	}
	if res.Size != r.attr.Size {
		r.attr.Size = res.Size // it was truncated meanwhile, and is dirty
		p.journal.Mark(n, Data|Attrs)
	}
	return res, p.putRanges(n, &res)
}

// rangedMax is the size from which a file needs data in a sixteenth of it for the digests of
// its ranges to be worth their memory: 16 bytes a MiB.
const rangedMax = 1 << 40

func (p *pair) putRanges(n Node, res *copier.CopyResult) error {
	if len(res.Ranges) == 0 {
		return nil
	}
	raw := make([]byte, 0, len(res.Ranges)*16)
	for i := range res.Ranges {
		raw = append(raw, res.Ranges[i][:]...)
	}
	return p.nodes.PutRanges(n, raw)
}

func decodeRanges(raw []byte) []copier.RangeDigest {
	out := make([]copier.RangeDigest, len(raw)/16)
	for i := range out {
		copy(out[i][:], raw[i*16:])
	}
	return out
}

// extras carries what the content does not say: storage without data, and
// extents that files share. Neither is needed for equality, so a target that cannot
// is no failure.
func (p *pair) extras(ctx context.Context, r *reader, dst int) error {
	if err := p.share(ctx, r, dst); err != nil {
		return err
	}
	if r.attr.Blocks*512 <= r.attr.Size+4096 {
		return nil
	}
	_, err := copier.Preallocate(ctx, r.fd, dst)
	if err != nil && !errors.Is(err, unix.EOPNOTSUPP) && !copier.Full(err) {
		return err
	}
	return nil
}

// digest reads a file of `to` back. Its holes are zeros once it was synced (FACTS: an unflushed
// file shows holes over data), and a large one may be nothing else.
func (p *pair) digest(ctx context.Context, w *worker, fd int, a *copier.Attr, direct bool) ([32]byte, error) {
	sparse := a.Sparse() && a.Size > copier.DigestSame
	if sparse {
		if err := unix.Fdatasync(fd); err != nil && !errors.Is(err, unix.EROFS) {
			return [32]byte{}, errors.Join(&copier.TargetError{Op: "sync", Off: -1, Err: err}, p.disclaim())
		}
	}
	sum, _, err := copier.DigestFd(ctx, fd, a.Size, copier.DigestOptions{Direct: direct, Sparse: sparse, Throttle: p.throttle, Buffers: w.bufs})
	var read *copier.SourceError // so it calls whatever it reads
	if errors.As(err, &read) {
		err = &copier.TargetError{Op: "read back", Off: read.Off, Err: read.Err}
	}
	return sum, err
}

// ignore is what no copy between these two formats can keep.
func (p *pair) ignore() copier.Ignore {
	return copier.Ignore{Atime: true, XFlags: p.from.format.Name() != "xfs" || p.to.format.Name() != "xfs"}
}

// judgeLostFound decides whether lost+found is the format's own and no part of
// the tree: so it is when mkfs made it on the target of a source that has none, and on the way back there.
func (p *pair) judgeLostFound() {
	own, tree := p.to, p.from
	if p.back {
		own, tree = p.from, p.to
	}
	skip := hasLostFound(own.format.Name()) && !hasLostFound(tree.format.Name())
	if skip {
		var st unix.Stat_t
		skip = errors.Is(unix.Fstatat(tree.fd, lostFound, &st, unix.AT_SYMLINK_NOFOLLOW), unix.ENOENT)
	}
	if p.skipLostFound.Swap(skip) && !skip {
		p.names.add(p.from.root, lostFound)
		p.journal.Mark(p.from.root, Entries)
	}
}

func hasLostFound(format string) bool {
	return format == "ext2" || format == "ext3" || format == "ext4"
}
