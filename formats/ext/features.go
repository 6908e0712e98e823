package ext

// Feature bits: fs/ext4/ext4.h. Names: e2fsprogs lib/e2p/feature.c.
const (
	compatHasJournal = 0x0004
	compatExtAttr    = 0x0008
	compatDirIndex   = 0x0020
	compatSparse2    = 0x0200

	incompatFiletype   = 0x0002
	incompatRecover    = 0x0004
	incompatJournalDev = 0x0008
	incompatMetaBG     = 0x0010
	incompatExtents    = 0x0040
	incompat64bit      = 0x0080
	incompatFlexBG     = 0x0200
	incompatEAInode    = 0x0400
	incompatLargedir   = 0x4000
	incompatInlineData = 0x8000
	incompatEncrypt    = 0x10000
	incompatCasefold   = 0x20000

	roSparseSuper  = 0x0001
	roHugeFile     = 0x0008
	roGDTCsum      = 0x0010
	roDirNlink     = 0x0020
	roExtraIsize   = 0x0040
	roQuota        = 0x0100
	roBigalloc     = 0x0200
	roMetadataCsum = 0x0400
	roProject      = 0x2000
	roVerity       = 0x8000
)

// What ext2 and ext3 may have; anything else makes it ext4. The journal tells
// ext3 from ext2.
const (
	ext3Incompat = incompatFiletype | incompatRecover | incompatMetaBG
	ext3ROCompat = roSparseSuper | 0x0002 /* large_file */ | 0x0004 /* btree_dir */
)

var featureNames = [3][]struct {
	bit  uint32
	name string
}{
	{{0x1, "dir_prealloc"}, {0x2, "imagic_inodes"}, {0x4, "has_journal"}, {0x8, "ext_attr"},
		{0x10, "resize_inode"}, {0x20, "dir_index"}, {0x40, "lazy_bg"}, {0x80, "snapshot_bitmap"},
		{0x200, "sparse_super2"}, {0x400, "fast_commit"}, {0x800, "stable_inodes"}, {0x1000, "orphan_file"}},
	{{0x1, "compression"}, {0x2, "filetype"}, {0x4, "needs_recovery"}, {0x8, "journal_dev"},
		{0x10, "meta_bg"}, {0x40, "extent"}, {0x80, "64bit"}, {0x100, "mmp"}, {0x200, "flex_bg"},
		{0x400, "ea_inode"}, {0x1000, "dirdata"}, {0x2000, "metadata_csum_seed"}, {0x4000, "large_dir"},
		{0x8000, "inline_data"}, {0x10000, "encrypt"}, {0x20000, "casefold"}},
	{{0x1, "sparse_super"}, {0x2, "large_file"}, {0x4, "btree_dir"}, {0x8, "huge_file"}, {0x10, "uninit_bg"},
		{0x20, "dir_nlink"}, {0x40, "extra_isize"}, {0x80, "snapshot"}, {0x100, "quota"}, {0x200, "bigalloc"},
		{0x400, "metadata_csum"}, {0x800, "replica"}, {0x1000, "read-only"}, {0x2000, "project"},
		{0x4000, "shared_blocks"}, {0x8000, "verity"}, {0x10000, "orphan_present"}},
}

func (s *super) features() []string {
	var out []string
	for i, set := range [3]uint32{s.Compat, s.Incompat, s.ROCompt} {
		for _, f := range featureNames[i] {
			if set&f.bit != 0 {
				out = append(out, f.name)
			}
		}
	}
	return out
}

// kind is ext2, ext3 or ext4.
func (s *super) kind() string {
	switch {
	case s.Incompat&^ext3Incompat != 0 || s.ROCompt&^ext3ROCompat != 0:
		return "ext4"
	case s.compat(compatHasJournal):
		return "ext3"
	default:
		return "ext2"
	}
}
