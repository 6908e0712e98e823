package formats_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/fsmigrate/fsmigrate/formats"
	"github.com/fsmigrate/fsmigrate/formats/formattest"
)

// What survey says of volumes that the real mkfs made: each thing that was left
// out is found, and a volume made with defaults has nothing.
func TestFindings(t *testing.T) {
	for spec, want := range map[string][]string{
		"ext4":                {},
		"xfs":                 {},
		"btrfs":               {},
		"ext4:inode_size=128": {"128-byte inodes"},
		"ext4:metadata_csum=0,64bit=0,extents=0,journal=0": {"no journal", "no extents", "no metadata checksums", "no 64bit feature"},
		"ext2:inode_size=128":                              {"128-byte inodes", "ext2"},
		"ext3":                                             {"ext3"},
		"xfs:bigtime=0,reflink=0,inobtcount=0":             {"no bigtime", "no reflink", "no inobtcount"},
		"xfs:crc=0,ftype=0":                                {"XFS V4 (crc=0)", "no ftype"},
		"btrfs:no_holes=0,free_space_tree=0":               {"no free space tree", "no no-holes"},
	} {
		t.Run(spec, func(t *testing.T) {
			name, opts, err := formats.ParseSpec(spec)
			if err != nil {
				t.Fatal(err)
			}
			f, _ := formats.Lookup(name)
			v := formattest.Make(t, f, 320<<20, opts).Probe()
			var got []string
			for _, x := range f.Findings(v) {
				got = append(got, x.What)
				if x.Why == "" || x.Do == "" || !slices.Contains([]string{formats.Ends, formats.Hurts, formats.Note}, x.Severity) {
					t.Errorf("incomplete: %+v", x)
				}
			}
			if !slices.Equal(got, want) {
				t.Errorf("found %q, want %q", got, want)
			}
		})
	}
}

func TestFindingsOfState(t *testing.T) {
	f, _ := formats.Lookup("ext4")
	v := formattest.Make(t, f, 64<<20, nil).Probe()
	v.ErrorCount, v.FreeInodes = 3, v.Inodes*14/100
	v.Props["first_error"], v.Props["first_error_time"] = "ext4_lookup", "1700000000"
	got := f.Findings(v)
	if len(got) != 2 || got[0].Severity != formats.Ends || got[1].What != "3 errors recorded, the first on 2023-11-14 in ext4_lookup" {
		t.Errorf("%+v", got)
	}
	v.ErrorCount, v.FreeInodes = 0, v.Inodes*16/100
	if got := f.Findings(v); len(got) != 0 {
		t.Errorf("84 %% of the inodes: %+v", got)
	}
}

// Two valid signatures are not guessed at.
func TestProbeAnyAmbiguous(t *testing.T) {
	ext, _ := formats.Lookup("ext4")
	btrfs, _ := formats.Lookup("btrfs")
	v := formattest.Make(t, ext, 256<<20, nil)
	w := formattest.Make(t, btrfs, 256<<20, nil)
	// The btrfs superblock lies in the ext4 volume's inode tables or descriptors.
	formattest.Run(t, "dd", "if="+w.Device, "of="+v.Device, "bs=4096", "skip=16", "seek=16", "count=1", "conv=notrunc,fsync", "status=none")
	f := formattest.Open(t, v.Device)
	if _, _, err := formats.ProbeAny(f, 256<<20); err == nil || errors.Is(err, formats.ErrNotThis) {
		t.Errorf("two signatures: %v", err)
	}
}
