package xfs

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

func (format) Name() string { return "xfs" }

// LabelMax is sb_fname's size.
func (format) LabelMax() int { return 12 }

// Check is xfs_repair that changes nothing. It refuses a log to be replayed.
func (format) Check(device string) []string { return []string{"xfs_repair", "-n", device} }

// Tools: bigtime and inobtcount came with xfsprogs 5.10, nrext64 with 5.19.
func (format) Tools() []formats.Tool {
	return []formats.Tool{{Name: "mkfs.xfs", Arg: "-V", Min: "5.10"}, {Name: "xfs_repair", Arg: "-V", Min: "5.10"}}
}

func (format) MountOptions(formats.Volume) map[string]string { return map[string]string{} }

// Probe reads the superblock. The free counts are those of its last write: on a
// mounted volume statfs knows better.
func (format) Probe(r io.ReaderAt, size int64) (formats.Volume, error) {
	s, err := readSuper(r, size)
	if err != nil {
		return formats.Volume{}, err
	}
	needsRepair := s.Version == 5 && s.Incompat&incompatNeedsrepair != 0
	return formats.Volume{
		Format: "xfs", Version: "V" + strconv.Itoa(int(s.Version)),
		UUID: fmt.Sprintf("%x-%x-%x-%x-%x", s.UUID[0:4], s.UUID[4:6], s.UUID[6:8], s.UUID[8:10], s.UUID[10:]), Label: s.Label,
		Bytes: s.bytes(), BlockSize: int64(s.BlockSize), InodeSize: int(s.InodeSize),
		Inodes: s.maxInodes(), FreeInodes: s.maxInodes() - min(s.Icount-s.Ifree, s.maxInodes()),
		Blocks: s.Blocks, FreeBlocks: min(s.FreeData, s.Blocks),
		Features: s.features(), Clean: !s.InProgress && !needsRepair,
		Limits: s.layout().limits(), Props: s.props(),
	}, nil
}

// maxInodes is how many there may be: imaxpct of the space.
func (s *super) maxInodes() uint64 {
	pct := uint64(s.IMaxPct)
	if pct == 0 || pct > 100 {
		pct = 100
	}
	blocks := s.Blocks/100*pct + s.Blocks%100*pct/100
	return blocks * uint64(s.BlockSize/min(uint32(s.InodeSize), s.BlockSize))
}

func (s *super) props() map[string]string {
	bit := func(on bool) string {
		if on {
			return "1"
		}
		return "0"
	}
	v5 := s.Version == 5
	return map[string]string{
		"crc": bit(v5), "ftype": bit(s.ftype()),
		"bigtime":     bit(v5 && s.Incompat&incompatBigtime != 0),
		"reflink":     bit(v5 && s.ROCompat&roReflink != 0),
		"rmapbt":      bit(v5 && s.ROCompat&roRmapbt != 0),
		"finobt":      bit(v5 && s.ROCompat&roFinobt != 0),
		"inobtcount":  bit(v5 && s.ROCompat&roInobtcount != 0),
		"sparse":      bit(v5 && s.Incompat&incompatSparse != 0),
		"nrext64":     bit(v5 && s.Incompat&incompatNrext64 != 0),
		"needsrepair": bit(v5 && s.Incompat&incompatNeedsrepair != 0),
		"inode_size":  strconv.Itoa(int(s.InodeSize)), "block_size": strconv.Itoa(int(s.BlockSize)),
		"sector_size": strconv.Itoa(int(s.SectorSize)), "agcount": strconv.FormatUint(uint64(s.AGCount), 10),
		"imaxpct": strconv.Itoa(int(s.IMaxPct)), "external_log": bit(s.LogStart == 0),
	}
}

// layout is what limits depend on.
type layout struct {
	v5, bigtime, reflink, project bool
}

func (s *super) layout() layout {
	v5 := s.Version == 5
	return layout{v5: v5, bigtime: v5 && s.Incompat&incompatBigtime != 0, reflink: v5 && s.ROCompat&roReflink != 0,
		project: v5 || s.Features2&features2Proj != 0}
}

const timeMaxBig = 16299260424 // XFS_BIGTIME_TIME_MAX as seconds since 1970, 2486-07-02

func (l layout) limits() formats.Limits {
	out := formats.Limits{
		NameBytes: 255, UIDBits: 32, GIDBits: 32,
		TimeMin: math.MinInt32, TimeMax: math.MaxInt32, TimeGranularity: time.Nanosecond,
		MaxFile: math.MaxInt64, MaxLinks: math.MaxInt32, SymlinkBytes: 1023,
		DeviceMajorBits: 9, DeviceMinorBits: 18, // xfs_vn_mknod, sysv_valid_dev
		XattrValueBytes: 65536,
		Flags: formats.FlagSync | formats.FlagImmutable | formats.FlagAppend | formats.FlagNoDump | formats.FlagNoAtime |
			formats.FlagProjInherit,
		Records: formats.Xattr | formats.ACL | formats.Caps | formats.Project | formats.Holes | formats.Prealloc |
			formats.Generation | formats.Mode | formats.Symlinks | formats.Specials,
	}
	// A directory's ".." of every child counts as a link of its own.
	out.MaxSubdirs = out.MaxLinks - 2
	if l.v5 {
		out.Records |= formats.BirthTime
		out.Flags |= formats.FlagDAX
	}
	if l.bigtime {
		out.TimeMax = timeMaxBig
	}
	if l.reflink {
		out.Records |= formats.Reflink
	}
	return out
}
