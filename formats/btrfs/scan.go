package btrfs

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/fsmigrate/fsmigrate/formats"
)

// ScanKind is the Kind of a ScanInfo made here.
const ScanKind = "btrfs-tree-search"

const (
	iocTreeSearch2 = 0xc0709411 // _IOWR(0x94, 17, struct btrfs_ioctl_search_args_v2)
	iocFSInfo      = 0x8400941f // _IOR(0x94, 31, struct btrfs_ioctl_fs_info_args)

	argsSize   = 112
	itemHeader = 32
	searchBuf  = 1 << 20

	typeInodeItem  = 1
	typeRootRef    = 156
	inodeItemSize  = 160
	firstFreeID    = 256
	lastFreeID     = ^uint64(255) // (u64)-256
	rootTree       = 1
	infoGeneration = 1 << 1 // BTRFS_FS_INFO_FLAG_GENERATION, Linux 5.10
)

// Scan searches the tree of the subvolume that t.MountFD is on, in ascending
// order of inode numbers. With since it delivers at least every inode that
// changed in that transaction or later: what shares a leaf with one comes too.
// Memory is bounded by one search.
func (f format) Scan(ctx context.Context, t formats.ScanTarget, since uint64, fn func(formats.InodeRecord) error) (formats.ScanInfo, error) {
	return f.ScanBatch(ctx, t, since, formats.Each(fn))
}

// ScanBatch is Scan in batches.
func (format) ScanBatch(ctx context.Context, t formats.ScanTarget, since uint64, fn func([]formats.InodeRecord) error) (formats.ScanInfo, error) {
	info := formats.ScanInfo{Kind: ScanKind}
	if t.MountFD <= 0 {
		return info, fmt.Errorf("scan btrfs: needs the mounted file system")
	}
	// Before the search: what changes meanwhile has this transaction or a later one.
	gen, err := generation(t.MountFD)
	if err != nil {
		return info, fmt.Errorf("scan btrfs: %w", err)
	}
	info.Generation = gen
	if committed(t.Device) >= gen {
		// That transaction is over and all of it is in the tree: the next scan
		// need not read again what it wrote.
		info.Generation = gen + 1
	}
	batch := make([]formats.InodeRecord, 0, formats.ScanBatchSize)
	flush := func() error {
		if len(batch) == 0 {
			return nil
		}
		if err := fn(batch); err != nil {
			return err
		}
		info.Inodes += int64(len(batch))
		batch = batch[:0]
		return nil
	}
	s := search{fd: t.MountFD, minTransid: since, buf: make([]byte, argsSize+searchBuf)}
	s.min, s.max = key{objectid: firstFreeID}, key{lastFreeID, typeInodeItem, ^uint64(0)}
	err = s.each(ctx, func(k key, item []byte) error {
		if k.typ != typeInodeItem || len(item) < inodeItemSize {
			return nil
		}
		batch = append(batch, decode(k.objectid, item))
		if len(batch) == cap(batch) {
			return flush()
		}
		return nil
	})
	if err == nil {
		err = flush()
	}
	return info, err
}

// decode reads one INODE_ITEM.
func decode(objectid uint64, b []byte) formats.InodeRecord {
	le := binary.LittleEndian
	_ = b[inodeItemSize-1]
	return formats.InodeRecord{
		Ino: objectid, Gen: uint32(le.Uint64(b)), Size: le.Uint64(b[16:]),
		Nlink: le.Uint32(b[40:]), UID: le.Uint32(b[44:]), GID: le.Uint32(b[48:]), Mode: le.Uint32(b[52:]),
		CtimeSec: int64(le.Uint64(b[124:])), CtimeNsec: le.Uint32(b[132:]),
		MtimeSec: int64(le.Uint64(b[136:])), MtimeNsec: le.Uint32(b[144:]),
	}
}

type key struct {
	objectid uint64
	typ      uint32
	offset   uint64
}

// next is the key that follows k; false behind the last one.
func (k key) next() (key, bool) {
	switch {
	case k.offset < ^uint64(0):
		k.offset++
	case k.typ < 255:
		k.typ, k.offset = k.typ+1, 0
	case k.objectid < ^uint64(0):
		k.objectid, k.typ, k.offset = k.objectid+1, 0, 0
	default:
		return k, false
	}
	return k, true
}

