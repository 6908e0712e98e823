package xfs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/fsmigrate/fsmigrate/formats"
)

const (
	magic = 0x58465342 // "XFSB"

	features2Ftype = 0x0200
	features2Proj  = 0x0080

	roFinobt     = 1 << 0
	roRmapbt     = 1 << 1
	roReflink    = 1 << 2
	roInobtcount = 1 << 3

	incompatFtype       = 1 << 0
	incompatSparse      = 1 << 1
	incompatMetaUUID    = 1 << 2
	incompatBigtime     = 1 << 3
	incompatNeedsrepair = 1 << 4
	incompatNrext64     = 1 << 5
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// super is the part of the superblock that is used here.
type super struct {
	BlockSize                uint32
	Blocks                   uint64
	UUID                     [16]byte
	AGBlocks, AGCount        uint32
	LogStart                 uint64
	LogBlocks                uint32
	Version                  uint16 // 4 or 5
	SectorSize, InodeSize    uint16
	Label                    string
	InProgress               bool
	IMaxPct                  uint8
	Icount, Ifree, FreeData  uint64
	DirBlockLog              uint8
	Features2                uint32
	ROCompat, Incompat       uint32
	VersionNum               uint16
	AGBlkLog, InodesPerBlLog uint8
}

var errChecksum = errors.New("superblock checksum is wrong")

// readSuper reads the first sector. A mounted file system may be writing it just
// now, so a wrong checksum is read again before it is believed.
func readSuper(r io.ReaderAt, size int64) (*super, error) {
	var s *super
	var err error
	for range 5 {
		var head [512]byte
		if _, err = r.ReadAt(head[:], 0); err != nil {
			if errors.Is(err, io.EOF) {
				return nil, fmt.Errorf("read xfs superblock: %w", formats.ErrNotThis)
			}
			return nil, fmt.Errorf("read xfs superblock: %w", err)
		}
		if binary.BigEndian.Uint32(head[:]) != magic {
			return nil, fmt.Errorf("xfs magic: %w", formats.ErrNotThis)
		}
		sect := int(binary.BigEndian.Uint16(head[102:]))
		if sect < 512 || sect > 32768 || sect&(sect-1) != 0 {
			return nil, fmt.Errorf("xfs: sector size %d is not possible", sect)
		}
		buf := make([]byte, sect)
		if _, err = r.ReadAt(buf, 0); err != nil {
			return nil, fmt.Errorf("read xfs superblock: %w", err)
		}
		if s, err = parseSuper(buf); !errors.Is(err, errChecksum) {
			break
		}
	}
	if err != nil {
		return nil, err
	}
	if size > 0 && s.bytes() > size {
		return nil, fmt.Errorf("xfs: the file system has %d bytes, the volume %d: truncated", s.bytes(), size)
	}
	return s, nil
}

func (s *super) bytes() int64 { return int64(s.Blocks) * int64(s.BlockSize) }

// parseSuper decodes one sector of at least 512 bytes.
func parseSuper(b []byte) (*super, error) {
	if len(b) < 512 || binary.BigEndian.Uint32(b) != magic {
		return nil, fmt.Errorf("xfs magic: %w", formats.ErrNotThis)
	}
	be32 := func(off int) uint32 { return binary.BigEndian.Uint32(b[off:]) }
	be64 := func(off int) uint64 { return binary.BigEndian.Uint64(b[off:]) }
	s := &super{
		BlockSize: be32(4), Blocks: be64(8), LogStart: be64(48), AGBlocks: be32(84), AGCount: be32(88),
		LogBlocks: be32(96), VersionNum: binary.BigEndian.Uint16(b[100:]),
		SectorSize: binary.BigEndian.Uint16(b[102:]), InodeSize: binary.BigEndian.Uint16(b[104:]),
		Label: cstring(b[108:120]), InodesPerBlLog: b[123], AGBlkLog: b[124], InProgress: b[126] != 0, IMaxPct: b[127],
		Icount: be64(128), Ifree: be64(136), FreeData: be64(144), DirBlockLog: b[192], Features2: be32(200),
	}
	copy(s.UUID[:], b[32:48])
	s.Version = s.VersionNum & 0xf
	switch s.Version {
	case 4:
	case 5:
		// The stored checksum counts as zero in its own computation.
		sum := crc32.Update(0, castagnoli, b[:224])
		sum = crc32.Update(sum, castagnoli, make([]byte, 4))
		sum = crc32.Update(sum, castagnoli, b[228:])
		if stored := binary.LittleEndian.Uint32(b[224:]); stored != sum {
			return nil, fmt.Errorf("xfs: %w (stored %#x, computed %#x)", errChecksum, stored, sum)
		}
		s.ROCompat, s.Incompat = be32(212), be32(216)
	default:
		return nil, fmt.Errorf("xfs: version %d is not supported by any current kernel", s.Version)
	}
	return s, s.check()
}

func (s *super) check() error {
	bad := func(format string, a ...any) error { return fmt.Errorf("xfs: "+format, a...) }
	switch {
	case s.BlockSize < 512 || s.BlockSize > 65536 || s.BlockSize&(s.BlockSize-1) != 0:
		return bad("block size %d is not possible", s.BlockSize)
	case s.InodeSize < 256 || s.InodeSize > 2048 || s.InodeSize&(s.InodeSize-1) != 0:
		return bad("inode size %d is not possible", s.InodeSize)
	case s.AGBlocks == 0 || s.AGCount == 0:
		return bad("%d allocation groups of %d blocks are not possible", s.AGCount, s.AGBlocks)
	case s.Blocks == 0 || s.Blocks > (1<<63-1)/uint64(s.BlockSize):
		return bad("%d blocks are not possible", s.Blocks)
	case s.Blocks > uint64(s.AGBlocks)*uint64(s.AGCount) || s.Blocks <= uint64(s.AGBlocks)*uint64(s.AGCount-1):
		return bad("%d groups of %d blocks do not make %d", s.AGCount, s.AGBlocks, s.Blocks)
	case s.Ifree > s.Icount:
		// Both are written lazily and may be stale after a crash, never nonsense in themselves.
		s.Ifree = s.Icount
	}
	return nil
}

func (s *super) ftype() bool {
	return s.Version == 5 && s.Incompat&incompatFtype != 0 || s.Version == 4 && s.Features2&features2Ftype != 0
}

func cstring(b []byte) string {
	for i, c := range b {
		if c == 0 {
			return string(b[:i])
		}
	}
	return string(b)
}

// features by the names xfs_info prints.
func (s *super) features() []string {
	var out []string
	add := func(on bool, name string) {
		if on {
			out = append(out, name)
		}
	}
	v5 := s.Version == 5
	add(v5, "crc")
	add(s.ftype(), "ftype")
	add(v5 && s.ROCompat&roFinobt != 0, "finobt")
	add(v5 && s.ROCompat&roRmapbt != 0, "rmapbt")
	add(v5 && s.ROCompat&roReflink != 0, "reflink")
	add(v5 && s.ROCompat&roInobtcount != 0, "inobtcount")
	add(v5 && s.Incompat&incompatSparse != 0, "sparse")
	add(v5 && s.Incompat&incompatMetaUUID != 0, "meta_uuid")
	add(v5 && s.Incompat&incompatBigtime != 0, "bigtime")
	add(v5 && s.Incompat&incompatNeedsrepair != 0, "needsrepair")
	add(v5 && s.Incompat&incompatNrext64 != 0, "nrext64")
	return out
}
