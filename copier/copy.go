package copier

import (
	"context"
	"os"
	"runtime"

	"github.com/zeebo/blake3"
	"golang.org/x/sys/unix"
)

// RangedMin is the size from which a file gets range digests, so that a copy
// that follows rewrites only what differs.
const RangedMin = 8 << 20

// pipelineMin is the size from which reading and writing may overlap. Below it,
// starting a goroutine costs more than it gains.
const pipelineMin = 4 << 20

// RangeDigest identifies the content of one range: xxh3-128. It only saves work:
// the digest of the whole file is what proves equality.
type RangeDigest [16]byte

// CopyOptions say how a file's data is copied.
type CopyOptions struct {
	// Sparse trusts the source's holes: only behind its fdatasync (an unflushed
	// file shows holes over real data), and worth it only where Attr.Sparse.
	// Without it every byte is read and every byte written, zeros included.
	Sparse bool
	// Prealloc makes holes of what the source's disk holds as unwritten and what
	// reads as zeros, for Preallocate to fill: once such a stretch was read, the
	// kernel reports it as data. Only together with Sparse.
	Prealloc bool
	// Punch makes holes of ranges that read as zeros, without Sparse: else a sparse file that
	// must be read byte by byte would fill the target with zeros.
	Punch bool
	// NoRanges is for a file that is hole for the most part: digests of its ranges would
	// take more than they save.
	NoRanges bool
	// Fresh says that the target is a new, empty file: no stat, no truncation.
	Fresh bool
	// Ranges are the digests of what the target holds now. Ranges that digest
	// the same are not written; the target is never read. Empty: all are written.
	Ranges []RangeDigest
	// RangeSize is the bytes of a range: a multiple of 64 KiB, 1 MiB when zero.
	RangeSize int
	// Overlap reads and hashes in a goroutine of its own while this one writes:
	// sooner done with one file, but for more processor time in all, since the
	// data changes caches. For when fewer large files are under way than there
	// are processors.
	Overlap bool
	// WriteBehind starts the target's writeback as the copy goes and drops its
	// pages behind it, so that a big copy neither fills memory with dirty pages
	// nor drowns an application's fsync at the end.
	WriteBehind bool
	Throttle    *Throttle // nil: as fast as it goes
	Buffers     *Buffers  // the worker's; nil: taken for the call
}

// CopyResult is what a copy did.
type CopyResult struct {
	Size    int64    // of the target now: less than asked for when the source ended earlier
	Read    int64    // bytes read from the source
	Written int64    // bytes written to the target
	Holes   int64    // bytes that are holes
	Skipped int64    // bytes of ranges that had not changed
	Digest  [32]byte // of the content, a hole being zeros: see DigestVersion
	// Ranges digest each range of a file of RangedMin or more; else nil.
	Ranges []RangeDigest
}

// CopyData makes the content of dst (writable) that of the first size bytes of
// src (readable). The target is truncated or extended exactly; where the source
// has trusted holes the target has them too. It syncs nothing. Errors are
// *SourceError, *TargetError or the context's; the target is then undefined.
func CopyData(ctx context.Context, src, dst *os.File, size int64, o CopyOptions) (CopyResult, error) {
	r, err := CopyFd(ctx, int(src.Fd()), int(dst.Fd()), size, o)
	runtime.KeepAlive(src)
	runtime.KeepAlive(dst)
	return r, err
}

// CopyFd is CopyData on plain descriptors.
func CopyFd(ctx context.Context, src, dst int, size int64, o CopyOptions) (CopyResult, error) {
	if o.Buffers == nil {
		o.Buffers = &Buffers{}
	}
	if o.RangeSize == 0 {
		o.RangeSize = dataBytes
	}
	old := int64(0)
	if !o.Fresh {
		var st unix.Statx_t
		if err := statx(dst, unix.STATX_SIZE, &st); err != nil {
			return CopyResult{}, targetError("stat", -1, err)
		}
		old = int64(st.Size)
	}
	if size <= dataBytes && !o.Sparse {
		return copySmall(ctx, src, dst, size, old, &o)
	}
	return copyLarge(ctx, src, dst, size, old, &o)
}

// copySmall is the hot path: one read, one write, no allocation.
func copySmall(ctx context.Context, src, dst int, size, old int64, o *CopyOptions) (CopyResult, error) {
	var r CopyResult
	if err := o.Throttle.Wait(ctx, int(size)); err != nil {
		return r, err
	}
	buf := o.Buffers.Data()[:size]
	n, err := preadFull(src, buf, 0)
	if err != nil {
		return r, sourceError("read", int64(n), err)
	}
	if err := pwriteFull(dst, buf[:n], 0); err != nil {
		return r, targetError("write", 0, err)
	}
	r.Size, r.Read, r.Written = int64(n), int64(n), int64(n)
	r.Digest = blake3.Sum256(buf[:n])
	if old > r.Size {
		if err := unix.Ftruncate(dst, r.Size); err != nil {
			return r, targetError("truncate", r.Size, err)
		}
	}
	return r, nil
}

