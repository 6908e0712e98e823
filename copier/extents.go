package copier

import (
	"context"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Extent is a stretch of a file as it lies on the disk.
type Extent struct {
	Off   int64  // in the file
	Phys  uint64 // on the volume; an identity to compare, not to read: btrfs maps it again
	Len   int64
	Flags uint32
}

// What an extent's flags say (linux/fiemap.h).
const (
	ExtentLast      = 0x0001
	extentUnknown   = 0x0002 // not yet on the disk
	extentDelalloc  = 0x0004
	extentInline    = 0x0200
	ExtentUnwritten = 0x0800 // preallocated: reads zeros
	ExtentShared    = 0x2000
)

const (
	fsIocFiemap  = 0xc020660b
	extentsBatch = 256
)

// fiemap is struct fiemap with room for extentsBatch extents.
type fiemap struct {
	start, length uint64
	flags         uint32
	mapped, count uint32
	_             uint32
	extents       [extentsBatch]struct {
		logical, physical, length uint64
		_                         [2]uint64
		flags                     uint32
		_                         [3]uint32
	}
}

// Extents calls fn for the extents of fd in order, those beyond its size too.
// What was not written back yet is not on the disk, and not in here: sync first.
// A file system without the call has none.
func Extents(ctx context.Context, fd int, fn func(Extent) error) error {
	var m fiemap
	for start := uint64(0); ; {
		if err := ctx.Err(); err != nil {
			return err
		}
		m.start, m.length, m.flags, m.mapped, m.count = start, ^uint64(0)-start, 0, 0, extentsBatch
		if err := ioctl(fd, fsIocFiemap, unsafe.Pointer(&m)); err != nil {
			if unsupported(err) {
				return nil
			}
			return err
		}
		for _, e := range m.extents[:min(m.mapped, extentsBatch)] {
			start = e.logical + e.length
			if e.flags&(extentUnknown|extentDelalloc) == 0 {
				if err := fn(Extent{int64(e.logical), e.physical, int64(e.length), e.flags}); err != nil {
					return err
				}
			}
			if e.flags&ExtentLast != 0 {
				return nil
			}
		}
		if m.mapped == 0 {
			return nil
		}
	}
}

// xflagPrealloc marks an xfs file whose blocks beyond its end an application
// asked for; without it they are xfs's own speculation, gone when it is closed.
const xflagPrealloc = 0x00000002

// Preallocate gives dst (writable) the preallocated, unwritten extents of src,
// inside and beyond its size, and returns how many bytes that were. The source
// must have been synced, and its data copied with holes. A target that cannot
// hold them is left without: the fit says so.
func Preallocate(ctx context.Context, src, dst int) (int64, error) {
	var st unix.Statx_t
	if err := statx(src, unix.STATX_SIZE, &st); err != nil {
		return 0, sourceError("stat", -1, err)
	}
	tail := true
	if isXFS(src) {
		var x fsxattr
		tail = getFSX(src, &x) == nil && x.xflags&xflagPrealloc != 0
	}
	var total int64
	err := Extents(ctx, src, func(e Extent) error {
		if e.Flags&ExtentUnwritten == 0 {
			return nil
		}
		if !tail {
			e.Len = min(e.Len, roundUp(int64(st.Size))-e.Off)
			if e.Len <= 0 {
				return nil
			}
		}
		if err := unix.Fallocate(dst, unix.FALLOC_FL_KEEP_SIZE, e.Off, e.Len); err != nil {
			if unsupported(err) {
				return nil
			}
			return targetError("preallocate", e.Off, err)
		}
		total += e.Len
		return nil
	})
	if err != nil && ctx.Err() == nil {
		err = sideOr(err, "map extents")
	}
	return total, err
}

// sideOr makes err the source's unless it is already the target's.
func sideOr(err error, op string) error {
	if isTarget(err) {
		return err
	}
	return sourceError(op, -1, err)
}

func roundUp(n int64) int64 { return (n + pageBytes - 1) &^ (pageBytes - 1) }
