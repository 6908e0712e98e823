package copier

import "context"

// pipelineDepth is how many ranges are under way in an overlapped copy: one
// being filled, one being used, and one in hand. More would only leave the cache.
const pipelineDepth = 3

// pipeline is the memory for ranges, kept by its worker.
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

// fill reads and hashes one range while it is in the processor's cache.
func (s *source) fill(ctx context.Context, c *chunk, d *digester, ranged bool) error {
	if err := s.next(ctx, c); err != nil {
		return err
	}
	c.hashInto(d)
	if ranged {
		c.hashRange()
	}
	return nil
}

// inTurn hands the ranges of in, hashed and in order, to use, and returns the
// digest of all.
func inTurn(ctx context.Context, b *Buffers, in *source, rangeSize int, ranged bool, use func(*chunk) error) (digest [32]byte, err error) {
	c := &chunk{buf: b.Data(), runs: b.runs[:0]}
	if rangeSize != len(c.buf) {
		c = &b.pipeline(rangeSize).chunks[0]
	}
	d := b.digester()
	for in.more() {
		if err := in.fill(ctx, c, d, ranged); err != nil {
			return digest, err
		}
		if err := use(c); err != nil {
			return digest, err
		}
	}
	b.runs = c.runs
	return d.sum(), nil
}

// overlapped is inTurn with the reading and hashing in a goroutine of its own,
// which has ended when it returns.
//
// Chunks go round: free → filled → free. Both channels have room for all of
// them, so that no send ever blocks and only receives wait; closing free (by the
// caller, when it stops early) ends the reader, and that closes filled.
func overlapped(ctx context.Context, b *Buffers, in *source, rangeSize int, ranged bool, use func(*chunk) error) (digest [32]byte, err error) {
	p := b.pipeline(rangeSize)
	d := b.digester()
	free := make(chan *chunk, pipelineDepth)
	filled := make(chan *chunk, pipelineDepth)
	for i := range p.chunks {
		free <- &p.chunks[i]
	}
	go func() {
		defer close(filled)
		for in.more() {
			c, ok := <-free
			if !ok {
				return
			}
			err := in.fill(ctx, c, d, ranged)
			c.err = err // c is not ours any more once it is sent
			filled <- c
			if err != nil {
				return
			}
		}
	}()
	for c := range filled {
		if err != nil {
			continue // draining: the reader ends on its own
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
	return d.sum(), err
}
