package btrfs

import (
	"github.com/fsmigrate/fsmigrate/formats"
)

// inlineMax is the largest file that lies in its inode's leaf (max_inline's default).
const inlineMax = 2048

// fill is how full leaves are on average, in percent, after a tree was filled in
// no particular order.
const fill = 66

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
	data := int64(0)
	for i, n := range t.SizeHistogram {
		switch {
		case n == 0 || i == 0:
		case int64(1)<<(i-1) < inlineMax:
			meta += n*(itemSize+inlineHead) + t.SizeBytes[i]
		default:
			blocks := n
			if int64(1)<<(i-1) >= bs {
				blocks = (t.SizeBytes[i] + n*bs/2) / bs
			}
			data += blocks * bs
			// An extent of 128 MiB at most: an item in the file's tree and one among
			// the extents; a checksum of 4 bytes and more a block.
			extents := n * (1 + t.SizeBytes[i]/n>>27)
			meta += extents*(2*itemSize+53+53) + blocks*o.csumSize()
		}
	}
	data += t.PreallocBytes
	nodes := meta*100/fill/(node-headerSize) + 1
	copies := func(v string) int64 {
		if v == "dup" {
			return 2
		}
		return 1
	}
	total := nodes*node*copies(o.v["metadata"]) + data*copies(o.v["data"])
	e := formats.Estimate{Bytes: total, Inodes: t.Objects(), MarginBytes: formats.Margin(total)}
	// An empty one has a dozen nodes; the system groups and the global reserve
	// cannot be used by files; metadata comes in groups that fill up one by one.
	e.OverheadBytes = 16 << 20 * copies(o.v["metadata"])
	e.UsedBytes = total + 16*node*copies(o.v["metadata"])
	return e, nil
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
