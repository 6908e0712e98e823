package ext

import (
	"fmt"
	"io"
	"strconv"

	"github.com/fsmigrate/fsmigrate/formats"
)

// format is ext2, ext3 or ext4.
type format struct{ name string }

func init() {
	for _, name := range []string{"ext2", "ext3", "ext4"} {
		formats.Register(&format{name})
	}
}

func (f *format) Name() string { return f.name }

// LabelMax is s_volume_name's size.
func (f *format) LabelMax() int { return 16 }

// Check is e2fsck that answers no to everything.
func (f *format) Check(device string) []string { return []string{"e2fsck", "-f", "-n", device} }

// Tools: 1.47 is what the options were tested with; orphan_file and others only
// matter from there on. 1.43 knows metadata_csum, 64bit and project.
func (f *format) Tools() []formats.Tool {
	return []formats.Tool{{Name: "mke2fs", Arg: "-V", Min: "1.43"}, {Name: "e2fsck", Arg: "-V", Min: "1.43"}}
}

func (f *format) MountOptions(formats.Volume) map[string]string { return map[string]string{} }

// Probe reads the superblock and the group descriptors, whose free counts are
// current on a mounted volume where the superblock's are not.
func (f *format) Probe(r io.ReaderAt, size int64) (formats.Volume, error) {
	s, err := readSuper(r, size)
	if err != nil {
		return formats.Volume{}, err
	}
	if s.kind() != f.name {
		return formats.Volume{}, fmt.Errorf("%s, which is %s: %w", f.name, s.kind(), formats.ErrNotThis)
	}
	freeInodes, freeClusters := uint64(0), uint64(0)
	err = s.eachGroup(r, func(_ uint32, g group) error {
		freeInodes += uint64(g.freeInodes)
		freeClusters += uint64(g.freeBlocks)
		return nil
	})
	if err != nil {
		return formats.Volume{}, err
	}
	return formats.Volume{
		Format: f.name, Version: "revision " + strconv.Itoa(int(s.Revision)),
		UUID: uuidString(s.UUID), Label: s.Label,
		Bytes: s.bytes(), BlockSize: s.BlockSize, InodeSize: s.InodeSize,
		Inodes: uint64(s.Inodes), FreeInodes: freeInodes,
		Blocks: s.Blocks, FreeBlocks: freeClusters * uint64(s.ClusterSize/s.BlockSize),
		Features: s.features(), ErrorCount: uint64(s.ErrorCount),
		Clean:         s.State&stateValid != 0 && s.State&stateErrors == 0 && !s.incompat(incompatRecover),
		NeedsRecovery: s.incompat(incompatRecover),
		Limits:        s.layout().limits(),
		Props:         s.props(),
	}, nil
}

func (s *super) layout() layout {
	return layout{
		kind: s.kind(), inodeSize: s.InodeSize, blockSize: s.BlockSize,
		extents: s.incompat(incompatExtents), hugeFile: s.roCompat(roHugeFile),
		dirNlink: s.roCompat(roDirNlink), largeDir: s.incompat(incompatLargedir),
		eaInode: s.incompat(incompatEAInode), dirIndex: s.compat(compatDirIndex),
		project: s.roCompat(roProject), casefold: s.incompat(incompatCasefold), bits64: s.incompat(incompat64bit),
	}
}

func (s *super) props() map[string]string {
	bit := func(b bool) string {
		if b {
			return "1"
		}
		return "0"
	}
	p := map[string]string{
		"inode_size": strconv.Itoa(s.InodeSize), "block_size": strconv.FormatInt(s.BlockSize, 10),
		"metadata_csum": bit(s.roCompat(roMetadataCsum)), "64bit": bit(s.incompat(incompat64bit)),
		"extents": bit(s.incompat(incompatExtents)), "journal": bit(s.compat(compatHasJournal)),
		"flex_bg": bit(s.incompat(incompatFlexBG)), "huge_file": bit(s.roCompat(roHugeFile)),
		"dir_nlink": bit(s.roCompat(roDirNlink)), "dir_index": bit(s.compat(compatDirIndex)),
		"large_dir": bit(s.incompat(incompatLargedir)), "ea_inode": bit(s.incompat(incompatEAInode)),
		"inline_data": bit(s.incompat(incompatInlineData)), "bigalloc": bit(s.roCompat(roBigalloc)),
		"casefold": bit(s.incompat(incompatCasefold)), "encrypt": bit(s.incompat(incompatEncrypt)),
		"quota": bit(s.roCompat(roQuota)), "project": bit(s.roCompat(roProject)), "verity": bit(s.roCompat(roVerity)),
		"reserved_percent": strconv.FormatFloat(float64(s.ReservedBlocks)*100/float64(s.Blocks), 'f', -1, 32),
		"state":            strconv.Itoa(int(s.State)), "desc_size": strconv.Itoa(s.DescSize),
	}
	if s.ErrorCount > 0 {
		p["first_error"] = s.FirstErrorFunc
		p["first_error_time"] = strconv.FormatInt(s.FirstErrorTime, 10)
		p["last_error"] = s.LastErrorFunc
		p["last_error_time"] = strconv.FormatInt(s.LastErrorTime, 10)
	}
	return p
}

func uuidString(u [16]byte) string {
	if u == [16]byte{} {
		return ""
	}
	return fmt.Sprintf("%x-%x-%x-%x-%x", u[0:4], u[4:6], u[6:8], u[8:10], u[10:16])
}
