package btrfs

import (
	"fmt"
	"io"
	"math"
	"strconv"
	"time"

	"github.com/fsmigrate/fsmigrate/formats"
)

type format struct{}

func init() { formats.Register(format{}) }

func (format) Name() string { return "btrfs" }

// LabelMax is BTRFS_LABEL_SIZE less its zero byte.
func (format) LabelMax() int { return 255 }

// Check is btrfs check, which reads only unless told otherwise.
func (format) Check(device string) []string {
	return []string{"btrfs", "check", "--readonly", device}
}

// Tools: 5.15 made no-holes and the free space tree the default.
func (format) Tools() []formats.Tool {
	return []formats.Tool{{Name: "mkfs.btrfs", Arg: "--version", Min: "5.15"}, {Name: "btrfs", Arg: "--version", Min: "5.15"}}
}

func (format) MountOptions(formats.Volume) map[string]string { return map[string]string{} }

// Probe reads the first superblock.
func (format) Probe(r io.ReaderAt, size int64) (formats.Volume, error) {
	s, err := readSuper(r, size)
	if err != nil {
		return formats.Volume{}, err
	}
	bs := uint64(s.SectorSize)
	return formats.Volume{
		Format: "btrfs", Version: "1",
		UUID:  fmt.Sprintf("%x-%x-%x-%x-%x", s.FSID[0:4], s.FSID[4:6], s.FSID[6:8], s.FSID[8:10], s.FSID[10:]),
		Label: s.Label, Bytes: int64(s.Total), BlockSize: int64(bs), Blocks: s.Total / bs, FreeBlocks: (s.Total - s.Used) / bs,
		Features: s.features(), Clean: s.LogRoot == 0, NeedsRecovery: s.LogRoot != 0,
		Limits: layout{nodeSize: int(s.NodeSize), sectorSize: int(s.SectorSize), extref: s.Incompat&incompatExtref != 0}.limits(),
		Props:  s.props(),
	}, nil
}

func (s *super) props() map[string]string {
	bit := func(on bool) string {
		if on {
			return "1"
		}
		return "0"
	}
	return map[string]string{
		"nodesize": strconv.Itoa(int(s.NodeSize)), "sectorsize": strconv.Itoa(int(s.SectorSize)),
		"csum": csumNames[s.CsumType], "devices": strconv.FormatUint(s.Devices, 10),
		"generation":       strconv.FormatUint(s.Generation, 10),
		"no_holes":         bit(s.Incompat&incompatNoHoles != 0),
		"extref":           bit(s.Incompat&incompatExtref != 0),
		"skinny_metadata":  bit(s.Incompat&incompatSkinny != 0),
		"mixed":            bit(s.Incompat&incompatMixed != 0),
		"default_subvol":   bit(s.Incompat&incompatDefaultSubvol != 0),
		"zoned":            bit(s.Incompat&incompatZoned != 0),
		"free_space_tree":  bit(s.ROCompat&roFreeSpaceTree != 0),
		"verity":           bit(s.ROCompat&roVerity != 0),
		"block_group_tree": bit(s.ROCompat&roBlockGroupTree != 0),
	}
}

// layout is what limits depend on.
type layout struct {
	nodeSize, sectorSize int
	extref               bool
}

const (
	headerSize  = 101 // struct btrfs_header
	itemSize    = 25  // struct btrfs_item
	dirItemSize = 30  // struct btrfs_dir_item, also in front of an attribute
	inlineHead  = 21  // struct btrfs_file_extent_item as far as inline data
)

func (l layout) limits() formats.Limits {
	item := l.nodeSize - headerSize - itemSize
	out := formats.Limits{
		NameBytes: 255, UIDBits: 32, GIDBits: 32,
		TimeMin: math.MinInt64, TimeMax: math.MaxInt64, TimeGranularity: time.Nanosecond,
		// The format could 2^64-1; no kernel can.
		MaxFile: math.MaxInt64, MaxLinks: 65535,
		SymlinkBytes:    min(item-inlineHead, l.sectorSize-1, 4095),
		XattrValueBytes: min(item-dirItemSize, 65536), XattrPairBytes: item - dirItemSize,
		Flags: formats.FlagSync | formats.FlagImmutable | formats.FlagAppend | formats.FlagNoDump | formats.FlagNoAtime |
			formats.FlagDirSync | formats.FlagCompress | formats.FlagNoCompress | formats.FlagNoCow,
		Records: formats.Xattr | formats.ACL | formats.Caps | formats.Reflink | formats.Holes | formats.Prealloc |
			formats.BirthTime | formats.Generation | formats.Mode | formats.Symlinks | formats.Specials,
	}
	if !l.extref {
		out.MaxLinks = 20 // of long names in one directory: what surely fits one node
	}
	return out
}
