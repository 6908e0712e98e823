package ext

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/fsmigrate/fsmigrate/formats"
)

const (
	superOffset = 1024
	superSize   = 1024
	magic       = 0xef53

	stateValid  = 1
	stateErrors = 2
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// super is the part of the superblock that is used here, checked for being
// consistent in itself.
type super struct {
	Inodes, FreeInodes        uint32
	Blocks, FreeBlocks        uint64
	FirstData                 uint32
	BlockSize, ClusterSize    int64
	BlocksPerGroup            uint32
	InodesPerGroup            uint32
	State                     uint16
	Creator, Revision         uint32
	FirstIno                  uint32
	InodeSize                 int
	Compat, Incompat, ROCompt uint32
	UUID                      [16]byte
	Label                     string
	DescSize                  int
	FirstMetaBG               uint32
	ReservedBlocks            uint64
	BackupBGs                 [2]uint32
	ErrorCount                uint32
	FirstErrorTime            int64
	FirstErrorFunc            string
	LastErrorTime             int64
	LastErrorFunc             string
	PrjQuotaIno, OrphanIno    uint32
	JournalIno                uint32
	LogFlexGroups             uint8
	Groups                    uint32
}

func (s *super) compat(bit uint32) bool   { return s.Compat&bit != 0 }
func (s *super) incompat(bit uint32) bool { return s.Incompat&bit != 0 }
func (s *super) roCompat(bit uint32) bool { return s.ROCompt&bit != 0 }

// groupChecksums reports whether itable_unused and the UNINIT flags mean anything.
func (s *super) groupChecksums() bool { return s.roCompat(roGDTCsum | roMetadataCsum) }

var errChecksum = errors.New("superblock checksum is wrong")

// readSuper reads and checks the superblock. A mounted file system updates it in
// place, so a wrong checksum is read again before it is believed.
func readSuper(r io.ReaderAt, size int64) (*super, error) {
	var buf [superSize]byte
	var s *super
	var err error
	for range 5 {
		if _, err = r.ReadAt(buf[:], superOffset); err != nil {
			if errors.Is(err, io.EOF) {
				return nil, fmt.Errorf("read ext superblock: %w", formats.ErrNotThis)
			}
			return nil, fmt.Errorf("read ext superblock: %w", err)
		}
		if s, err = parseSuper(buf[:]); !errors.Is(err, errChecksum) {
			break
		}
	}
	if err != nil {
		return nil, err
	}
	if size > 0 && s.bytes() > size {
		return nil, fmt.Errorf("ext: the file system has %d bytes, the volume %d: truncated", s.bytes(), size)
	}
	return s, nil
}

// bytes is the size of the file system; parseSuper saw to it that it does not overflow.
func (s *super) bytes() int64 { return int64(s.Blocks) * s.BlockSize }

// parseSuper decodes 1024 bytes.
func parseSuper(b []byte) (*super, error) {
	if len(b) < superSize || le16(b, 56) != magic {
		return nil, fmt.Errorf("ext magic: %w", formats.ErrNotThis)
	}
	s := &super{
		Inodes: le32(b, 0), FreeInodes: le32(b, 16), FirstData: le32(b, 20),
		BlocksPerGroup: le32(b, 32), InodesPerGroup: le32(b, 40),
		State: le16(b, 58), Creator: le32(b, 72), Revision: le32(b, 76),
		FirstIno: 11, InodeSize: 128, DescSize: 32,
	}
	s.Blocks = uint64(le32(b, 4))
	s.FreeBlocks = uint64(le32(b, 12))
	s.ReservedBlocks = uint64(le32(b, 8))
	logBlock, logCluster := le32(b, 24), le32(b, 28)
	if s.Revision > 1 {
		return nil, fmt.Errorf("ext: unknown revision %d", s.Revision)
	}
	if logBlock > 6 {
		return nil, fmt.Errorf("ext: block size 1024<<%d is not possible", logBlock)
	}
	s.BlockSize = 1024 << logBlock
	s.ClusterSize = s.BlockSize
	if s.Revision == 1 {
		s.parseDynamic(b)
	}
	if s.roCompat(roMetadataCsum) {
		// crc32c as ext4 has it is not inverted at the end.
		if got := ^crc32.Checksum(b[:1020], castagnoli); got != le32(b, 1020) {
			return nil, fmt.Errorf("ext: %w (stored %#x, computed %#x)", errChecksum, le32(b, 1020), got)
		}
	}
	if s.roCompat(roBigalloc) {
		if logCluster < logBlock || logCluster > 20 {
			return nil, fmt.Errorf("ext: cluster size 1024<<%d is not possible", logCluster)
		}
		s.ClusterSize = 1024 << logCluster
	}
	return s, s.check()
}

func (s *super) parseDynamic(b []byte) {
	s.FirstIno, s.InodeSize = le32(b, 84), int(le16(b, 88))
	s.Compat, s.Incompat, s.ROCompt = le32(b, 92), le32(b, 96), le32(b, 100)
	copy(s.UUID[:], b[104:120])
	s.Label = cstring(b[120:136])
	s.JournalIno = le32(b, 224)
	s.FirstMetaBG = le32(b, 260)
	if s.incompat(incompat64bit) {
		s.DescSize = int(le16(b, 254))
		s.Blocks |= uint64(le32(b, 336)) << 32
		s.ReservedBlocks |= uint64(le32(b, 340)) << 32
		s.FreeBlocks |= uint64(le32(b, 344)) << 32
	}
	s.LogFlexGroups = b[372]
	s.ErrorCount = le32(b, 404)
	s.FirstErrorTime = int64(le32(b, 408)) | int64(b[632])<<32
	s.FirstErrorFunc = cstring(b[424:456])
	s.LastErrorTime = int64(le32(b, 460)) | int64(b[633])<<32
	s.LastErrorFunc = cstring(b[480:512])
	s.BackupBGs = [2]uint32{le32(b, 588), le32(b, 592)}
	s.PrjQuotaIno, s.OrphanIno = le32(b, 620), le32(b, 640)
}

// check refuses what would make later arithmetic wrong; the bounds are those of
// the kernel's ext4_fill_super.
func (s *super) check() error {
	bad := func(format string, a ...any) error { return fmt.Errorf("ext: "+format, a...) }
	if s.incompat(incompatJournalDev) {
		return fmt.Errorf("ext external journal: %w", formats.ErrNotThis)
	}
	if s.InodeSize < 128 || int64(s.InodeSize) > s.BlockSize || s.InodeSize&(s.InodeSize-1) != 0 {
		return bad("inode size %d is not possible", s.InodeSize)
	}
	if s.DescSize < 32 || int64(s.DescSize) > s.BlockSize || s.DescSize&(s.DescSize-1) != 0 {
		return bad("descriptor size %d is not possible", s.DescSize)
	}
	perBitmap := uint32(s.BlockSize * 8)
	ratio := uint32(s.ClusterSize / s.BlockSize)
	if s.InodesPerGroup == 0 || s.InodesPerGroup > perBitmap {
		return bad("%d inodes a group are not possible", s.InodesPerGroup)
	}
	if s.BlocksPerGroup == 0 || s.BlocksPerGroup/ratio > perBitmap {
		return bad("%d blocks a group are not possible", s.BlocksPerGroup)
	}
	if s.Blocks > uint64(1<<63-1)/uint64(s.BlockSize) || s.Blocks <= uint64(s.FirstData) {
		return bad("%d blocks are not possible", s.Blocks)
	}
	groups := (s.Blocks - uint64(s.FirstData) + uint64(s.BlocksPerGroup) - 1) / uint64(s.BlocksPerGroup)
	if groups > 1<<32-1 || groups*uint64(s.InodesPerGroup) != uint64(s.Inodes) {
		return bad("%d groups of %d inodes do not make %d", groups, s.InodesPerGroup, s.Inodes)
	}
	if s.FirstIno < 11 && s.Revision == 1 {
		return bad("first inode %d is not possible", s.FirstIno)
	}
	s.Groups = uint32(groups)
	return nil
}

func le16(b []byte, off int) uint16 { return binary.LittleEndian.Uint16(b[off:]) }
func le32(b []byte, off int) uint32 { return binary.LittleEndian.Uint32(b[off:]) }

func cstring(b []byte) string {
	for i, c := range b {
		if c == 0 {
			return string(b[:i])
		}
	}
	return string(b)
}
