package btrfs

import (
	"github.com/fsmigrate/fsmigrate/formats"
)

// inlineMax is the largest file that lies in its inode's leaf (max_inline's default).
const inlineMax = 2048

// How full leaves are on average, in percent: inodes come in order and fill
// theirs, hashes of names do not, and inline data leaves room that nothing fits.
const (
	fillItems  = 88
	fillInline = 70
)

// minReserve is what every volume keeps for its own last changes.
const minReserve = 11 << 19

// Estimate models the items of all trees, the copies of metadata, whole blocks of data.
func (format) Estimate(t formats.TreeStats, opts map[string]string, deviceBytes int64) (formats.Estimate, error) {
	o, err := resolve(opts)
	if err != nil {
		return formats.Estimate{}, err
	}
	bs, node := o.int("sectorsize"), o.int("nodesize")
	names := t.Objects() + t.HardLinks
	// Each name: DIR_ITEM, DIR_INDEX, INODE_REF; each inode: INODE_ITEM.
	meta := names*(2*(itemSize+dirItemSize)+itemSize+10) + 3*t.NameBytes + t.Objects()*(itemSize+160)
	// Each attribute an item.
	meta += t.XattrObjects*(itemSize+dirItemSize) + t.XattrBytes
	meta += t.Symlinks*(itemSize+inlineHead) + t.SymlinkBytes
	extents, small := int64(0), int64(0)
	for i, n := range t.SizeHistogram {
		switch top := formats.ClassMax(i); {
		case n == 0 || top == 0:
		case top <= inlineMax:
			small += n*(itemSize+inlineHead) + t.SizeBytes[i]
		default:
			extents += n + t.SizeBytes[i]>>27 // of 128 MiB at most
		}
	}
	blocks := t.FileBlocks(bs, inlineMax)
	// An extent is an item in the file's tree and one among the extents; each
	// block has a checksum.
	mapping := extents*(itemSize+53) + blocks*o.csumSize()
	meta += mapping + extents*(itemSize+53)
	nodes := (meta*100/fillItems+small*100/fillInline)/(node-headerSize) + 1
	copies := int64(1)
	if o.v["metadata"] == "dup" {
		copies = 2
	}
	total := nodes*node*copies + blocks*bs
	if o.v["data"] == "dup" {
		total += blocks * bs
	}
	e := formats.Estimate{Bytes: total, Inodes: t.Objects(), MarginBytes: formats.Margin(total)}
	// An empty volume has a dozen nodes and the reserve; statfs calls both used.
	reserve := max(minReserve, mapping) + 9*node*copies
	e.UsedBytes = total + reserve
	e.OverheadBytes = reserve + copies*metaGroup(deviceBytes)
	if o.on("mixed") {
		e.OverheadBytes = reserve
	}
	return e, nil
}

// metaGroup is the size of a group of metadata: one is never full, and its rest
// is no place for data.
func metaGroup(device int64) int64 {
	group := int64(256 << 20)
	if device > 50<<30 {
		group = 1 << 30
	}
	return min(group, device/20)
}

func (o options) csumSize() int64 {
	switch o.v["csum"] {
	case "crc32c":
		return 4
	case "xxhash":
		return 8
	default:
		return 32
	}
}
