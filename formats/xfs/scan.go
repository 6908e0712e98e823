package xfs

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"runtime"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/fsmigrate/fsmigrate/blockdev/memgroup"
	"github.com/fsmigrate/fsmigrate/formats"
)

// ScanKind is the Kind of a ScanInfo made here.
const ScanKind = "xfs-bulkstat"

const (
	iocBulkstat   = 0x8040587f // _IOR('X', 127, struct xfs_bulk_ireq)
	iocFSGeometry = 0x8100587e // _IOR('X', 126, struct xfs_fsop_geom)

	ireqAGNo    = 1 << 0
	ireqNrext64 = 1 << 2

	handleIno64 = 0x81 // FILEID_INO32_GEN | XFS_FILEID_TYPE_64FLAG

	ireqSize = 64
	statSize = 192

	perCall = 1024 // inodes an ioctl: 192 KiB

	inodeMemory = 1024 // bytes that the kernel's inode takes, at least (xfs_inode in slabinfo)
)

// Scan asks bulkstat, one allocation group after the other, several at a time.
// Records ascend within a group; groups come mixed. t.Device and since are not used.
func (f format) Scan(ctx context.Context, t formats.ScanTarget, since uint64, fn func(formats.InodeRecord) error) (formats.ScanInfo, error) {
	return f.ScanBatch(ctx, t, since, formats.Each(fn))
}

// ScanBatch is Scan in batches.
func (format) ScanBatch(ctx context.Context, t formats.ScanTarget, _ uint64, fn func([]formats.InodeRecord) error) (formats.ScanInfo, error) {
	info := formats.ScanInfo{Kind: ScanKind}
	if t.MountFD <= 0 {
		return info, fmt.Errorf("scan xfs: needs the mounted file system")
	}
	ags, err := agCount(t.MountFD)
	if err != nil {
		return info, fmt.Errorf("scan xfs: %w", err)
	}
	workers := min(int(ags), max(2, runtime.NumCPU()), 8)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	sc := &bulkScan{fd: t.MountFD, ctx: ctx, memory: memgroup.New(), ags: make(chan uint32), full: make(chan []formats.InodeRecord, workers), free: make(chan []formats.InodeRecord, 3*workers)}
	var feeder, wg sync.WaitGroup
	feeder.Add(1)
	go func() {
		defer feeder.Done()
		defer close(sc.ags)
		for ag := range ags {
			select {
			case sc.ags <- ag:
			case <-ctx.Done():
				return
			}
		}
	}()
	errs := make([]error, workers)
	for i := range workers {
		wg.Add(1)
		go func() {
			defer wg.Done()
			if errs[i] = sc.run(); errs[i] != nil {
				cancel()
			}
		}()
	}
	go func() { wg.Wait(); close(sc.full) }()
	var fnErr error
	for batch := range sc.full {
		if fnErr == nil {
			if fnErr = fn(batch); fnErr != nil {
				cancel()
				continue
			}
			info.Inodes += int64(len(batch))
		}
		select {
		case sc.free <- batch[:0]:
		default:
		}
	}
	feeder.Wait()
	if fnErr != nil {
		return info, fnErr
	}
	for _, err := range errs { // the cause, not the cancellation that it led to
		if err != nil && err != context.Canceled {
			return info, fmt.Errorf("scan xfs: %w", err)
		}
	}
	return info, ctx.Err()
}

type bulkScan struct {
	fd         int
	ctx        context.Context
	memory     *memgroup.Keeper
	ags        chan uint32
	full, free chan []formats.InodeRecord
}

func (sc *bulkScan) run() error {
	buf := make([]byte, ireqSize+perCall*statSize)
	for ag := range sc.ags {
		if err := sc.group(ag, buf); err != nil {
			return err
		}
	}
	return nil
}

func (sc *bulkScan) group(ag uint32, buf []byte) error {
	ne := binary.NativeEndian
	clear(buf[:ireqSize])
	flags := uint32(ireqAGNo | ireqNrext64)
	for {
		if err := sc.ctx.Err(); err != nil {
			return err
		}
		ne.PutUint32(buf[8:], flags)
		ne.PutUint32(buf[12:], perCall)
		ne.PutUint32(buf[16:], 0)
		ne.PutUint32(buf[20:], ag)
		err := ioctl(sc.fd, iocBulkstat, unsafe.Pointer(&buf[0]))
		if err == unix.EINVAL && flags&ireqNrext64 != 0 {
			flags &^= ireqNrext64 // Linux before 5.19
			continue
		}
		if err != nil {
			return os.NewSyscallError("bulkstat", err)
		}
		n := int(ne.Uint32(buf[16:]))
		if n == 0 {
			return nil
		}
		if n > perCall {
			return fmt.Errorf("bulkstat: %d records where %d were asked for", n, perCall)
		}
		batch := sc.take()
		for i := range n {
			batch = append(batch, decode(buf[ireqSize+i*statSize:][:statSize]))
		}
		if err := sc.memory.Room(sc.ctx, int64(n)*inodeMemory, func() { sc.recall(batch) }); err != nil {
			return err
		}
		select {
		case sc.full <- batch:
		case <-sc.ctx.Done():
			return sc.ctx.Err()
		}
	}
}

// recall has the kernel keep a few of these inodes in the group's list of what it can let go
// of. Bulkstat's are in none, and a group whose list is empty does not ask the file
// system, which would let go of all of them.
func (sc *bulkScan) recall(batch []formats.InodeRecord) {
	const few = 8
	var fid [12]byte // struct xfs_fid64: ino u64, gen u32
	opened := 0
	for i := range batch {
		r := &batch[i]
		if r.Nlink == 0 || r.Mode&unix.S_IFMT == unix.S_IFDIR { // a directory's parents would be looked up
			continue
		}
		binary.NativeEndian.PutUint64(fid[:], r.Ino)
		binary.NativeEndian.PutUint32(fid[8:], r.Gen)
		fd, err := unix.OpenByHandleAt(sc.fd, unix.NewFileHandle(handleIno64, fid[:]), unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC)
		if err != nil {
			continue // gone meanwhile
		}
		unix.Close(fd)
		if opened++; opened == few {
			return
		}
	}
}

func (sc *bulkScan) take() []formats.InodeRecord {
	select {
	case b := <-sc.free:
		return b
	default:
		return make([]formats.InodeRecord, 0, perCall)
	}
}

// decode reads one struct xfs_bulkstat.
func decode(b []byte) formats.InodeRecord {
	ne := binary.NativeEndian
	_ = b[statSize-1]
	return formats.InodeRecord{
		Ino: ne.Uint64(b), Size: ne.Uint64(b[8:]),
		MtimeSec: int64(ne.Uint64(b[40:])), CtimeSec: int64(ne.Uint64(b[48:])),
		Gen: ne.Uint32(b[64:]), UID: ne.Uint32(b[68:]), GID: ne.Uint32(b[72:]),
		MtimeNsec: ne.Uint32(b[84:]), CtimeNsec: ne.Uint32(b[88:]),
		Nlink: ne.Uint32(b[112:]), Mode: uint32(ne.Uint16(b[132:])),
	}
}

// agCount asks for the geometry: blocksize, rtextsize, agblocks, agcount, each u32.
func agCount(fd int) (uint32, error) {
	var geom [256]byte
	if err := ioctl(fd, iocFSGeometry, unsafe.Pointer(&geom)); err != nil {
		return 0, os.NewSyscallError("xfs geometry", err)
	}
	return binary.NativeEndian.Uint32(geom[12:]), nil
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
