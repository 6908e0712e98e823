package ext

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"os"

	"golang.org/x/sys/unix"

	"github.com/fsmigrate/fsmigrate/formats"
)

// ScanKind is the Kind of a ScanInfo made here.
const ScanKind = "ext-inode-table"

// ErrNeedsRecovery says that the journal holds what the tables do not.
var ErrNeedsRecovery = errors.New("the journal was not replayed and the file system is not mounted")

const rootIno = 2

// Scan reads the raw inode table of t.Device. Records come in ascending order of
// inode numbers. since is ignored. A scan before the fence reads the tables
// ahead: the one behind it then finds them in memory.
func (f *format) Scan(ctx context.Context, t formats.ScanTarget, since uint64, fn func(formats.InodeRecord) error) (formats.ScanInfo, error) {
	return f.ScanBatch(ctx, t, since, formats.Each(fn))
}

// ScanBatch is Scan in batches.
func (f *format) ScanBatch(ctx context.Context, t formats.ScanTarget, _ uint64, fn func([]formats.InodeRecord) error) (formats.ScanInfo, error) {
	dev, err := os.OpenFile(t.Device, os.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return formats.ScanInfo{}, fmt.Errorf("scan %s: %w", t.Device, err)
	}
	defer dev.Close()
	mounted := t.MountFD > 0
	if mounted {
		if err := sameDevice(dev, t.MountFD); err != nil {
			return formats.ScanInfo{}, fmt.Errorf("scan %s: %w", t.Device, err)
		}
	}
	size, err := dev.Seek(0, io.SeekEnd)
	if err != nil {
		return formats.ScanInfo{}, fmt.Errorf("scan %s: %w", t.Device, err)
	}
	info, err := scan(ctx, dev, size, mounted, func(off, n int64) {
		// Advice only: a failure costs speed, not correctness.
		_ = unix.Fadvise(int(dev.Fd()), off, n, unix.FADV_WILLNEED)
	}, fn)
	if err != nil {
		return info, fmt.Errorf("scan %s: %w", t.Device, err)
	}
	return info, nil
}

// sameDevice sees to it that dev is the very device that is mounted: the page
// cache of a partition and of the disk below it are two, and only the first is
// the file system's.
func sameDevice(dev *os.File, mountFD int) error {
	var d, m unix.Stat_t
	if err := unix.Fstat(int(dev.Fd()), &d); err != nil {
		return err
	}
	if err := unix.Fstat(mountFD, &m); err != nil {
		return err
	}
	if d.Mode&unix.S_IFMT != unix.S_IFBLK || d.Rdev != m.Dev {
		return fmt.Errorf("the file system is mounted from device %d:%d, not from this one", unix.Major(m.Dev), unix.Minor(m.Dev))
	}
	return nil
}

// ScanImage scans an unmounted image through r.
func ScanImage(ctx context.Context, r io.ReaderAt, size int64, fn func([]formats.InodeRecord) error) (formats.ScanInfo, error) {
	return scan(ctx, r, size, false, func(int64, int64) {}, fn)
}

// pieceBytes is one read of the inode table: large enough for a disk, small
// enough that it is decoded while it is still in the processor's cache.
const pieceBytes = 256 << 10

// scanner is what the workers of one scan share.
type scanner struct {
	r      io.ReaderAt
	s      *super
	d      decoder
	ahead  func(off, n int64)
	mapLen int
}

// groupJob is one group on its way through the workers. Its batches come out of
// out, which is closed after the last one; err is set before that.
type groupJob struct {
	n   uint32
	g   group
	out chan []formats.InodeRecord
	err error
}

func (sc *scanner) skip(ino uint64) bool {
	if ino < uint64(sc.s.FirstIno) {
		return ino != rootIno
	}
	return ino == uint64(sc.s.PrjQuotaIno) || ino == uint64(sc.s.OrphanIno) || ino == uint64(sc.s.JournalIno)
}

// runGroup decodes one group into batches. emit takes a batch over and returns
// an empty one, or nil to stop.
func (sc *scanner) runGroup(n uint32, g group, bitmap, piece []byte, batch []formats.InodeRecord, emit func([]formats.InodeRecord) []formats.InodeRecord) ([]formats.InodeRecord, error) {
	if err := sc.s.checkGroup(n, g); err != nil {
		return batch, err
	}
	if _, err := sc.r.ReadAt(bitmap[:sc.mapLen], int64(g.bitmap)*sc.s.BlockSize); err != nil {
		return batch, fmt.Errorf("read inode bitmap of group %d: %w", n, err)
	}
	per, size := int(sc.s.InodesPerGroup), sc.s.InodeSize
	first, last := bitBounds(bitmap, per)
	if first < 0 {
		return batch, nil
	}
	table := int64(g.table) * sc.s.BlockSize
	sc.ahead(table+int64(first*size), int64((last-first+1)*size))
	step := len(piece) / size
	for at := first; at <= last; at += step {
		k := min(step, last+1-at)
		lo, hi := bitBoundsIn(bitmap, at, at+k)
		if lo < 0 {
			continue
		}
		raw := piece[:(hi-lo+1)*size]
		if _, err := sc.r.ReadAt(raw, table+int64(lo*size)); err != nil {
			return batch, fmt.Errorf("read inode table of group %d: %w", n, err)
		}
		base := uint64(n)*uint64(per) + 1
		for i := lo; i <= hi; i++ {
			ino := base + uint64(i)
			if bitmap[i>>3]&(1<<(i&7)) == 0 || sc.skip(ino) {
				continue
			}
			off := (i - lo) * size
			batch = batch[:len(batch)+1]
			if !sc.d.decode(raw[off:off+size], ino, &batch[len(batch)-1]) {
				batch = batch[:len(batch)-1]
			} else if len(batch) == cap(batch) {
				if batch = emit(batch); batch == nil {
					return nil, nil
				}
			}
		}
	}
	return batch, nil
}

// bitBounds finds the first and last of n bits that are set; -1 where none is.
func bitBounds(bitmap []byte, n int) (first, last int) { return bitBoundsIn(bitmap, 0, n) }

func bitBoundsIn(bitmap []byte, from, to int) (first, last int) {
	first, last = -1, -1
	for i := from; i < to; {
		if i&7 == 0 && to-i >= 8 && bitmap[i>>3] == 0 {
			i += 8
			continue
		}
		if bitmap[i>>3]&(1<<(i&7)) != 0 {
			first = i
			break
		}
		i++
	}
	if first < 0 {
		return -1, -1
	}
	for i := to - 1; i >= first; {
		b := bitmap[i>>3] & (0xff >> (7 - i&7))
		if b != 0 {
			last = i&^7 + bits.Len8(b) - 1
			break
		}
		i = i&^7 - 1
	}
	return first, last
}
