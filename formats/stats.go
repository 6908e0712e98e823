package formats

import "math/bits"

// TreeStats sums up a tree for Estimate. A survey fills it with Observe, once an
// inode, and ObserveDir, once a directory when its entries are known.
type TreeStats struct {
	Files, Dirs, Symlinks, Specials int64 // inodes
	HardLinks                       int64 // names beyond an inode's first
	Bytes                           int64 // storage of files on the source, st_blocks × 512
	Apparent                        int64 // sum of file sizes
	NameBytes                       int64 // sum of name lengths, all entries
	XattrBytes                      int64 // sum of names and values
	XattrObjects                    int64 // inodes that have any
	BigXattrBytes                   int64 // the part of XattrBytes on inodes with more than 64 bytes of them
	BigXattrObjects                 int64
	SymlinkBytes                    int64 // sum of target lengths
	LongSymlinks                    int64 // targets over 59 bytes

	// By size class: class 0 holds empty files, class 1 those of one byte, class k
	// sizes in (2^(k-2), 2^(k-1)].
	SizeHistogram [48]int64 // files
	SizeBytes     [48]int64 // what their data takes before rounding: size, less holes
	PreallocBytes int64     // storage far beyond the data: preallocated

	// Directories by the bytes of their names, same classes; entries count 8
	// bytes and the name rounded up to 4.
	DirHistogram    [48]int64
	DirBytes        [48]int64
	DirEntries      [48]int64
	LargestDir      int64 // entries
	LargestDirBytes int64

	MaxName, MaxXattrValue, MaxXattrTotal, MaxSymlink int
	MaxFile                                           int64
	MaxLinks                                          uint64
	MinTime, MaxTime                                  int64
	MaxUID, MaxGID                                    uint32
	Reflinked                                         bool
	seen                                              bool
}

// Sample is what Observe needs to know of one inode.
type Sample struct {
	Mode               uint32 // st_mode
	Size, Allocated    int64  // bytes
	Nlink              uint64
	UID, GID           uint32
	Atime, Mtime       int64 // seconds
	XattrBytes, Xattrs int   // sum of names and values; how many
	MaxXattrValue      int
	Target             int // bytes of a symlink's target
}

const (
	modeType = 0o170000
	modeDir  = 0o040000
	modeReg  = 0o100000
	modeLink = 0o120000
)

// Class is the histogram class of n bytes.
func Class(n int64) int {
	if n <= 0 {
		return 0
	}
	return min(bits.Len64(uint64(n-1))+1, 47)
}

// Observe adds one inode. An inode with several names is observed once; each
// further name is a HardLink (the caller counts it, and its NameBytes come with
// the directory).
func (s *TreeStats) Observe(o Sample) {
	switch o.Mode & modeType {
	case modeReg:
		s.observeFile(o)
	case modeDir:
		s.Dirs++
	case modeLink:
		s.Symlinks++
		s.SymlinkBytes += int64(o.Target)
		s.MaxSymlink = max(s.MaxSymlink, o.Target)
		if o.Target > 59 {
			s.LongSymlinks++
		}
	default:
		s.Specials++
	}
	if o.Xattrs > 0 {
		s.XattrObjects++
		s.XattrBytes += int64(o.XattrBytes)
		if o.XattrBytes > 64 {
			s.BigXattrObjects++
			s.BigXattrBytes += int64(o.XattrBytes)
		}
		s.MaxXattrValue = max(s.MaxXattrValue, o.MaxXattrValue)
		s.MaxXattrTotal = max(s.MaxXattrTotal, o.XattrBytes)
	}
	if o.Mode&modeType != modeDir {
		s.MaxLinks = max(s.MaxLinks, o.Nlink)
	}
	if !s.seen {
		s.seen, s.MinTime, s.MaxTime = true, o.Mtime, o.Mtime
	}
	s.MinTime = min(s.MinTime, o.Atime, o.Mtime)
	s.MaxTime = max(s.MaxTime, o.Atime, o.Mtime)
	s.MaxUID, s.MaxGID = max(s.MaxUID, o.UID), max(s.MaxGID, o.GID)
}

func (s *TreeStats) observeFile(o Sample) {
	s.Files++
	s.Bytes += o.Allocated
	s.Apparent += o.Size
	s.MaxFile = max(s.MaxFile, o.Size)
	data := o.Size
	// Small files may be stored inline and show no blocks: their size counts.
	if o.Size > 4096 {
		data = min(o.Size, o.Allocated)
	}
	c := Class(data)
	s.SizeHistogram[c]++
	s.SizeBytes[c] += data
	// st_blocks also counts what maps the blocks, less than 1/256 of them.
	if beyond := o.Allocated - (o.Size + 4095); beyond > max(64<<10, o.Size/256) {
		s.PreallocBytes += beyond
	}
}

// ObserveDir adds a directory's entries: how many, and the sum of their names'
// lengths. The directory itself is a Sample.
func (s *TreeStats) ObserveDir(entries, nameBytes int64) {
	s.NameBytes += nameBytes
	s.LargestDir = max(s.LargestDir, entries)
	// A name rounded up to 4 bytes takes 1.5 more on average.
	n := 8*entries + nameBytes + entries*3/2
	s.LargestDirBytes = max(s.LargestDirBytes, n)
	c := Class(n)
	s.DirHistogram[c]++
	s.DirBytes[c] += n
	s.DirEntries[c] += entries
}

// DirTally collects ObserveDir's numbers for a survey that meets objects and not
// directories: each name is added under any key of its parent (a hash of its path,
// its inode), and Flush observes the directories at the end. It takes some 40
// bytes of memory a directory. Flush counts NameBytes: the survey must not.
type DirTally map[uint64]dirCount

