package xfs

import (
	"github.com/fsmigrate/fsmigrate/formats"
)

// Estimate models the layout.
func (format) Estimate(t formats.TreeStats, opts map[string]string, deviceBytes int64) (formats.Estimate, error) {
	o, err := resolve(opts)
	if err != nil {
		return formats.Estimate{}, err
	}
	bs, is := o.int("block_size"), o.int("inode_size")
	room := is - 100 // what is left of an inode for its data fork: V4
	if o.on("crc") {
		room = is - 176
	}
	blocks := t.FileBlocks(bs, 0) + extentBlocks(&t, bs, room)
	blocks += dirBlocks(&t, bs, room) + attrBlocks(&t, room)
	blocks += longLinks(&t, room)
	// Inodes come in chunks of 64, and one chunk is begun at a time in each group
	// that directories were spread over.
	chunks := (t.Objects() + 63) / 64
	blocks += (chunks*64*is + bs - 1) / bs
	// The inode index takes 16 bytes a chunk, at two thirds full. Other indexes
	// grow into what is reserved for them.
	blocks += chunks * 16 * 3 / 2 / (bs - 56)
	e := formats.Estimate{Bytes: blocks * bs, Inodes: t.Objects(), MarginBytes: formats.Margin(blocks * bs)}
	log, reserve := o.logBytes(deviceBytes), o.reserved(deviceBytes)
	e.OverheadBytes = log + reserve
	e.UsedBytes = e.Bytes + reserve // statfs does not count the log as space at all
	e.InodesMax = deviceBytes / 100 * max(o.imaxpct(formats.MakeOptions{Bytes: deviceBytes, Objects: t.Objects()}), 25) / is
	return e, nil
}

// extentBlocks is what maps files of more extents than fit the inode. An extent
// holds at most 2^21-1 blocks; freshly copied files have few.
func extentBlocks(t *formats.TreeStats, bs, room int64) int64 {
	var n int64
	for i, files := range t.SizeHistogram {
		if files == 0 {
			continue
		}
		extents := t.SizeBytes[i]/files/bs>>21 + 1
		if extents*16 > room {
			n += files * (1 + extents*16/(bs-72))
		}
	}
	return n
}

// dirBlocks: a directory whose entries fit lies in the inode; then one block holds
// entries and their hashes; then data blocks, leaf blocks of 8 bytes an entry.
func dirBlocks(t *formats.TreeStats, bs, room int64) int64 {
	var n int64
	for _, c := range t.DirClasses() {
		names := c.Bytes - 8*c.Entries // the names, rounded up to 4
		// In the inode: length, offset, name, type, 4-byte inode number.
		short := (names - c.Entries*3/2 + c.Entries*8) / c.Count
		// In a block: number 8, length 1, name, type 1, tag 2, rounded up to 8; and 8 of hash.
		data := (names + c.Entries*(12+2)) / c.Count
		leaf := 8 * c.Entries / c.Count
		switch {
		case short <= room-10:
		case data+leaf+64 <= bs:
			n += c.Count
		default:
			// Data blocks fill one after the other, leaves split.
			per := (data+bs-1)/(bs-64) + 1 + leaf*3/2/bs + (data/bs*2)/bs
			n += c.Count * (per + 1)
		}
	}
	return n
}

func attrBlocks(t *formats.TreeStats, room int64) int64 {
	if t.BigXattrObjects == 0 {
		return 0
	}
	per := t.BigXattrBytes / t.BigXattrObjects
	if per <= room-32 {
		return 0
	}
	return t.BigXattrObjects * (1 + per/4000)
}

func longLinks(t *formats.TreeStats, room int64) int64 {
	if t.LongSymlinks == 0 || t.SymlinkBytes/t.Symlinks <= room && t.MaxSymlink <= int(room) {
		return 0
	}
	return t.LongSymlinks
}

func (o options) logBytes(device int64) int64 {
	if n := o.int("log_size"); n > 0 {
		return n << 20
	}
	// mkfs.xfs since 5.15: 64 MiB at least, 1/2048 of the device, 2 GiB at most.
	return min(max(device/2048, 64<<20), 2<<30)
}

// reserved is what an empty file system counts as used: the pool for changes that
// must not fail (a twentieth, 8192 blocks at most), and in each group what its
// indexes may grow to (xfs_fs_reserve_ag_blocks), its headers and first chunk.
func (o options) reserved(device int64) int64 {
	bs := o.int("block_size")
	blocks := device / bs
	ags := o.int("agcount")
	if ags == 0 {
		ags = 4
		if device >= 4<<40 {
			ags = (device + 1<<40 - 1) >> 40
		}
	}
	agBlocks := blocks / ags
	n := min(blocks/20, 8192)
	for ag := range ags {
		room := agBlocks
		if ag == ags/2 { // the log's group
			room -= min(o.logBytes(device)/bs, room)
		}
		n += 12 + o.indexes(room, bs)
	}
	return n * bs
}

// indexes is the most blocks that the indexes of a group will ever take.
func (o options) indexes(agBlocks, bs int64) int64 {
	n := int64(0)
	half := func(record int64) int64 { return max((bs-56)/record/2, 2) }
	if o.on("finobt") {
		n += btreeBlocks(agBlocks*(bs/o.int("inode_size"))/64, half(16), half(8))
	}
	if o.on("reflink") {
		n += btreeBlocks(agBlocks, half(12), half(8))
	}
	if o.on("rmapbt") {
		n += max(agBlocks/100, btreeBlocks(agBlocks, half(24), half(44)))
	}
	return n
}

// btreeBlocks is xfs_btree_calc_size: all levels of a tree with half-full blocks.
func btreeBlocks(records, leaf, node int64) int64 {
	n := int64(0)
	for per := leaf; records > 1; per = node {
		records = (records + per - 1) / per
		n += records
	}
	return n
}