// search is a walk over one tree between two keys.
type search struct {
	fd         int
	tree       uint64 // 0: the descriptor's subvolume
	min, max   key
	minTransid uint64
	buf        []byte
}

func (s *search) each(ctx context.Context, fn func(k key, item []byte) error) error {
	ne := binary.NativeEndian
	at := s.min
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		b := s.buf
		clear(b[:argsSize])
		ne.PutUint64(b[0:], s.tree)
		ne.PutUint64(b[8:], at.objectid)
		ne.PutUint64(b[16:], s.max.objectid)
		ne.PutUint64(b[24:], at.offset)
		ne.PutUint64(b[32:], s.max.offset)
		ne.PutUint64(b[40:], s.minTransid)
		ne.PutUint64(b[48:], ^uint64(0))
		ne.PutUint32(b[56:], at.typ)
		ne.PutUint32(b[60:], s.max.typ)
		ne.PutUint32(b[64:], ^uint32(0))
		ne.PutUint64(b[104:], uint64(len(b)-argsSize))
		if err := ioctl(s.fd, iocTreeSearch2, unsafe.Pointer(&b[0])); err != nil {
			return os.NewSyscallError("btrfs tree search", err)
		}
		n := int(ne.Uint32(b[64:]))
		if n == 0 {
			return nil
		}
		last, err := items(b[argsSize:], n, fn)
		if err != nil {
			return err
		}
		var more bool
		if at, more = last.next(); !more {
			return nil
		}
	}
}

// items walks n items in buf and returns the last one's key.
func items(buf []byte, n int, fn func(k key, item []byte) error) (last key, err error) {
	ne := binary.NativeEndian
	for range n {
		if len(buf) < itemHeader {
			return last, fmt.Errorf("btrfs tree search: an item ends behind the buffer")
		}
		last = key{ne.Uint64(buf[8:]), ne.Uint32(buf[24:]), ne.Uint64(buf[16:])}
		size := int(ne.Uint32(buf[28:]))
		buf = buf[itemHeader:]
		if size > len(buf) {
			return last, fmt.Errorf("btrfs tree search: an item of %d bytes ends behind the buffer", size)
		}
		if err := fn(last, buf[:size]); err != nil {
			return last, err
		}
		buf = buf[size:]
	}
	return last, nil
}

// Subvolumes lists the ids of the subvolumes and snapshots below the top level.
// They are trees of their own that neither a scan nor a walk of one volume
// contains.
func Subvolumes(ctx context.Context, fd int) ([]uint64, error) {
	var out []uint64
	s := search{fd: fd, tree: rootTree, buf: make([]byte, argsSize+64<<10)}
	s.min, s.max = key{objectid: 5}, key{lastFreeID, typeRootRef, ^uint64(0)}
	err := s.each(ctx, func(k key, _ []byte) error {
		if k.typ == typeRootRef && (k.objectid == 5 || k.objectid >= firstFreeID) {
			out = append(out, k.offset)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list subvolumes: %w", err)
	}
	return out, nil
}

// committed is the generation of the superblock on the device; 0 where it
// cannot be read, which only makes the next scan longer.
func committed(device string) uint64 {
	f, err := os.Open(device)
	if err != nil {
		return 0
	}
	defer f.Close()
	s, err := readSuper(f, 0)
	if err != nil {
		return 0
	}
	return s.Generation
}

// generation is the file system's, of the transaction that runs or ran last.
func generation(fd int) (uint64, error) {
	var info [1024]byte
	binary.NativeEndian.PutUint64(info[48:], infoGeneration)
	if err := ioctl(fd, iocFSInfo, unsafe.Pointer(&info)); err != nil {
		return 0, os.NewSyscallError("btrfs file system info", err)
	}
	if binary.NativeEndian.Uint64(info[48:])&infoGeneration == 0 {
		return 0, fmt.Errorf("btrfs file system info: no generation (Linux 5.10 or newer is needed)")
	}
	return binary.NativeEndian.Uint64(info[56:]), nil
}

func ioctl(fd int, req uintptr, arg unsafe.Pointer) error {
	for {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), req, uintptr(arg))
		if errno == 0 {
			return nil
		}
		if errno != unix.EINTR {
			return errno
		}
	}
}
