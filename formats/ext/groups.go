package ext

import (
	"fmt"
	"io"
)

const descInodeUninit = 1

// group is what a scan needs of a group descriptor.
type group struct {
	bitmap, table uint64
	unused        uint32 // inodes at the end that were never used
	uninit        bool
	freeInodes    uint32
	freeBlocks    uint32
}

func (s *super) parseGroup(b []byte) group {
	g := group{
		bitmap: uint64(le32(b, 4)), table: uint64(le32(b, 8)),
		freeBlocks: uint32(le16(b, 12)), freeInodes: uint32(le16(b, 14)),
		unused: uint32(le16(b, 28)), uninit: le16(b, 18)&descInodeUninit != 0,
	}
	if s.DescSize >= 64 {
		g.bitmap |= uint64(le32(b, 36)) << 32
		g.table |= uint64(le32(b, 40)) << 32
		g.freeBlocks |= uint32(le16(b, 44)) << 16
		g.freeInodes |= uint32(le16(b, 46)) << 16
		g.unused |= uint32(le16(b, 50)) << 16
	}
	if !s.groupChecksums() {
		g.unused, g.uninit = 0, false
	}
	return g
}

// hasSuper reports whether a group begins with a copy of the superblock
// (ext4_bg_has_super).
func (s *super) hasSuper(group uint32) bool {
	if group == 0 {
		return true
	}
	if s.compat(compatSparse2) {
		return group == s.BackupBGs[0] || group == s.BackupBGs[1]
	}
	if group <= 1 || !s.roCompat(roSparseSuper) {
		return true
	}
	if group&1 == 0 {
		return false
	}
	for _, base := range [3]uint32{3, 5, 7} {
		n := group
		for n%base == 0 {
			n /= base
		}
		if n == 1 {
			return true
		}
	}
	return false
}

// descBlock is where the nth block of descriptors lies (descriptor_loc).
func (s *super) descBlock(n uint32) uint64 {
	superBlock := uint64(superOffset) / uint64(s.BlockSize)
	if !s.incompat(incompatMetaBG) || n < s.FirstMetaBG {
		return superBlock + 1 + uint64(n)
	}
	perBlock := uint32(s.BlockSize) / uint32(s.DescSize)
	first := uint64(perBlock) * uint64(n)
	at := uint64(s.FirstData) + first*uint64(s.BlocksPerGroup)
	if s.hasSuper(uint32(first)) {
		at++
		if s.BlockSize == 1024 && n == 0 && s.FirstData == 0 {
			at++
		}
	}
	return at
}

// eachGroup reads the descriptors in order, a block at a time.
func (s *super) eachGroup(r io.ReaderAt, fn func(n uint32, g group) error) error {
	block := make([]byte, s.BlockSize)
	perBlock := uint32(s.BlockSize) / uint32(s.DescSize)
	for n := uint32(0); n < s.Groups; n++ {
		i := n % perBlock
		if i == 0 {
			at := s.descBlock(n / perBlock)
			if at >= s.Blocks {
				return fmt.Errorf("ext: descriptors of group %d lie at block %d of %d", n, at, s.Blocks)
			}
			if _, err := r.ReadAt(block, int64(at)*s.BlockSize); err != nil {
				return fmt.Errorf("read descriptors of group %d: %w", n, err)
			}
		}
		g := s.parseGroup(block[int(i)*s.DescSize:])
		if err := fn(n, g); err != nil {
			return err
		}
	}
	return nil
}

// checkGroup refuses a descriptor that points outside the file system.
func (s *super) checkGroup(n uint32, g group) error {
	tableBlocks := (uint64(s.InodesPerGroup)*uint64(s.InodeSize) + uint64(s.BlockSize) - 1) / uint64(s.BlockSize)
	if g.table <= uint64(s.FirstData) || g.table >= s.Blocks || tableBlocks > s.Blocks-g.table {
		return fmt.Errorf("ext: inode table of group %d lies at block %d of %d", n, g.table, s.Blocks)
	}
	if g.bitmap <= uint64(s.FirstData) || g.bitmap >= s.Blocks {
		return fmt.Errorf("ext: inode bitmap of group %d lies at block %d of %d", n, g.bitmap, s.Blocks)
	}
	if g.unused > s.InodesPerGroup {
		return fmt.Errorf("ext: group %d has %d unused inodes of %d", n, g.unused, s.InodesPerGroup)
	}
	return nil
}
