// Package ext is the formats ext2, ext3 and ext4: one layout whose features tell
// the three apart. It probes the superblock, composes mke2fs, scans the raw inode
// table, and knows limits, costs and findings.
//
// It never writes and never looks at file data. A Scan sees what the block
// device's page cache holds: the kernel keeps inode tables, bitmaps and group
// descriptors there while the file system is mounted, so after a sync and with
// no writer it is exactly the file system's state (I5). On a device that is not
// mounted and whose journal was not replayed it is not, and Scan refuses (I8).
//
// # Layout
//
// Sources: Linux fs/ext4/ext4.h, Documentation/filesystems/ext4, e2fsprogs
// lib/ext2fs/ext2_fs.h. Little endian. Offsets in bytes.
//
// The superblock is at 1024, 1024 bytes long:
//
//	0 inodes_count u32          4 blocks_count_lo u32      12 free_blocks_lo u32
//	16 free_inodes u32          20 first_data_block u32    24 log_block_size u32 (1024 << n)
//	28 log_cluster_size u32     32 blocks_per_group u32    36 clusters_per_group u32
//	40 inodes_per_group u32     56 magic u16 = 0xef53      58 state u16 (1 clean, 2 errors)
//	76 rev_level u32            84 first_ino u32           88 inode_size u16 (128 in revision 0)
//	92/96/100 feature compat/incompat/ro_compat u32        104 uuid[16]
//	120 label[16]               224 journal_inum u32       254 desc_size u16 (with 64bit)
//	260 first_meta_bg u32       336 blocks_count_hi u32    344 free_blocks_hi u32
//	404 error_count u32         408 first_error_time u32   424 first_error_func[32]
//	460 last_error_time u32     480 last_error_func[32]    588 backup_bgs u32[2] (sparse_super2)
//	620 prj_quota_inum u32      640 orphan_file_inum u32   1020 checksum u32 (crc32c of 0–1019)
//
// A group descriptor has 32 bytes, or desc_size with 64bit:
//
//	4 inode_bitmap_lo u32   8 inode_table_lo u32   12 free_blocks_lo u16   14 free_inodes_lo u16
//	18 flags u16 (1 INODE_UNINIT)                  28 itable_unused_lo u16
//	36 inode_bitmap_hi u32  40 inode_table_hi u32  44 free_blocks_hi u16   46 free_inodes_hi u16
//	50 itable_unused_hi u16
//
// They follow the superblock's block, or with meta_bg each block of them lies in
// the first group that it describes (after the superblock's copy, if any).
//
// An inode has inode_size bytes:
//
//	0 mode u16     2 uid_lo u16    4 size_lo u32   12 ctime s32   16 mtime s32   20 dtime u32
//	24 gid_lo u16  26 links u16    32 flags u32    100 generation u32            108 size_hi u32
//	120 uid_hi u16 122 gid_hi u16
//	128 extra_isize u16            132 ctime_extra u32            136 mtime_extra u32
//
// A time's extra word holds nanoseconds << 2 | epoch: the epoch is added to the
// signed 32-bit seconds as epoch << 32. It counts where 128 + extra_isize covers it.
//
// # In use
//
// An inode is in use when its bit in the inode bitmap is set and its mode is not
// 0. The kernel sets the bit before it fills an inode and clears it after the
// last trace of the file is gone, so nothing that can be opened has a clear bit on
// a sound file system. (On a damaged one it may; a consumer that compares with
// what it has copied then misses the record, which is a difference and no
// silence.) A group with INODE_UNINIT has none, and its bitmap is not read:
// neither it nor the table was ever written, and with lazy initialisation they
// hold whatever was on the disk. itable_unused is not needed. An inode in use
// without links is an orphan: unlinked and still open.
//
// Left out are the reserved inodes (1 to first_ino-1 but for the root, 2), the
// journal, the project quota and orphan files wherever they are, and inodes that
// hold an attribute value of another (ea_inode): they have no names.
package ext
