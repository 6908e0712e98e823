package formats_test

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/fsmigrate/fsmigrate/formats"
	_ "github.com/fsmigrate/fsmigrate/formats/btrfs"
	_ "github.com/fsmigrate/fsmigrate/formats/ext"
	_ "github.com/fsmigrate/fsmigrate/formats/xfs"
)

func limitsOf(t *testing.T, spec string) formats.Limits {
	t.Helper()
	name, opts, err := formats.ParseSpec(spec)
	if err != nil {
		t.Fatal(err)
	}
	f, ok := formats.Lookup(name)
	if !ok {
		t.Fatalf("no format %s", name)
	}
	l, err := f.Limits(opts)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// narrow is a format that lacks nearly everything, as FAT or minix do.
var narrow = formats.Limits{NameBytes: 14, UIDBits: 16, GIDBits: 8, TimeMin: 0, TimeMax: math.MaxUint32,
	TimeGranularity: 2 * time.Second, MaxFile: 1 << 32, MaxLinks: 1, MaxSubdirs: 10}

// Each class at its limit, on both sides of it.
func TestMisfit(t *testing.T) {
	const reg, dir, link, fifo = 0o100000, 0o040000, 0o120000, 0o010000
	type facts = formats.Facts4Fit
	times := func(sec int64, nsec uint32) facts {
		return facts{Mode: reg, Nlink: 1, Times: [3]int64{0, sec, 0}, Nsec: [3]uint32{0, nsec, 0}}
	}
	atime := func(sec int64) facts { return facts{Mode: reg, Times: [3]int64{sec, 0, 1 << 60}} }
	xattr := func(name string, n int) facts {
		return facts{Mode: reg, Xattrs: []formats.XattrSize{{Name: name, Value: n}}}
	}
	for _, c := range []struct {
		class, spec string
		fits, lost  facts
	}{
		{"name-length", "ext4", facts{Name: strings.Repeat("n", 255)}, facts{Name: strings.Repeat("n", 256)}},
		{"name-length", "", facts{Name: strings.Repeat("n", 14)}, facts{Name: strings.Repeat("n", 15)}},
		{"uid-range", "", facts{UID: 65535}, facts{UID: 65536}},
		{"gid-range", "", facts{GID: 255}, facts{GID: 256}},
		{"time-range", "ext2:inode_size=128", times(1<<31-1, 0), times(1<<31, 0)},
		{"time-range", "ext2:inode_size=128", atime(-1 << 31), atime(-1<<31 - 1)},
		{"time-range", "ext4", times(15032385535, 0), times(15032385536, 0)},
		{"time-range", "ext4", times(-1<<31, 0), times(-1<<31-1, 0)},
		{"time-range", "xfs", times(16299260424, 0), times(16299260425, 0)},
		{"time-range", "xfs:bigtime=0", times(1<<31-1, 0), times(1<<31, 0)},
		{"time-range", "", times(math.MaxUint32-1, 0), times(math.MaxUint32+1, 0)},
		{"time-precision", "ext3:inode_size=128", times(1, 0), times(1, 1)},
		{"time-precision", "ext4", times(15032385534, 1), times(15032385535, 1)},
		{"time-precision", "", times(2, 0), times(3, 0)},
		{"file-size", "ext4", facts{Mode: reg, Size: 17592186040320}, facts{Mode: reg, Size: 17592186040321}},
		{"file-size", "", facts{Mode: reg, Size: 1 << 32}, facts{Mode: reg, Size: 1<<32 + 1}},
		{"link-count", "ext4", facts{Mode: reg, Nlink: 65000}, facts{Mode: reg, Nlink: 65001}},
		{"link-count", "ext3", facts{Mode: reg, Nlink: 32000}, facts{Mode: reg, Nlink: 32001}},
		{"link-count", "btrfs", facts{Mode: reg, Nlink: 65535}, facts{Mode: reg, Nlink: 65536}},
		{"link-count", "xfs", facts{Mode: reg, Nlink: 1<<31 - 1}, facts{Mode: reg, Nlink: 1 << 31}},
		{"subdir-count", "ext3", facts{Mode: dir, Nlink: 32000}, facts{Mode: dir, Nlink: 32001}},
		{"subdir-count", "ext4:dir_nlink=0", facts{Mode: dir, Nlink: 65000}, facts{Mode: dir, Nlink: 65001}},
		{"symlink-length", "ext4", facts{Mode: link, Target: 4095}, facts{Mode: link, Target: 4096}},
		{"symlink-length", "ext4:block_size=1024", facts{Mode: link, Target: 1023}, facts{Mode: link, Target: 1024}},
		{"symlink-length", "xfs", facts{Mode: link, Target: 1023}, facts{Mode: link, Target: 1024}},
		{"symlink-length", "btrfs:nodesize=4096", facts{Mode: link, Target: 3949}, facts{Mode: link, Target: 3950}},
		{"symlink-unsupported", "", facts{Mode: reg}, facts{Mode: link}},
		{"special-unsupported", "", facts{Mode: reg}, facts{Mode: fifo}},
		{"mode-unsupported", "", facts{Mode: reg}, facts{Mode: reg | 0o644}},
		{"xattr-size", "ext4", xattr("user.big", 4040), xattr("user.big", 4041)},
		{"xattr-size", "xfs", xattr("user.big", 65536), xattr("user.big", 65537)},
		{"xattr-size", "btrfs", xattr("user.big", 16228-8), xattr("user.big", 16228-7)},
		{"xattr-unsupported", "", facts{Mode: reg}, xattr("user.x", 0)},
		{"acl-unsupported", "", facts{Mode: reg}, xattr("system.posix_acl_access", 28)},
		{"caps-unsupported", "", facts{Mode: reg}, xattr("security.capability", 20)},
		{"inode-flag", "xfs", facts{Flags: formats.FlagImmutable | formats.FlagExtent}, facts{Flags: formats.FlagDirSync}},
		{"inode-flag", "ext4", facts{Flags: formats.FlagDirSync}, facts{Flags: formats.FlagNoCow}},
		{"encrypted", "ext4", facts{}, facts{Flags: formats.FlagEncrypt}},
		{"verity", "btrfs", facts{}, facts{Flags: formats.FlagVerity}},
		{"casefold", "ext4", facts{}, facts{Flags: formats.FlagCasefold}},
		{"project-id", "btrfs", facts{}, facts{ProjID: 1}},
		{"project-id", "ext4", facts{}, facts{ProjID: 1}},
	} {
		l := narrow
		if c.spec != "" {
			l = limitsOf(t, c.spec)
		}
		if got := formats.Misfit(l, c.fits); got != nil {
			t.Errorf("%s on %s: at the limit: %v", c.class, c.spec, got)
		}
		if got := formats.Misfit(l, c.lost); len(got) != 1 || got[0].Class != c.class || got[0].Why == "" || got[0].Always {
			t.Errorf("%s on %s: over the limit: %v", c.class, c.spec, got)
		}
	}
}

// What a format is asked to hold that it can is no loss.
func TestMisfitNone(t *testing.T) {
	xattrs := []formats.XattrSize{{Name: "user.a", Value: 60}, {Name: "user.b", Value: 4000}}
	for spec, f := range map[string]formats.Facts4Fit{
		"ext4":                    {Mode: 0o100644, Xattrs: xattrs}, // one in the inode, one in the block
		"ext4:project=1":          {Mode: 0o100644, ProjID: 7, Flags: formats.FlagProjInherit},
		"xfs":                     {Mode: 0o100644, ProjID: 7, Flags: formats.FlagProjInherit},
		"btrfs":                   {Mode: 0o100644, Flags: formats.FlagNoCow, Times: [3]int64{-1 << 40, 1 << 40, 0}},
		"ext4:ea_inode=1":         {Mode: 0o100644, Xattrs: []formats.XattrSize{{Name: "user.a", Value: 65000}}},
		"ext3:inode_size=128":     {Mode: 0o040755, Nlink: 5},
		"ext4:inode_size=128":     {Mode: 0o040755, Nlink: 100000}, // dir_nlink
		"xfs:bigtime=0,reflink=0": {Mode: 0o020644, Nlink: 2, UID: 1<<32 - 2},
	} {
		if got := formats.Misfit(limitsOf(t, spec), f); got != nil {
			t.Errorf("%s: %v", spec, got)
		}
	}
	// FACTS: a 65,000-byte xattr fits xfs and is ENOSPC on ext4.
	big := formats.Facts4Fit{Mode: 0o100644, Xattrs: []formats.XattrSize{{Name: "user.a", Value: 65000}}}
	if formats.Misfit(limitsOf(t, "xfs"), big) != nil || formats.Misfit(limitsOf(t, "ext4"), big) == nil {
		t.Error("a 65,000-byte xattr")
	}
}

func TestPairFit(t *testing.T) {
	x, e := limitsOf(t, "xfs"), limitsOf(t, "ext4")
	if got := formats.PairFit(e, x); len(got) != 1 || got[0].Class != formats.LossIdentity || !got[0].Always {
		t.Errorf("ext4 to xfs: %v", got)
	}
	if got := formats.PairFit(x, e); len(got) != 2 || got[1].Class != formats.LossReflink || !got[1].Always {
		t.Errorf("xfs to ext4: %v", got)
	}
}

// A hashed directory on 1 KiB blocks was full at 6.03 MB of entries, with 94,270
// names of 56 bytes; 500,000 entries fit 4 KiB blocks.
func TestTreeMisfit(t *testing.T) {
	var s formats.TreeStats
	s.ObserveDir(94270, 94270*55)
	if got := formats.TreeMisfit(limitsOf(t, "ext4:block_size=1024"), s); len(got) != 1 || got[0].Class != formats.LossDirectory {
		t.Errorf("1 KiB blocks: %v", got)
	}
	if got := formats.TreeMisfit(limitsOf(t, "ext4:block_size=1024,large_dir=1"), s); got != nil {
		t.Errorf("large_dir: %v", got)
	}
	s.ObserveDir(500000, 500000*200)
	for _, spec := range []string{"ext4", "xfs", "btrfs"} {
		if got := formats.TreeMisfit(limitsOf(t, spec), s); got != nil {
			t.Errorf("%s: %v", spec, got)
		}
	}
}
