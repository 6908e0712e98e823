package copier

import (
	"context"

	"golang.org/x/sys/unix"
)

// pipelineDepth is how many ranges are under way: one each being read, hashed
// and written, and one in hand.
const pipelineDepth = 4

// pipeline is the memory of an overlapped copy, kept by its worker.
type pipeline struct {
	rangeSize int
	chunks    [pipelineDepth]chunk
}

func (b *Buffers) pipeline(rangeSize int) *pipeline {
	if b.pipe == nil || b.pipe.rangeSize != rangeSize {
		b.pipe = &pipeline{rangeSize: rangeSize}
		for i := range b.pipe.chunks {
			b.pipe.chunks[i].buf = aligned(rangeSize)
		}
	}
	return b.pipe
}

// stream runs source and hasher in goroutines of their own and hands the chunks,
// hashed and in order, to use in the caller's. Both have ended when it returns.
// It returns the digest of all that passed.
//
// Chunks go round: free → read → hashed → free. Each channel has room for all
// of them, so that no send ever blocks and only receives wait; closing free (by
// the caller, when it stops early) ends the reader, whose end ends the hasher.
func stream(ctx context.Context, b *Buffers, in *source, rangeSize int, ranged bool, use func(*chunk) error) (digest [32]byte, err error) {
	p := b.pipeline(rangeSize)
	h := b.hash()
	free := make(chan *chunk, pipelineDepth)
	read := make(chan *chunk, pipelineDepth)
	hashed := make(chan *chunk, pipelineDepth)
	for i := range p.chunks {
		free <- &p.chunks[i]
	}
	go func() {
		defer close(read)
		for in.more() {
			c, ok := <-free
			if !ok {
				return
			}
			c.err = in.next(ctx, c)
			failed := c.err != nil
			read <- c
			if failed {
				return
			}
		}
	}()
	go func() {
		defer close(hashed)
		for c := range read {
			if c.err == nil {
				c.hashInto(h)
				if ranged {
					c.hashRange()
				}
			}
			hashed <- c
		}
	}()
	for c := range hashed {
		if err != nil {
			continue // draining: the goroutines end on their own
		}
		if err = c.err; err == nil {
			err = use(c)
		}
		if err != nil {
			close(free)
			continue
		}
		free <- c
	}
	h.Sum(digest[:0])
	return digest, err
}

func copyPiped(ctx context.Context, src, dst int, size, old int64, o *CopyOptions) (CopyResult, error) {
	in := &source{fd: src, size: size, sparse: o.Sparse, throttle: o.Throttle}
	if err := in.loadUnwritten(ctx, o); err != nil {
		return CopyResult{}, err
	}
	out := &sink{fd: dst, old: old, ranges: o.Ranges}
	if o.WriteBehind {
		out.behind = &writeBehind{}
	}
	ranged := size >= RangedMin
	var ranges []RangeDigest
	if ranged {
		ranges = make([]RangeDigest, 0, (size+int64(o.RangeSize)-1)/int64(o.RangeSize))
	}
	_ = unix.Fadvise(src, 0, 0, unix.FADV_SEQUENTIAL) // doubles readahead; failing changes nothing
	digest, err := stream(ctx, o.Buffers, in, o.RangeSize, ranged, func(c *chunk) error {
		if ranged {
			ranges = append(ranges, c.digest)
		}
		return out.write(c)
	})
	if err != nil {
		return out.r, err
	}
	out.r.Digest, out.r.Ranges = digest, ranges
	return out.finish(in.off)
}
