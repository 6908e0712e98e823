package btrfs

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/cespare/xxhash/v2"

	"github.com/fsmigrate/fsmigrate/formats"
)

const (
	superOffset = 64 << 10
	superSize   = 4096
)

var magic = []byte("_BHRfS_M")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

const (
	roFreeSpaceTree  = 1 << 0
	roVerity         = 1 << 2
	roBlockGroupTree = 1 << 3

	incompatDefaultSubvol = 1 << 1
	incompatMixed         = 1 << 2
	incompatExtref        = 1 << 6
	incompatSkinny        = 1 << 8
	incompatNoHoles       = 1 << 9
	incompatZoned         = 1 << 12
)

var csumNames = [...]string{"crc32c", "xxhash", "sha256", "blake2"}

var incompatNames = [...]string{"mixed_backref", "default_subvol", "mixed_groups", "compress_lzo", "compress_zstd",
	"big_metadata", "extended_iref", "raid56", "skinny_metadata", "no_holes", "metadata_uuid", "raid1c34", "zoned",
	"extent_tree_v2", "raid_stripe_tree", "", "simple_quota"}

var roNames = [...]string{"free_space_tree", "free_space_tree_valid", "verity", "block_group_tree"}

// super is the part of the superblock that is used here.
type super struct {
	FSID                 [16]byte
	Generation, LogRoot  uint64
	Total, Used          uint64
	Devices              uint64
	DevBytes             uint64
	SectorSize, NodeSize uint32
	ROCompat, Incompat   uint64
	CsumType             uint16
	Label                string
}

var errChecksum = errors.New("superblock checksum is wrong")

// readSuper reads the first superblock. A mounted file system writes it at every
// commit, so a wrong checksum is read again before it is believed.
func readSuper(r io.ReaderAt, size int64) (*super, error) {
	var buf [superSize]byte
	var s *super
	var err error
	for range 5 {
		if _, err = r.ReadAt(buf[:], superOffset); err != nil {
			if errors.Is(err, io.EOF) {
				return nil, fmt.Errorf("read btrfs superblock: %w", formats.ErrNotThis)
			}
			return nil, fmt.Errorf("read btrfs superblock: %w", err)
		}
		if s, err = parseSuper(buf[:]); !errors.Is(err, errChecksum) {
			break
		}
	}
	if err != nil {
		return nil, err
	}
	if size > 0 && s.DevBytes > uint64(size) {
		return nil, fmt.Errorf("btrfs: the file system has %d bytes on this device, the volume %d: truncated", s.DevBytes, size)
	}
	return s, nil
}

// parseSuper decodes 4096 bytes.
func parseSuper(b []byte) (*super, error) {
	if len(b) < superSize || !bytes.Equal(b[64:72], magic) {
		return nil, fmt.Errorf("btrfs magic: %w", formats.ErrNotThis)
	}
	le32 := func(off int) uint32 { return binary.LittleEndian.Uint32(b[off:]) }
	le64 := func(off int) uint64 { return binary.LittleEndian.Uint64(b[off:]) }
	s := &super{
		Generation: le64(72), LogRoot: le64(96), Total: le64(112), Used: le64(120), Devices: le64(136),
		SectorSize: le32(144), NodeSize: le32(148), ROCompat: le64(180), Incompat: le64(188),
		CsumType: binary.LittleEndian.Uint16(b[196:]), DevBytes: le64(209), Label: cstring(b[299:555]),
	}
	copy(s.FSID[:], b[32:48])
	if err := s.verify(b); err != nil {
		return nil, err
	}
	bad := func(format string, a ...any) (*super, error) { return nil, fmt.Errorf("btrfs: "+format, a...) }
	switch {
	case le64(48) != superOffset:
		return bad("this superblock belongs at %d", le64(48))
	case s.SectorSize < 4096 || s.SectorSize > 65536 || s.SectorSize&(s.SectorSize-1) != 0:
		return bad("sector size %d is not possible", s.SectorSize)
	case s.NodeSize < s.SectorSize || s.NodeSize > 65536 || s.NodeSize&(s.NodeSize-1) != 0:
		return bad("node size %d is not possible", s.NodeSize)
	case s.Total == 0 || s.Total > 1<<63-1 || s.Used > s.Total:
		return bad("%d bytes used of %d are not possible", s.Used, s.Total)
	case s.Devices == 0 || s.DevBytes == 0 || s.DevBytes > s.Total:
		return bad("%d devices, this one of %d bytes, are not possible", s.Devices, s.DevBytes)
	}
	return s, nil
}

func (s *super) verify(b []byte) error {
	var ok bool
	switch s.CsumType {
	case 0:
		ok = binary.LittleEndian.Uint32(b) == crc32.Checksum(b[32:superSize], castagnoli)
	case 1:
		ok = binary.LittleEndian.Uint64(b) == xxhash.Sum64(b[32:superSize])
	case 2:
		sum := sha256.Sum256(b[32:superSize])
		ok = bytes.Equal(b[:32], sum[:])
	case 3:
		ok = true
	default:
		return fmt.Errorf("btrfs: checksum type %d is unknown", s.CsumType)
	}
	if !ok {
		return fmt.Errorf("btrfs: %w", errChecksum)
	}
	return nil
}

func (s *super) features() []string {
	var out []string
	for i, name := range incompatNames {
		if s.Incompat&(1<<i) != 0 && name != "" {
			out = append(out, name)
		}
	}
	for i, name := range roNames {
		if s.ROCompat&(1<<i) != 0 {
			out = append(out, name)
		}
	}
	return out
}

func cstring(b []byte) string {
	if i := bytes.IndexByte(b, 0); i >= 0 {
		b = b[:i]
	}
	return string(b)
}
