package copier

import (
	"context"
	"errors"
	"os"
	"runtime"

	"github.com/zeebo/blake3"
	"golang.org/x/sys/unix"
)

// DigestOptions say how a file is read back.
type DigestOptions struct {
	// Direct reads the disk, not what the page cache believes: O_DIRECT, or where
	// the file system refuses that, pages dropped and read again. The file must
	// have been synced.
	Direct bool
	// Sparse skips holes, and is for files that were synced.
	Sparse bool
	// Ranges asks for range digests too, for files of RangedMin or more.
	Ranges bool
	// Overlap hashes while it reads on: worth it with Direct, which has no readahead.
	Overlap   bool
	RangeSize int       // 1 MiB when zero, as in CopyOptions
	Throttle  *Throttle // nil: as fast as it goes
	Buffers   *Buffers  // the worker's; nil: taken for the call
}

// ErrShort says that a file ended before the size that was asked for.
var ErrShort = errors.New("file is shorter than expected")

// Digest is the digest (see DigestVersion) of the first size bytes of f, which must have that many.
// Its errors are *SourceError: f is what is read, whichever volume it is on.
func Digest(ctx context.Context, f *os.File, size int64, o DigestOptions) ([32]byte, error) {
	d, _, err := DigestFd(ctx, int(f.Fd()), size, o)
	runtime.KeepAlive(f)
	return d, err
}

// DigestFd is Digest on a plain descriptor, with the digests of the ranges.
func DigestFd(ctx context.Context, fd int, size int64, o DigestOptions) ([32]byte, []RangeDigest, error) {
	if o.Buffers == nil {
		o.Buffers = &Buffers{}
	}
	if o.RangeSize == 0 {
		o.RangeSize = dataBytes
	}
	in := source{fd: fd, size: size, sparse: o.Sparse, throttle: o.Throttle}
	if o.Direct && size > 0 {
		_ = unix.Fadvise(fd, 0, 0, unix.FADV_DONTNEED) // what falls back to buffered reads must not find old pages
		if dfd, ok := openDirect(fd); ok {
			defer unix.Close(dfd)
			in.fd, in.direct = dfd, true
		}
	}
	d, ranges, err := digestSource(ctx, in, &o)
	if in.direct && errors.Is(err, unix.EINVAL) { // opened, but refused at the first read
		in.fd, in.direct, in.off, in.index, in.cursor = fd, false, 0, 0, holeCursor{}
		d, ranges, err = digestSource(ctx, in, &o)
	}
	return d, ranges, err
}

func digestSource(ctx context.Context, in source, o *DigestOptions) (d [32]byte, ranges []RangeDigest, err error) {
	var end int64
	if in.size <= dataBytes {
		d, end, err = digestSmall(ctx, &in, o.Buffers)
	} else {
		large := in
		d, ranges, err = digestLarge(ctx, &large, o)
		end = large.off
	}
	if err == nil && end < in.size {
		err = sourceError("read", end, ErrShort)
	}
	return d, ranges, err
}

// digestSmall is the hot path: one read, no allocation.
func digestSmall(ctx context.Context, in *source, b *Buffers) ([32]byte, int64, error) {
	c := chunk{buf: b.Data(), runs: b.runs[:0]}
	err := in.next(ctx, &c)
	b.runs = c.runs
	if err != nil {
		return [32]byte{}, 0, err
	}
	if c.hole {
		return blake3.Sum256(zeros[:c.n]), in.off, nil
	}
	return blake3.Sum256(c.buf[:c.n]), in.off, nil
}

func digestLarge(ctx context.Context, in *source, o *DigestOptions) ([32]byte, []RangeDigest, error) {
	var ranges []RangeDigest
	ranged := o.Ranges && in.size >= RangedMin
	way := inTurn
	if o.Overlap && in.size >= pipelineMin {
		way = overlapped
	}
	d, err := way(ctx, o.Buffers, in, o.RangeSize, ranged, func(c *chunk) error {
		if ranged {
			for range c.ranges() {
				ranges = append(ranges, c.digest)
			}
		}
		return nil
	})
	return d, ranges, err
}

// openDirect reopens a file for reads that bypass the page cache, when its file
// system takes reads aligned to a page.
func openDirect(fd int) (int, bool) {
	var st unix.Statx_t
	if statx(fd, unix.STATX_DIOALIGN, &st) == nil && st.Mask&unix.STATX_DIOALIGN != 0 &&
		(st.Dio_offset_align == 0 || st.Dio_offset_align > pageBytes || st.Dio_mem_align > pageBytes) {
		return -1, false
	}
	dfd, err := Reopen(fd, unix.O_RDONLY|unix.O_DIRECT|unix.O_NOATIME)
	return dfd, err == nil
}
