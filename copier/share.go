package copier

import (
	"context"
	"encoding/binary"
	"errors"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ExtentIndex remembers which target file holds what came from where on the
// source's disk. It only ever proposes: the kernel compares before it shares, so
// an index that is stale, lossy or shared by workers costs nothing but savings.
type ExtentIndex interface {
	// Lookup returns a recorded stretch that overlaps the source's bytes
	// [phys, phys+n), the one with the lowest Phys if there are several, and not
	// one that lies at off of the file being copied itself.
	Lookup(phys uint64, n int64) (SharedExtent, bool)
	// Record says that the file being copied holds, from off, the source's bytes
	// [phys, phys+n), which other files share.
	Record(phys uint64, n int64, off int64) error
}

// SharedExtent is a stretch of a target file.
type SharedExtent struct {
	Phys uint64 // where its content lay on the source
	Len  int64
	Off  int64 // in the target file
	// Open opens the file for reading; the caller closes it. An error means
	// that the file is gone and is no failure.
	Open func() (fd int, err error)
}

// ErrNoShare says that the target cannot share extents.
var ErrNoShare = errors.New("file system cannot share extents")

// dedupeMax is what one FIDEDUPERANGE compares and shares: kernels differ in
// what they take above it.
const dedupeMax = 16 << 20

// ShareExtents makes dst (writable), a finished copy of src, share with other
// target files what src shares with other source files, and returns how many
// bytes it shares now. Both were synced (extents that are not on the disk are
// not seen). Errors of the index are returned as they are.
func ShareExtents(ctx context.Context, src, dst int, index ExtentIndex) (int64, error) {
	var st unix.Statx_t
	if err := statx(dst, unix.STATX_SIZE, &st); err != nil {
		return 0, targetError("stat", -1, err)
	}
	s := sharer{ctx: ctx, dst: dst, size: int64(st.Size), block: max(int64(st.Blksize), 512), index: index}
	if s.block > pageBytes*16 { // st_blksize may be an I/O hint; blocks are no larger than this
		s.block = pageBytes
	}
	var failed error
	err := Extents(ctx, src, func(e Extent) error {
		if e.Flags&ExtentShared == 0 || e.Flags&(ExtentUnwritten|extentInline) != 0 {
			return nil
		}
		failed = s.extent(e)
		return failed
	})
	if failed != nil {
		return s.shared, failed
	}
	if err != nil && ctx.Err() == nil {
		err = sourceError("map extents", -1, err)
	}
	return s.shared, err
}

type sharer struct {
	ctx    context.Context
	dst    int
	size   int64
	block  int64
	index  ExtentIndex
	shared int64
}

// extent goes through one shared extent of the source: what the index knows is
// shared, what it does not is recorded for those that come later.
func (s *sharer) extent(e Extent) error {
	n := min(e.Len, s.size-e.Off)
	for pos := int64(0); pos < n; {
		if err := s.ctx.Err(); err != nil {
			return err
		}
		phys := e.Phys + uint64(pos)
		hit, ok := s.index.Lookup(phys, n-pos)
		if !ok {
			return s.index.Record(phys, n-pos, e.Off+pos)
		}
		if hit.Phys > phys {
			gap := min(int64(hit.Phys-phys), n-pos)
			if err := s.index.Record(phys, gap, e.Off+pos); err != nil {
				return err
			}
			pos += gap
			continue
		}
		skip := int64(phys - hit.Phys)
		m := min(hit.Len-skip, n-pos)
		if m <= 0 {
			return s.index.Record(phys, n-pos, e.Off+pos)
		}
		if err := s.dedupe(hit, skip, e.Off+pos, m); err != nil {
			return err
		}
		pos += m
	}
	return nil
}

func (s *sharer) dedupe(hit SharedExtent, skip, off, n int64) error {
	fd, err := hit.Open()
	if err != nil {
		return nil // gone: what was proposed is not there
	}
	defer unix.Close(fd)
	from := hit.Off + skip
	if (from-off)%s.block != 0 {
		return nil // the source's blocks are smaller and lie across the target's
	}
	if lead := (s.block - off%s.block) % s.block; lead > 0 {
		from, off, n = from+lead, off+lead, n-lead
	}
	for n > 0 {
		m := min(n, dedupeMax)
		done, err := dedupeRange(fd, from, s.dst, off, m)
		if err != nil {
			return err
		}
		s.shared += done
		if done < m {
			return nil // differs, or a tail that is no whole block
		}
		from, off, n = from+m, off+m, n-m
	}
	return nil
}

// dedupeRange shares n bytes if they are equal and returns how many it shared.
func dedupeRange(src int, srcOff int64, dst int, dstOff, n int64) (int64, error) {
	// struct file_dedupe_range with one file_dedupe_range_info.
	var arg [24 + 32]byte
	binary.NativeEndian.PutUint64(arg[0:], uint64(srcOff))
	binary.NativeEndian.PutUint64(arg[8:], uint64(n))
	binary.NativeEndian.PutUint16(arg[16:], 1)
	binary.NativeEndian.PutUint64(arg[24:], uint64(dst))
	binary.NativeEndian.PutUint64(arg[32:], uint64(dstOff))
	if err := ioctl(src, unix.FIDEDUPERANGE, unsafe.Pointer(&arg)); err != nil {
		return 0, dedupeError(dstOff, err)
	}
	done := int64(binary.NativeEndian.Uint64(arg[40:]))
	if status := int32(binary.NativeEndian.Uint32(arg[48:])); status < 0 {
		return 0, dedupeError(dstOff, unix.Errno(-status))
	} else if status != unix.FILE_DEDUPE_RANGE_SAME {
		return 0, nil
	}
	return done, nil
}

func dedupeError(off int64, err error) error {
	switch {
	case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOTTY), errors.Is(err, unix.EXDEV):
		return ErrNoShare
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ETXTBSY):
		return nil // misaligned, overlapping itself, or a swap file: not shared
	}
	return targetError("share extents", off, err)
}