type dirCount struct{ entries, bytes int64 }

// Name adds an entry to the directory with that key. A hard link's every name counts.
func (d DirTally) Name(dir uint64, nameBytes int) {
	c := d[dir]
	c.entries++
	c.bytes += int64(nameBytes)
	d[dir] = c
}

// Flush observes every directory, s.Dirs of them: those without a name in them are empty.
func (d DirTally) Flush(s *TreeStats) {
	for _, c := range d {
		s.ObserveDir(c.entries, c.bytes)
	}
	for n := int64(len(d)); n < s.Dirs; n++ {
		s.ObserveDir(0, 0)
	}
}

// Add adds what another survey of another part of the tree saw.
func (s *TreeStats) Add(o *TreeStats) {
	for _, p := range []struct{ to, from *int64 }{
		{&s.Files, &o.Files}, {&s.Dirs, &o.Dirs}, {&s.Symlinks, &o.Symlinks}, {&s.Specials, &o.Specials},
		{&s.HardLinks, &o.HardLinks}, {&s.Bytes, &o.Bytes}, {&s.Apparent, &o.Apparent},
		{&s.NameBytes, &o.NameBytes}, {&s.XattrBytes, &o.XattrBytes}, {&s.XattrObjects, &o.XattrObjects},
		{&s.BigXattrBytes, &o.BigXattrBytes}, {&s.BigXattrObjects, &o.BigXattrObjects},
		{&s.SymlinkBytes, &o.SymlinkBytes}, {&s.LongSymlinks, &o.LongSymlinks}, {&s.PreallocBytes, &o.PreallocBytes},
	} {
		*p.to += *p.from
	}
	for i := range s.SizeHistogram {
		s.SizeHistogram[i] += o.SizeHistogram[i]
		s.SizeBytes[i] += o.SizeBytes[i]
		s.DirHistogram[i] += o.DirHistogram[i]
		s.DirBytes[i] += o.DirBytes[i]
		s.DirEntries[i] += o.DirEntries[i]
	}
	s.LargestDir = max(s.LargestDir, o.LargestDir)
	s.LargestDirBytes = max(s.LargestDirBytes, o.LargestDirBytes)
	s.MaxName, s.MaxXattrValue = max(s.MaxName, o.MaxName), max(s.MaxXattrValue, o.MaxXattrValue)
	s.MaxXattrTotal, s.MaxSymlink = max(s.MaxXattrTotal, o.MaxXattrTotal), max(s.MaxSymlink, o.MaxSymlink)
	s.MaxFile, s.MaxLinks = max(s.MaxFile, o.MaxFile), max(s.MaxLinks, o.MaxLinks)
	s.MaxUID, s.MaxGID = max(s.MaxUID, o.MaxUID), max(s.MaxGID, o.MaxGID)
	s.Reflinked = s.Reflinked || o.Reflinked
	if o.seen {
		if !s.seen {
			s.seen, s.MinTime, s.MaxTime = true, o.MinTime, o.MaxTime
		}
		s.MinTime, s.MaxTime = min(s.MinTime, o.MinTime), max(s.MaxTime, o.MaxTime)
	}
}

// Objects counts the inodes.
func (s *TreeStats) Objects() int64 { return s.Files + s.Dirs + s.Symlinks + s.Specials }

// DirClass is how many directories of one class there are, and what they hold together.
type DirClass struct{ Count, Bytes, Entries int64 }

// DirClasses lists the directories by class. A survey that never called
// ObserveDir gets an even spread of NameBytes.
func (s *TreeStats) DirClasses() []DirClass {
	var out []DirClass
	for i, n := range s.DirHistogram {
		if n > 0 {
			out = append(out, DirClass{n, s.DirBytes[i], s.DirEntries[i]})
		}
	}
	if len(out) == 0 && s.Dirs > 0 {
		entries := s.Objects() + s.HardLinks
		out = append(out, DirClass{s.Dirs, 8*entries + s.NameBytes + entries*3/2, entries})
	}
	return out
}

// ClassMax is the largest size in a class.
func ClassMax(class int) int64 {
	if class <= 0 {
		return 0
	}
	return 1 << (class - 1)
}

// FileBlocks is the storage of all file data in blocks of bs bytes, but for
// files of up to inline bytes. Sizes up to two blocks are known exactly by their
// class; a larger file wastes half a block on average.
func (s *TreeStats) FileBlocks(bs, inline int64) int64 {
	blocks := (s.PreallocBytes + bs - 1) / bs
	for i, n := range s.SizeHistogram {
		switch top := ClassMax(i); {
		case n == 0 || top <= inline:
		case top <= bs:
			blocks += n
		case top <= 2*bs:
			blocks += 2 * n
		default:
			blocks += (s.SizeBytes[i] + n*bs/2) / bs
		}
	}
	return blocks
}

// Estimate is what a tree takes in a format.
type Estimate struct {
	Bytes         int64 // the tree: data, directories, attributes and what maps them
	Inodes        int64 // inodes the tree takes
	OverheadBytes int64 // what the empty file system takes of the device: tables, log, reserves
	UsedBytes     int64 // what statfs will call used: Bytes, and the part of the overhead that it counts
	MarginBytes   int64 // how far off Bytes may be: 5 %, at least 8 MiB
	InodesMax     int64 // inodes there will be; 0: without limit
}

// Need is the least size of a device that surely holds the tree.
func (e Estimate) Need() int64 { return e.Bytes + e.OverheadBytes + e.MarginBytes }

// Margin is the stated margin for a tree of n bytes.
func Margin(n int64) int64 { return max(n/20, 8<<20) }
