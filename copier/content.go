package copier

import (
	"bytes"
	"context"
	"fmt"
)

// content compares what an object holds: data, or a link's target.
func (c *comparer) content(ctx context.Context, b *Buffers, fa, fb int, x, y *Attr) ([]Difference, error) {
	switch {
	case x.IsSymlink():
		s, errA := ReadLink(fa, b)
		t, errB := ReadLink(fb, b)
		switch {
		case errA != nil:
			return []Difference{unreadable(0, errA)}, nil
		case errB != nil:
			return []Difference{unreadable(1, errB)}, nil
		case s != t:
			return []Difference{{"target", Escape(s), Escape(t)}}, nil
		}
	case x.IsRegular():
		c.count(func(s *CompareStats) { s.Files++ })
		if c.o.NoData || x.Size != y.Size {
			return nil, nil // of different length: reported
		}
		return c.data(ctx, b, fa, fb, x.Size)
	}
	return nil, nil
}

// data compares byte by byte, half of the worker's buffer for each side.
func (c *comparer) data(ctx context.Context, b *Buffers, fa, fb int, size int64) ([]Difference, error) {
	half := len(b.Data()) / 2
	bufs := [2][]byte{b.Data()[:half], b.Data()[half:]}
	var holes [2]holeCursor
	fds := [2]int{fa, fb}
	var total int64
	defer func() { c.count(func(s *CompareStats) { s.Bytes += total }) }()
	for off := int64(0); off < size; {
		if c.o.Sparse {
			for i := range fds {
				if err := holes[i].seek(fds[i], off, size); err != nil {
					return []Difference{unreadable(i, err)}, nil
				}
			}
			if skip := min(holes[0].start, holes[1].start); skip > off {
				off = skip
				continue
			}
		}
		want := int(min(int64(half), size-off))
		if err := c.o.Throttle.Wait(ctx, want); err != nil {
			return nil, err
		}
		for i, fd := range fds {
			n, err := preadFull(fd, bufs[i][:want], off)
			if err == nil && n < want {
				err = ErrShort
			}
			if err != nil {
				return []Difference{unreadable(i, err)}, nil
			}
		}
		total += int64(want)
		if !bytes.Equal(bufs[0][:want], bufs[1][:want]) {
			at := firstDifference(bufs[0][:want], bufs[1][:want])
			return []Difference{{"data", fmt.Sprintf("%#02x at %d", bufs[0][at], off+int64(at)), fmt.Sprintf("%#02x", bufs[1][at])}}, nil
		}
		off += int64(want)
	}
	return nil, nil
}

func firstDifference(a, b []byte) int {
	for i := range a {
		if a[i] != b[i] {
			return i
		}
	}
	return len(a)
}
