package ext

import (
	"fmt"

	"github.com/fsmigrate/fsmigrate/formats"
)

// dirFill is how full hashed directory blocks are on average, in percent: names
// arrive in an order that has nothing to do with their hash here, and a full
// block splits in half.
const dirFill = 70

// Estimate models the layout: whole blocks of data, what maps them, directory
// blocks, attribute blocks; and of the empty file system the inode tables,
// bitmaps, descriptors with their copies, and the journal.
func (f *format) Estimate(t formats.TreeStats, opts map[string]string, deviceBytes int64) (formats.Estimate, error) {
	o, err := f.options(opts)
	if err != nil {
		return formats.Estimate{}, err
	}
	l := o.layout()
	m := formats.MakeOptions{Bytes: deviceBytes, Objects: t.Objects()}
	inodes, err := o.inodes(m)
	if err != nil {
		return formats.Estimate{}, fmt.Errorf("estimate: %w", err)
	}
	if inodes == 0 {
		inodes = deviceBytes / o.int("bytes_per_inode")
	}
	blocks := t.FileBlocks(l.blockSize, 0) + l.mapBlocks(&t) + l.dirBlocks(&t) + l.xattrBlocks(&t)
	blocks *= l.blockSize
	e := formats.Estimate{
		Bytes: blocks, Inodes: t.Objects(), InodesMax: inodes,
		OverheadBytes: o.overhead(deviceBytes, inodes), MarginBytes: formats.Margin(blocks),
	}
	// statfs leaves the tables and the journal out; the root directory and
	// lost+found (16 KiB) are there from the beginning.
	e.UsedBytes = e.Bytes + 16<<10 + l.blockSize
	return e, nil
}

// mapBlocks is what extent trees or indirect blocks take.
func (l layout) mapBlocks(t *formats.TreeStats) int64 {
	var n int64
	ppb := l.blockSize / 4
	for i, files := range t.SizeHistogram {
		if files == 0 {
			continue
		}
		per := t.SizeBytes[i] / files / l.blockSize // blocks a file
		switch {
		case l.extents && per > 4*32768:
			n += files * (1 + per/32768/(l.blockSize/12))
		case l.extents:
		case per > 12+ppb+ppb*ppb:
			n += files * (3 + per/ppb + per/(ppb*ppb))
		case per > 12+ppb:
			n += files * (2 + (per-12-1)/ppb)
		case per > 12:
			n += files
		}
	}
	return n
}

func (l layout) dirBlocks(t *formats.TreeStats) int64 {
	var n int64
	for _, c := range t.DirClasses() {
		count, bytes := c.Count, c.Bytes
		// "." and ".." and the checksum take 36 bytes of the first block.
		bytes += 36 * count
		switch per := bytes / count; {
		case per <= l.blockSize*9/10:
			n += count
		case l.dirIndex:
			leaves := (bytes*100/dirFill + count*l.blockSize/2) / l.blockSize
			n += count + leaves + leaves*8*3/2/l.blockSize // the index: 8 bytes a leaf
		default:
			n += (bytes + count*l.blockSize/2) / l.blockSize
		}
	}
	return n
}

// xattrBlocks counts one block for each inode whose attributes do not fit into
// it, and one for each symlink that does not.
func (l layout) xattrBlocks(t *formats.TreeStats) int64 {
	if l.inodeSize == 128 {
		return t.XattrObjects + t.LongSymlinks
	}
	return t.BigXattrObjects + t.LongSymlinks
}

// overhead is what mke2fs takes at once.
func (o options) overhead(device, inodes int64) int64 {
	bs := o.int("block_size")
	blocks := device / bs
	perGroup := bs * 8
	groups := max((blocks+perGroup-1)/perGroup, 1)
	desc := int64(32)
	if o.on("64bit") {
		desc = 64
	}
	inodesPerGroup := (max((inodes+groups-1)/groups, 8) + 7) &^ 7
	table := (inodesPerGroup*o.int("inode_size") + bs - 1) / bs
	gdt := (groups*desc + bs - 1) / bs
	reserved := int64(0)
	if device < 1<<44 {
		reserved = min((min(blocks*1024, 1<<32)/perGroup*desc+bs-1)/bs-gdt, bs/4)
	}
	copies := int64(0)
	for g := int64(0); g < groups; g++ {
		if (&super{ROCompt: roSparseSuper}).hasSuper(uint32(g)) {
			copies++
		}
	}
	n := groups*(table+2) + copies*(1+gdt+max(reserved, 0))
	if o.journalled() {
		n += o.journalBlocks(blocks)
	}
	return n * bs
}

// journalBlocks is e2fsprogs' ext2fs_default_journal_size.
func (o options) journalBlocks(blocks int64) int64 {
	if mb := o.int("journal_size"); mb > 0 {
		return mb << 20 / o.int("block_size")
	}
	for _, step := range []struct{ below, size int64 }{
		{2048, 0}, {32768, 1024}, {256 << 10, 4096}, {512 << 10, 8192}, {4096 << 10, 16384},
		{8192 << 10, 32768}, {16384 << 10, 65536}, {32768 << 10, 131072},
	} {
		if blocks < step.below {
			return step.size
		}
	}
	return 262144
}
