package copier

import (
	"bytes"
	"context"
	"errors"

	"github.com/zeebo/xxh3"
	"golang.org/x/sys/unix"
)

// zeros stands for holes wherever bytes are needed. Never written to.
var zeros [dataBytes]byte

// run is a stretch of a file that is all data or all hole.
type run struct {
	off, n int64
	hole   bool
}

// chunk is one range of a file on its way, or all the ranges that one hole spans. Where a
// chunk is one hole, buf was not filled.
type chunk struct {
	buf    []byte
	off    int64
	n      int64
	index  int   // number of the range
	read   int64 // bytes read for it
	hole   bool  // nothing but hole
	runs   []run
	ranged bool // digest is set
	digest RangeDigest
	err    error
}

func (c *chunk) hashInto(d *digester) {
	if c.hole {
		d.hole(c.n)
		return
	}
	d.add(c.buf[:c.n])
}

var zeroRange = RangeDigest(xxh3.Hash128(zeros[:]).Bytes())

// hashRange digests the range, or each of those that a hole spans: they are the same.
func (c *chunk) hashRange() {
	c.ranged = true
	n := min(c.n, int64(len(c.buf)))
	switch {
	case !c.hole:
		c.digest = xxh3.Hash128(c.buf[:n]).Bytes()
	case n == int64(len(zeros)):
		c.digest = zeroRange
	case n < int64(len(zeros)):
		c.digest = xxh3.Hash128(zeros[:n]).Bytes()
	default:
		clear(c.buf[:n])
		c.digest = xxh3.Hash128(c.buf[:n]).Bytes()
	}
}

// ranges is how many ranges the chunk spans.
func (c *chunk) ranges() int { return max(1, int(c.n/int64(len(c.buf)))) }

// source reads a file chunk by chunk.
type source struct {
	fd     int
	size   int64
	off    int64
	index  int
	sparse bool
	direct bool // fd is O_DIRECT: lengths are rounded up to a page
	punch  bool // ranges that read as zeros become holes
	ended  bool // the file was shorter than size
	cursor holeCursor
	// unwritten are the stretches, in order, that the disk does not hold yet;
	// those that end before off are dropped.
	unwritten []run
	throttle  *Throttle
}

func (s *source) more() bool { return !s.ended && s.off < s.size }

// next fills c with the next range. Past the end of a file that shrank, c.n is
// what was left, possibly 0.
func (s *source) next(ctx context.Context, c *chunk) error {
	c.off, c.index, c.read, c.hole, c.ranged, c.err = s.off, s.index, 0, false, false, nil
	c.runs = c.runs[:0]
	c.n = min(int64(len(c.buf)), s.size-s.off)
	var err error
	if s.sparse {
		err = s.fillSparse(ctx, c)
	} else {
		err = s.fillDense(ctx, c)
	}
	if err != nil {
		return err
	}
	s.off += c.n
	s.index += c.ranges()
	return nil
}

func (s *source) fillDense(ctx context.Context, c *chunk) error {
	want := int(c.n)
	if err := s.throttle.Wait(ctx, want); err != nil {
		return err
	}
	n, err := s.read(c.buf, want, s.off)
	if err != nil {
		return sourceError("read", s.off+int64(n), err)
	}
	s.ended = n < want
	c.n, c.read = int64(n), int64(n)
	if n > 0 {
		c.hole = s.punch && allZero(c.buf[:n])
		c.runs = append(c.runs, run{off: c.off, n: int64(n), hole: c.hole})
	}
	return nil
}

// read reads want bytes into buf, or up to the end of the file.
func (s *source) read(buf []byte, want int, off int64) (int, error) {
	ask := want
	if s.direct {
		ask = min((want+pageBytes-1)&^(pageBytes-1), len(buf))
	}
	n, err := preadFull(s.fd, buf[:ask], off)
	return min(n, want), err
}

