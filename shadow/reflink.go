package shadow

import (
	"context"
	"errors"
	"sort"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/fsmigrate/fsmigrate/copier"
	"github.com/fsmigrate/fsmigrate/formats"
)

// maxExtents bounds the memory of the extent index, some 60 bytes an entry. Files whose
// shared extents it does not know are copied as well, with space of their own.
const maxExtents = 500_000

// extentIndex remembers where on `to` the content of shared extents of `from` is, so
// that what shares space there shares it here. It only proposes: the kernel compares
// both before it shares (FIDEDUPERANGE), so a stale entry costs nothing. It is not
// durable: after a restart files copied before share with none copied later.
type extentIndex struct {
	p  *pair
	mu sync.Mutex
	at []knownExtent // by phys
}

type knownExtent struct {
	phys uint64
	n    int64
	off  int64
	to   Node
}

// of is the index for the copy of one file.
func (x *extentIndex) of(to Node) copier.ExtentIndex { return &fileExtents{x, to} }

type fileExtents struct {
	x  *extentIndex
	to Node
}

// Lookup is copier.ExtentIndex's.
func (f *fileExtents) Lookup(phys uint64, n int64) (copier.SharedExtent, bool) {
	f.x.mu.Lock()
	defer f.x.mu.Unlock()
	// Entries do not overlap but for what was recorded twice at once, so the one
	// before the first that begins at phys or later is the only other candidate.
	i := sort.Search(len(f.x.at), func(i int) bool { return f.x.at[i].phys >= phys })
	if i > 0 && f.x.at[i-1].phys+uint64(f.x.at[i-1].n) > phys {
		i--
	}
	if i == len(f.x.at) || f.x.at[i].phys >= phys+uint64(n) {
		return copier.SharedExtent{}, false
	}
	e := f.x.at[i]
	v := f.x.p.to
	return copier.SharedExtent{Phys: e.phys, Len: e.n, Off: e.off, Open: func() (int, error) {
		return v.open(e.to, unix.O_RDONLY|unix.O_NOFOLLOW)
	}}, true
}

// Record is copier.ExtentIndex's.
func (f *fileExtents) Record(phys uint64, n int64, off int64) error {
	f.x.mu.Lock()
	defer f.x.mu.Unlock()
	if len(f.x.at) >= maxExtents {
		return nil
	}
	i := sort.Search(len(f.x.at), func(i int) bool { return f.x.at[i].phys >= phys })
	f.x.at = append(f.x.at, knownExtent{})
	copy(f.x.at[i+1:], f.x.at[i:])
	f.x.at[i] = knownExtent{phys, n, off, f.to}
	return nil
}

// share lets a file that was copied share what its original shares.
func (p *pair) share(ctx context.Context, r *reader, dst int) error {
	if r.attr.Blocks == 0 || !p.from.limits.Records.Has(formats.Reflink) || !p.to.limits.Records.Has(formats.Reflink) {
		return nil
	}
	to, err := p.to.codec.NodeAt(dst, "", unix.AT_EMPTY_PATH)
	if err != nil {
		return &copier.TargetError{Op: "identify", Off: -1, Err: err}
	}
	_, err = copier.ShareExtents(ctx, r.fd, dst, p.shared.of(to))
	var te *copier.TargetError
	if errors.Is(err, copier.ErrNoShare) || errors.As(err, &te) && !copier.Full(err) {
		return nil // it has space of its own then, and the content is right
	}
	return err
}
