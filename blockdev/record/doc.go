// Package record keeps one global log of everything that is written to several
// images at once, and gives back what a power cut at any point of it could have
// left: one cut hits all images at the same instant.
//
// A Recorder is where the images live while they are recorded; a State is a cut.
// Both are served as files of a FUSE mount (Apart, Serve), for loop devices with direct I/O
// on top, by a process that does nothing else. Nothing is copied: the log is the only place where data lies, an image is a
// table that says for each sector where in the log its content is, and what is written
// to a State stays in memory.
//
// # The log
//
// It is a dm-log-writes log, version 1 (drivers/md/dm-log-writes.c of Linux), so that
// the tools of xfstests read it too. All numbers are little-endian. The log is made of
// sectors of 512 bytes.
//
//	sector 0, the superblock:
//	   0  u64  magic 0x6a736677736872
//	   8  u64  version 1
//	  16  u64  number of entries
//	  24  u32  bytes of a sector: 512
//	then the entries, one after the other, each beginning in a sector of its own:
//	   0  u64  sector: where on the device
//	   8  u64  nr_sectors: how many
//	  16  u64  flags: 1 flush, 2 FUA, 4 discard, 8 mark, 16 metadata
//	  24  u64  data_len: bytes of text that follow in this sector, of a mark
//	  32       the text; the rest of the sector is zero
//	and behind that the data, nr_sectors of it, but for a discard.
//
// An entry is logged when the write is done, in the order in which writes are done, and
// before whoever wrote is told. A flush has no data and makes durable what stands before
// it in the log and belongs to the same image. A discarded range reads as zeros.
//
// The format knows one device, the log has several images: they lie one behind the
// other in one space of sectors, each beginning at a multiple of 1 MiB. The first entries
// are marks that say so, "image NAME SECTORS", with the beginning as their sector. The
// sector of a flush is the beginning of its image. Other marks are whatever text was put
// there: what stands in the log before a mark happened before it.
//
// # Cuts
//
// What an image holds after a cut behind the first n entries: everything before its
// last flush among them, every FUA write, and of the rest what the kind of loss and its seed choose.
// Writes are torn at 4 KiB of the device and not below it: there the file systems themselves
// give up, since disks promise them whole sectors.
//
// Non-goals: knowing a file system; reordering across a flush that was done.
package record
