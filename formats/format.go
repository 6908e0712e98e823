package formats

import (
	"context"
	"errors"
	"io"
)

// Format is one on-disk format. Implementations are stateless and safe for
// concurrent use. Everything but Scan is pure.
type Format interface {
	// Name is the registry's name: ext2, ext3, ext4, xfs, btrfs.
	Name() string

	// Describe lists the properties that can be asked for at mkfs, and the
	// limits of a volume that is made with none of them.
	Describe() Description

	// Probe reads the superblock through r. size is the volume's size in bytes.
	// ErrNotThis (wrapped) says that it is another format, or none; any other
	// error says that it is this one and damaged, truncated or unsupported.
	Probe(r io.ReaderAt, size int64) (Volume, error)

	// Limits are those of a volume made with options. An unknown option or
	// value is an *OptionError.
	Limits(options map[string]string) (Limits, error)

	// Mkfs composes the argv that makes the format on device. It overwrites
	// whatever is there: looking first is the caller's duty.
	Mkfs(device string, o MakeOptions) ([]string, error)

	// Check composes the argv of a read-only check of an unmounted device. Exit
	// status 0 means clean.
	Check(device string) []string

	// Tools are the programs that Mkfs and Check name, and the least version.
	Tools() []Tool

	// LabelMax is the longest label in bytes. SetLabel writes one.
	LabelMax() int

	// MountOptions are the superblock options that the private mount of v needs;
	// an empty map for most.
	MountOptions(v Volume) map[string]string

	// Estimate says what a tree takes on a device of that size in this format.
	Estimate(s TreeStats, options map[string]string, deviceBytes int64) (Estimate, error)

	// Findings say what ends or hurts on v, worst first.
	Findings(v Volume) []Finding

	// Scan calls fn for every inode in use, from one goroutine. since is the
	// Generation of an earlier ScanInfo: formats that can then leave out what
	// did not change since; 0 asks for all.
	//
	// The caller has synced the file system, and nobody writes to it: what is
	// still in memory only is not seen (ext, btrfs). An error of fn ends the
	// scan and is returned as it is.
	Scan(ctx context.Context, t ScanTarget, since uint64, fn func(InodeRecord) error) (ScanInfo, error)

	// ScanBatch is Scan with many records a call, without a copy of each. The
	// slice is valid during the call only.
	ScanBatch(ctx context.Context, t ScanTarget, since uint64, fn func([]InodeRecord) error) (ScanInfo, error)
}

// ErrNotThis says that the bytes are not of the format that was asked.
var ErrNotThis = errors.New("not this format")

// MakeOptions say how a volume is made.
type MakeOptions struct {
	Options    map[string]string // the format's properties, by name
	Label      string            // at most LabelMax bytes
	UUID       string            // "": a random one
	Bytes      int64             // size of the device; 0: unknown, then nothing that depends on it is checked
	Objects    int64             // objects that will be copied in; inodes are made for them and a quarter more
	Inodes     int64             // exactly how many inodes, where the format fixes them at mkfs; 0: by Objects and Bytes
	SectorSize int               // the device's logical sector; 0: unknown
}

// Tool is a program a format needs. Arg makes it print its version, Min is the
// least one ("1.43").
type Tool struct{ Name, Arg, Min string }

// Volume is what a superblock says.
type Volume struct {
	Format        string // ext2, ext3, ext4, xfs, btrfs
	Version       string // "revision 1", "V5", …: what the format calls it
	UUID, Label   string
	Bytes         int64 // of the file system, at most the device's
	BlockSize     int64
	InodeSize     int    // bytes; 0 where inodes have no fixed size
	Inodes        uint64 // fixed or allocated so far; 0: without limit
	FreeInodes    uint64
	Blocks        uint64 // in units of BlockSize
	FreeBlocks    uint64
	Features      []string // by the names the format's own tools print
	ErrorCount    uint64   // errors that the file system recorded about itself
	Clean         bool     // unmounted cleanly, no errors recorded
	NeedsRecovery bool     // a log to be replayed, or mounted now
	Limits        Limits
	Props         map[string]string // by property name: inode_size, bigtime, crc …; and facts without a property
}

// Finding is one line of `fsmigrate survey`.
type Finding struct {
	Severity string // ends, hurts, note
	What     string // what is there
	Why      string // what follows from it
	Do       string // a command, or what to do
}

// The severities of a finding, worst first.
const (
	Ends  = "ends"  // stops working at a date or a size
	Hurts = "hurts" // costs safety, space or speed now
	Note  = "note"  // worth knowing
)
