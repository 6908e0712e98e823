package ext

import (
	"math"
	"time"

	"github.com/fsmigrate/fsmigrate/formats"
)

// layout is what limits and costs depend on.
type layout struct {
	kind               string
	inodeSize          int
	blockSize          int64
	extents, hugeFile  bool
	dirNlink, largeDir bool
	eaInode, dirIndex  bool
	project, casefold  bool
	bits64             bool
}

const (
	timeMin32    = math.MinInt32
	timeMax32    = math.MaxInt32
	timeMaxExtra = 15032385535 // EXT4_EXTRA_TIMESTAMP_MAX, 2446-05-10

	linkMax      = 65000 // EXT4_LINK_MAX
	linkMaxExt23 = 32000 // EXT2_LINK_MAX: what a driver of their own, and older kernels, allow

	xattrBlockHead = 32 + 4 // the block's header and the zero word behind the entries
	xattrEntry     = 16
	xattrBodyHead  = 4 + 4 // the in-inode magic and the zero word
	extraIsize     = 32    // what the kernel uses of a large inode
)

// flagsUser are the flags that ext4 stores and lets a user set (EXT4_FL_USER_MODIFIABLE).
const flagsUser = formats.FlagSecRm | formats.FlagUnRm | formats.FlagCompress | formats.FlagSync |
	formats.FlagImmutable | formats.FlagAppend | formats.FlagNoDump | formats.FlagNoAtime |
	formats.FlagJournalData | formats.FlagNoTail | formats.FlagDirSync | formats.FlagTopDir

func (l layout) limits() formats.Limits {
	out := formats.Limits{
		NameBytes: 255, UIDBits: 32, GIDBits: 32,
		TimeMin: timeMin32, TimeMax: timeMax32, TimeGranularity: time.Second,
		MaxFile: l.maxFile(), MaxLinks: linkMax, MaxSubdirs: linkMax - 2,
		MaxVolume: math.MaxInt64, MaxInodes: math.MaxUint32,
		SymlinkBytes:    int(min(l.blockSize-1, 4095)),
		XattrEntryBytes: xattrEntry, XattrValueBytes: 65536,
		Flags: flagsUser,
		Records: formats.Xattr | formats.ACL | formats.Caps | formats.Holes | formats.Generation |
			formats.Mode | formats.Symlinks | formats.Specials,
	}
	if l.kind != "ext4" {
		out.MaxLinks, out.MaxSubdirs = linkMaxExt23, linkMaxExt23-2
	}
	if l.dirNlink && l.dirIndex {
		out.MaxSubdirs = 0
	}
	out.DirBytesMax = l.dirBytes()
	if !l.bits64 {
		out.MaxVolume = math.MaxUint32 * l.blockSize
	}
	if l.inodeSize > 128 {
		out.TimeMax, out.TimeGranularity = timeMaxExtra, time.Nanosecond
		out.Records |= formats.BirthTime
		out.XattrSpaces[0] = l.inodeSize - 128 - extraIsize - xattrBodyHead
	}
	if l.extents {
		out.Records |= formats.Prealloc
	}
	if l.project {
		out.Records |= formats.Project
		out.Flags |= formats.FlagProjInherit
	}
	if l.casefold {
		out.Records |= formats.Casefold
		out.Flags |= formats.FlagCasefold
	}
	if !l.eaInode {
		out.XattrSpaces[1] = int(l.blockSize) - xattrBlockHead
		out.XattrTotalBytes = out.XattrSpaces[0] + out.XattrSpaces[1]
		out.XattrValueBytes = int(l.blockSize) - xattrBlockHead - xattrEntry - 4
	}
	return out
}

// maxFile is s_maxbytes for extents, s_bitmap_maxbytes for block maps
// (ext4_max_size, ext4_max_bitmap_size).
func (l layout) maxFile() int64 {
	shift := 0
	for int64(1)<<shift < l.blockSize {
		shift++
	}
	upper := int64(math.MaxInt64)
	if !l.hugeFile {
		upper = (1<<32 - 1) >> (shift - 9) << shift // i_blocks counts 512 bytes in 32 bits
	}
	if l.extents {
		return min(upper, (1<<32-1)<<shift)
	}
	ppb := l.blockSize / 4
	blocks := 12 + ppb + ppb*ppb + ppb*ppb*ppb
	meta := 1 + (1 + ppb) + (1 + ppb + ppb*ppb)
	limit := int64(1)<<48 - 1 // blocks of 512 bytes in i_blocks with huge_file
	if !l.hugeFile {
		limit = (1<<32 - 1) >> (shift - 9)
	}
	if blocks+meta <= limit {
		return blocks << shift
	}
	// i_blocks is full before the tree is: what maps the data counts there too.
	data := limit
	rest := data - 12 - ppb
	meta = 1
	if rest < ppb*ppb {
		meta += 1 + (rest+ppb-1)/ppb
	} else {
		rest -= ppb * ppb
		meta += 1 + ppb + 1 + (rest+ppb-1)/ppb + (rest+ppb*ppb-1)/(ppb*ppb)
	}
	return (data - meta) << shift
}

// dirBytes is what surely fits a directory: a linear one ends at 2 GiB, a hashed
// one when the root of its index is full. Then a leaf has less than half of what
// it could have, as have index blocks: 37 % of everything at 1 KiB blocks (6.0 MB:
// 308,000 names of 10 bytes, or 94,000 of 56), of which a third is promised.
func (l layout) dirBytes() int64 {
	const most = 2 << 30
	if !l.dirIndex {
		return most
	}
	root, node := (l.blockSize-32)/8, (l.blockSize-16)/8
	n := root * node * l.blockSize
	if l.largeDir {
		n *= node
		return n / 3
	}
	return min(n/3, most)
}