func (s *source) fillSparse(ctx context.Context, c *chunk) error {
	end := c.off + c.n
	if err := s.seek(c.off); err != nil {
		return sourceError("seek data", c.off, err)
	}
	if s.cursor.start >= end {
		if err := s.throttle.Wait(ctx, 0); err != nil {
			return err
		}
		c.hole = true
		if whole := (s.cursor.start - c.off) / int64(len(c.buf)); whole > 1 {
			c.n = whole * int64(len(c.buf))
		}
		c.runs = append(c.runs, run{off: c.off, n: c.n, hole: true})
		return nil
	}
	for pos := c.off; pos < end; {
		if err := s.seek(pos); err != nil {
			return sourceError("seek data", pos, err)
		}
		if pos < s.cursor.start {
			n := min(s.cursor.start, end) - pos
			clear(c.buf[pos-c.off : pos-c.off+n])
			c.runs = append(c.runs, run{off: pos, n: n, hole: true})
			pos += n
			continue
		}
		want := int(min(s.cursor.end, end) - pos)
		if err := s.throttle.Wait(ctx, want); err != nil {
			return err
		}
		n, err := s.read(c.buf[pos-c.off:], want, pos)
		if err != nil {
			return sourceError("read", pos+int64(n), err)
		}
		if n > 0 {
			s.addData(c, run{off: pos, n: int64(n)})
			c.read += int64(n)
			pos += int64(n)
		}
		if n < want { // shrank under us: its tracker marks it again
			s.ended = true
			c.n = pos - c.off
			return nil
		}
	}
	return nil
}

// seek moves the cursor to off. A direct read begins and ends at a page, and so does
// what is read around data whose blocks are smaller.
func (s *source) seek(off int64) error {
	err := s.cursor.seek(s.fd, off, s.size)
	if err == nil && s.direct && s.cursor.start < s.size {
		s.cursor.start = max(off, s.cursor.start&^(pageBytes-1))
		s.cursor.end = min(roundUp(s.cursor.end), s.size)
	}
	return err
}

// holeCursor knows the stretch of data at or after the last offset asked for.
type holeCursor struct {
	start, end int64
}

// seek moves to the stretch that holds or follows off; beyond the last one,
// start and end are size. Offsets must not go backwards.
func (h *holeCursor) seek(fd int, off, size int64) error {
	if off < h.end || h.end >= size && h.end > 0 {
		return nil
	}
	start, err := unix.Seek(fd, off, unix.SEEK_DATA)
	if errors.Is(err, unix.ENXIO) || err == nil && start >= size {
		h.start, h.end = size, size
		return nil
	}
	if err != nil {
		return err
	}
	end, err := unix.Seek(fd, start, unix.SEEK_HOLE)
	if errors.Is(err, unix.ENXIO) { // truncated between the two calls
		h.start, h.end = size, size
		return nil
	}
	if err != nil {
		return err
	}
	h.start, h.end = start, min(end, size)
	return nil
}

// loadUnwritten maps the stretches that are preallocated only.
func (s *source) loadUnwritten(ctx context.Context, o *CopyOptions) error {
	if !o.Prealloc || !o.Sparse {
		return nil
	}
	err := Extents(ctx, s.fd, func(e Extent) error {
		if e.Flags&ExtentUnwritten != 0 && e.Off < s.size {
			s.unwritten = append(s.unwritten, run{off: e.Off, n: min(e.Len, s.size-e.Off)})
		}
		return nil
	})
	if err != nil && ctx.Err() == nil {
		return sourceError("map extents", -1, err)
	}
	return err
}

// addData adds a stretch that was read, less what is unwritten on the disk and
// zeros in memory: that is a hole which somebody looked into.
func (s *source) addData(c *chunk, d run) {
	for end := d.off + d.n; d.off < end; {
		for len(s.unwritten) > 0 && s.unwritten[0].off+s.unwritten[0].n <= d.off {
			s.unwritten = s.unwritten[1:]
		}
		next := run{off: d.off, n: end - d.off}
		if len(s.unwritten) > 0 && s.unwritten[0].off < end {
			if u := s.unwritten[0]; u.off > d.off {
				next.n = u.off - d.off
			} else {
				next.n = min(u.off+u.n, end) - d.off
				at := next.off - c.off
				next.hole = allZero(c.buf[at : at+next.n])
			}
		}
		c.runs = append(c.runs, next)
		d.off += next.n
	}
}

func allZero(p []byte) bool {
	for len(p) > 0 {
		n := min(len(p), len(zeros))
		if !bytes.Equal(p[:n], zeros[:n]) {
			return false
		}
		p = p[n:]
	}
	return true
}
