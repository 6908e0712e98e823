// Package btrfs is the format btrfs on one device: superblock probe, mkfs.btrfs,
// tree search for inode items, limits, costs and findings.
//
// It never writes and never reads file data. Volumes of several devices are
// probed and say so; making them is not offered.
//
// # Layout
//
// Sources: Linux include/uapi/linux/btrfs_tree.h and btrfs.h. Little endian. The
// superblock is at 65536, 4096 bytes long:
//
//	0 csum[32] over 32–4095       32 fsid[16]                48 bytenr u64
//	56 flags u64                  64 magic "_BHRfS_M"        72 generation u64
//	96 log_root u64               112 total_bytes u64        120 bytes_used u64
//	136 num_devices u64           144 sectorsize u32         148 nodesize u32
//	172/180/188 features compat/compat_ro/incompat u64       196 csum_type u16
//	201 dev_item (8 total_bytes u64)                         299 label[256]
//
// csum_type: 0 crc32c, 1 xxhash64, 2 sha256, 3 blake2b (not verified here).
//
// # Scan
//
// BTRFS_IOC_TREE_SEARCH_V2 is _IOWR(0x94, 17, 112 bytes): tree_id u64 (0: the
// subvolume of the descriptor), min/max objectid u64, min/max offset u64, min/max
// transid u64, min/max type u32, nr_items u32, 36 bytes unused, buf_size u64, then
// the buffer. Each item is transid u64, objectid u64, offset u64, type u32, len u32
// and len bytes. The bounds are two keys: everything between comes, of any type. Nodes
// older than min_transid are skipped unread.
//
// An INODE_ITEM (type 1) has 160 bytes:
//
//	0 generation u64   8 transid u64   16 size u64    40 nlink u32   44 uid u32
//	48 gid u32         52 mode u32     124 ctime s64, nsec u32       136 mtime s64, nsec u32
//
// Objects are 256 (the root) and up; a file handle carries the low 32 bits of
// generation. Changed inodes reach the tree when a transaction commits: sync first.
//
// Only the tree of the descriptor's subvolume is read. Subvolumes below it are
// trees of their own and not in a scan: Subvolumes lists them.
package btrfs
