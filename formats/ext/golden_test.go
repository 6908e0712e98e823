package ext_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/fsmigrate/fsmigrate/formats"
	"github.com/fsmigrate/fsmigrate/formats/ext"
	"github.com/fsmigrate/fsmigrate/formats/formattest"
)

var goldens = []string{"ext2-rev0", "ext2-rev1", "ext3-128", "ext4-1k", "ext4-1k-inline"}

// Images that mke2fs and the kernel made, with what debugfs and the kernel found.
func TestGolden(t *testing.T) {
	for _, name := range goldens {
		t.Run(name, func(t *testing.T) {
			image, m := formattest.Golden(t, "ext", name)
			r := bytes.NewReader(image)
			v, f, err := formats.ProbeAny(r, int64(len(image)))
			if err != nil {
				t.Fatal(err)
			}
			if f.Name() != m.Version || v.InodeSize != m.InodeSize || !v.Clean || v.ErrorCount != 0 {
				t.Errorf("probed %+v, the manifest says %s, inodes of %d", v, m.Version, m.InodeSize)
			}
			if want := strings.Trim(m.Features, "()"); want != "none" {
				if got := strings.Join(v.Features, " "); !sameWords(got, want) {
					t.Errorf("features %q, want %q", got, want)
				}
			}
			want := map[uint64]formattest.ManifestObject{}
			for _, o := range m.Objects {
				want[o.Ino] = o
			}
			last := uint64(0)
			info, err := ext.ScanImage(t.Context(), r, int64(len(image)), func(recs []formats.InodeRecord) error {
				for _, rec := range recs {
					if rec.Ino <= last {
						t.Errorf("inode %d came after %d", rec.Ino, last)
					}
					last = rec.Ino
					o, ok := want[rec.Ino]
					if !ok || !o.Equal(rec) {
						t.Errorf("inode %d: got %+v, the manifest %+v", rec.Ino, rec, o)
					}
				}
				return nil
			})
			if err != nil || info.Inodes != int64(len(want)) {
				t.Errorf("%d of %d inodes found: %v", info.Inodes, len(want), err)
			}
		})
	}
}

func sameWords(a, b string) bool {
	as, bs := map[string]bool{}, map[string]bool{}
	for _, w := range strings.Fields(a) {
		as[w] = true
	}
	for _, w := range strings.Fields(b) {
		bs[w] = true
		if !as[w] {
			return false
		}
	}
	return len(as) == len(bs)
}
