// Package xfs is the format xfs, V4 and V5: superblock probe, mkfs.xfs, parallel
// bulkstat, limits, costs and findings.
//
// It never writes and never reads file data. Clean is not known from the
// superblock (the log would have to be read); it means "not inside mkfs, and no
// repair demanded".
//
// # Layout
//
// Sources: Linux fs/xfs/libxfs/xfs_format.h and xfs_fs.h. The superblock is at 0
// (each allocation group begins with a copy), one sector long, big endian:
//
//	0 magic "XFSB"           4 blocksize u32       8 dblocks u64       32 uuid[16]
//	48 logstart u64          84 agblocks u32       88 agcount u32      96 logblocks u32
//	100 versionnum u16 (low 4 bits: the version)   102 sectsize u16    104 inodesize u16
//	106 inopblock u16        108 label[12]         120 blocklog u8     123 inopblog u8
//	124 agblklog u8          126 inprogress u8     127 imax_pct u8
//	128 icount u64           136 ifree u64         144 fdblocks u64
//	192 dirblklog u8         200 features2 u32
//
// and in V5:
//
//	208/212/216/220 features compat/ro_compat/incompat/log_incompat u32
//	224 crc u32, little endian: crc32c of the sector with this field 0
//	248 meta_uuid[16]
//
// # Scan
//
// XFS_IOC_BULKSTAT is _IOR('X', 127, struct xfs_bulk_ireq). The request's 64
// bytes: ino u64, flags u32 (1 = only AG agno, 4 = 64-bit extent counters), icount
// u32, ocount u32, agno u32, reserved. Then icount records of 192 bytes, host order:
//
//	0 ino u64    8 size u64      40 mtime s64   48 ctime s64   64 gen u32
//	68 uid u32   72 gid u32      84 mtime_nsec  88 ctime_nsec  112 nlink u32   132 mode u16
//
// The kernel fills them from its inodes in memory, so they are true at any time,
// synced or not. It leaves out its own inodes (quota, realtime, metadata).
package xfs
