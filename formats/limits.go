package formats

import "time"

// Limits are what a format can represent. Counts and sizes are the largest that
// fit, times are inclusive.
type Limits struct {
	NameBytes        int
	UIDBits, GIDBits int
	TimeMin, TimeMax int64 // seconds since 1970
	TimeGranularity  time.Duration
	MaxFile          int64
	MaxLinks         uint64 // of a file that is not a directory
	MaxSubdirs       uint64 // directories in one directory; 0: without limit
	MaxVolume        int64  // bytes of the whole, however large the device; 0: more than devices have
	MaxInodes        int64  // of the whole; 0: without limit
	SymlinkBytes     int

	// DeviceMajorBits and DeviceMinorBits bound the numbers of device nodes; 0: without limit.
	DeviceMajorBits, DeviceMinorBits int

	XattrValueBytes int // one value
	XattrPairBytes  int // full name and value together; 0: only XattrValueBytes counts
	// XattrTotalBytes is the room for all extended attributes of one object, the
	// sum of XattrSpaces; 0: without limit. An attribute takes XattrEntryBytes,
	// its name without namespace prefix and its value, both rounded up to 4
	// bytes, from the first space that still has room.
	XattrTotalBytes int
	XattrSpaces     [2]int
	XattrEntryBytes int

	// DirBytesMax is the room for the entries of one directory, 8 bytes and the
	// name rounded up to 4 each; 0: without limit. Where hashing decides how full
	// blocks get it is what surely fits.
	DirBytesMax int64

	Flags   uint32 // the FS_*_FL of FS_IOC_SETFLAGS that are stored
	Records Facts
}

// Facts is a set of things a format records.
type Facts uint32

// The facts.
const (
	Xattr      Facts = 1 << iota // extended attributes, all namespaces
	ACL                          // POSIX ACLs
	Caps                         // security.capability
	Project                      // project ids and their inheritance
	Reflink                      // extents shared between files
	Holes                        // ranges without storage
	Prealloc                     // storage without data
	BirthTime                    // when the inode was made
	Casefold                     // directories that ignore case
	Generation                   // inode generations in file handles
	Mode                         // owner and permissions
	Symlinks                     // symbolic links
	Specials                     // FIFOs, sockets, devices
)

// Has reports whether all of f are in s.
func (s Facts) Has(f Facts) bool { return s&f == f }

var factNames = [...]string{"xattr", "acl", "caps", "project", "reflink", "holes", "prealloc",
	"btime", "casefold", "generation", "mode", "symlinks", "specials"}

// Names lists the facts in s.
func (s Facts) Names() []string {
	var out []string
	for i, n := range factNames {
		if s&(1<<i) != 0 {
			out = append(out, n)
		}
	}
	return out
}

// The inode flags of FS_IOC_GETFLAGS (linux/fs.h) that a file system stores for
// a user or says something about an object.
const (
	FlagSecRm       uint32 = 0x00000001
	FlagUnRm        uint32 = 0x00000002
	FlagCompress    uint32 = 0x00000004
	FlagSync        uint32 = 0x00000008
	FlagImmutable   uint32 = 0x00000010
	FlagAppend      uint32 = 0x00000020
	FlagNoDump      uint32 = 0x00000040
	FlagNoAtime     uint32 = 0x00000080
	FlagNoCompress  uint32 = 0x00000400
	FlagEncrypt     uint32 = 0x00000800
	FlagIndex       uint32 = 0x00001000
	FlagJournalData uint32 = 0x00004000
	FlagNoTail      uint32 = 0x00008000
	FlagDirSync     uint32 = 0x00010000
	FlagTopDir      uint32 = 0x00020000
	FlagHugeFile    uint32 = 0x00040000
	FlagExtent      uint32 = 0x00080000
	FlagVerity      uint32 = 0x00100000
	FlagEAInode     uint32 = 0x00200000
	FlagNoCow       uint32 = 0x00800000
	FlagDAX         uint32 = 0x02000000
	FlagInlineData  uint32 = 0x10000000
	FlagProjInherit uint32 = 0x20000000
	FlagCasefold    uint32 = 0x40000000
)

// LayoutFlags say how a file system laid an object out; they are nobody's wish
// and are not carried.
const LayoutFlags = FlagIndex | FlagHugeFile | FlagExtent | FlagEAInode | FlagInlineData

var flagNames = []struct {
	bit  uint32
	name string
}{
	{FlagSecRm, "s (secure deletion)"}, {FlagUnRm, "u (undeletable)"}, {FlagCompress, "c (compressed)"},
	{FlagSync, "S (synchronous)"}, {FlagImmutable, "i (immutable)"}, {FlagAppend, "a (append only)"},
	{FlagNoDump, "d (no dump)"}, {FlagNoAtime, "A (no atime)"}, {FlagNoCompress, "m (never compress)"},
	{FlagEncrypt, "E (encrypted)"}, {FlagJournalData, "j (data journalling)"}, {FlagNoTail, "t (no tail merging)"},
	{FlagDirSync, "D (synchronous directory)"}, {FlagTopDir, "T (top of hierarchy)"}, {FlagVerity, "V (verity)"},
	{FlagNoCow, "C (no copy on write)"}, {FlagDAX, "x (direct access)"},
	{FlagProjInherit, "P (project inheritance)"}, {FlagCasefold, "F (case folding)"},
}

// FlagNames lists the flags in f as lsattr letters with their meaning.
func FlagNames(f uint32) []string {
	var out []string
	for _, n := range flagNames {
		if f&n.bit != 0 {
			out = append(out, n.name)
		}
	}
	return out
}