// copyLarge copies a file range by range, or a small one with holes.
func copyLarge(ctx context.Context, src, dst int, size, old int64, o *CopyOptions) (CopyResult, error) {
	in := &source{fd: src, size: size, sparse: o.Sparse, punch: o.Punch && !o.Sparse, throttle: o.Throttle}
	if err := in.loadUnwritten(ctx, o); err != nil {
		return CopyResult{}, err
	}
	out := &sink{fd: dst, old: old, known: o.Ranges}
	if (o.Sparse || o.Punch) && size > old {
		// Writes that extend a file make xfs allocate ahead of them, and what it allocated
		// in front of a hole stays. Where this fails, the writes will say so.
		_ = unix.Ftruncate(dst, size)
	}
	if o.WriteBehind {
		out.behind = &writeBehind{}
	}
	if size >= RangedMin && !o.NoRanges {
		out.r.Ranges = make([]RangeDigest, 0, (size+int64(o.RangeSize)-1)/int64(o.RangeSize))
	}
	if size > dataBytes {
		_ = unix.Fadvise(src, 0, 0, unix.FADV_SEQUENTIAL) // doubles readahead; failing changes nothing
	}
	way := inTurn
	if o.Overlap && size >= pipelineMin {
		way = overlapped
	}
	digest, err := way(ctx, o.Buffers, in, o.RangeSize, out.r.Ranges != nil, out.write)
	if err != nil {
		return out.r, err
	}
	out.r.Digest = digest
	return out.finish(in.off)
}

// sink writes chunks to the target and keeps the account.
type sink struct {
	fd     int
	old    int64 // size of the target as it was found
	end    int64 // end of the furthest write
	behind *writeBehind
	known  []RangeDigest // of what the target holds
	r      CopyResult
}

func (s *sink) write(c *chunk) error {
	s.r.Read += c.read
	if c.ranged {
		for range c.ranges() {
			s.r.Ranges = append(s.r.Ranges, c.digest)
		}
		if s.holds(c) {
			s.r.Skipped += c.n
			return nil
		}
	}
	for _, run := range c.runs {
		if run.hole {
			s.r.Holes += run.n
			if err := s.punch(run); err != nil {
				return err
			}
			continue
		}
		at := run.off - c.off
		if err := pwriteFull(s.fd, c.buf[at:at+run.n], run.off); err != nil {
			return targetError("write", run.off, err)
		}
		s.r.Written += run.n
		s.end = run.off + run.n
	}
	return s.behind.wrote(s.fd, c.off+c.n)
}

// holds reports whether the target has all of c already.
func (s *sink) holds(c *chunk) bool {
	end := c.index + c.ranges()
	if end > len(s.known) || c.off+c.n > s.old {
		return false
	}
	for _, k := range s.known[c.index:end] {
		if k != c.digest {
			return false
		}
	}
	return true
}

// punch makes sure that the target reads zeros there, in a hole where it can.
func (s *sink) punch(h run) error {
	if h.off >= s.old {
		return nil // beyond what it had: a hole already
	}
	err := unix.Fallocate(s.fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, h.off, h.n)
	if err == nil {
		return nil
	}
	if !unsupported(err) {
		return targetError("punch hole", h.off, err)
	}
	for n := h.n; n > 0; {
		m := min(n, int64(len(zeros)))
		if err := pwriteFull(s.fd, zeros[:m], h.off+h.n-n); err != nil {
			return targetError("write", h.off+h.n-n, err)
		}
		n -= m
		s.r.Written += m
	}
	return nil
}

// finish gives the target its exact size.
func (s *sink) finish(size int64) (CopyResult, error) {
	s.r.Size = size
	if now := max(s.old, s.end); now != size {
		if err := unix.Ftruncate(s.fd, size); err != nil {
			return s.r, targetError("truncate", size, err)
		}
	}
	return s.r, nil
}

// writeBehindStep is how much is written before its writeback is started; the
// step before it is then waited for and dropped from memory.
const writeBehindStep = 8 << 20

type writeBehind struct {
	started, done int64
}

func (w *writeBehind) wrote(fd int, end int64) error {
	if w == nil || end-w.started < writeBehindStep {
		return nil
	}
	if err := unix.SyncFileRange(fd, w.started, end-w.started, unix.SYNC_FILE_RANGE_WRITE); err != nil {
		return targetError("start writeback", w.started, err)
	}
	if n := w.started - w.done; n > 0 {
		const wait = unix.SYNC_FILE_RANGE_WAIT_BEFORE | unix.SYNC_FILE_RANGE_WRITE | unix.SYNC_FILE_RANGE_WAIT_AFTER
		if err := unix.SyncFileRange(fd, w.done, n, wait); err != nil {
			return targetError("write back", w.done, err)
		}
		_ = unix.Fadvise(fd, w.done, n, unix.FADV_DONTNEED) // advice: failing changes nothing
	}
	w.done, w.started = w.started, end
	return nil
}
