package formats_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fsmigrate/fsmigrate/formats"
	"github.com/fsmigrate/fsmigrate/formats/formattest"
)

// trees are the shapes that the estimate is calibrated with.
var trees = []struct {
	name string
	make func(t *testing.T, dir string, r *rand.Rand)
}{
	{"small", func(t *testing.T, dir string, r *rand.Rand) {
		for i := range 6000 {
			write(t, filepath.Join(dir, fmt.Sprintf("d%d/e%d/some-file-%d.txt", i%20, i%7, i)), r.ExpFloat64()*4096)
		}
	}},
	{"mixed", func(t *testing.T, dir string, r *rand.Rand) {
		for i := range 1500 {
			p := filepath.Join(dir, fmt.Sprintf("d%d/file-%d", i%50, i))
			write(t, p, 1000*pow2(r.Float64()*8.5))
			switch i % 10 {
			case 0:
				must(t, os.Symlink("../target/of/"+strings.Repeat("x", i%80), p+".link"))
			case 1:
				must(t, os.Link(p, p+".hard"))
			case 2:
				must(t, unix.Setxattr(p, "user.small", []byte("twenty bytes of this"), 0))
			case 3:
				must(t, unix.Setxattr(p, "user.large", []byte(fmt.Sprintf("%0600d", i)), 0))
			}
		}
	}},
	{"large", func(t *testing.T, dir string, r *rand.Rand) {
		for i := range 5 {
			write(t, filepath.Join(dir, fmt.Sprintf("f%d", i)), 10e6+r.Float64()*10e6)
		}
	}},
	{"deep", func(t *testing.T, dir string, r *rand.Rand) {
		for range 1500 {
			p := dir
			for range 1 + r.IntN(12) {
				p = filepath.Join(p, fmt.Sprintf("directory-%d", r.IntN(3)))
			}
			must(t, os.MkdirAll(p, 0o755))
			write(t, filepath.Join(p, fmt.Sprintf("leaf%d", r.IntN(1000))), 100)
		}
	}},
	{"wide", func(t *testing.T, dir string, r *rand.Rand) {
		for i := range 8000 {
			write(t, filepath.Join(dir, fmt.Sprintf("one/message-%032x.eml", i*7919)), 0)
		}
	}},
}

func pow2(x float64) float64 {
	y := 1.0
	for ; x >= 1; x-- {
		y *= 2
	}
	return y * (1 + x)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, path string, size float64) {
	t.Helper()
	must(t, os.MkdirAll(filepath.Dir(path), 0o755))
	b := make([]byte, int(size))
	for i := range b {
		b[i] = byte(i*7 + len(path))
	}
	must(t, os.WriteFile(path, b, 0o644))
}

// The estimate is right to within 5 %, plus the stated margin, for trees of
// every shape in every format, measured with statfs on real volumes.
func TestEstimate(t *testing.T) {
	const size = 2 << 30
	for _, tree := range trees {
		t.Run(tree.name, func(t *testing.T) {
			source := t.TempDir()
			tree.make(t, source, rand.New(rand.NewPCG(1, 2)))
			stats := formattest.Survey(t, source)
			for _, spec := range []string{"ext4", "ext3:block_size=1024,inode_size=128", "xfs", "xfs:rmapbt=1,inode_size=1024", "btrfs", "btrfs:metadata=single"} {
				name, opts, err := formats.ParseSpec(spec)
				must(t, err)
				f, _ := formats.Lookup(name)
				e, err := f.Estimate(stats, opts, size)
				must(t, err)
				v := formattest.MakeWith(t, f, formats.MakeOptions{Options: opts, Bytes: size, Objects: stats.Objects()})
				v.Mount(name, "")
				before, empty := v.Free(), int64(size)-v.Free()
				formattest.Run(t, "cp", "-a", source+"/.", v.Dir)
				v.Unmount()
				v.Mount(name, "") // what was reserved while it was written is given back
				tookTree, used, inodes := before-v.Free(), v.Used(), usedInodes(t, v.Dir)
				v.Unmount()
				t.Logf("%-28s tree %7d KiB, estimated %7d (%+6.2f %%); empty %7d, %7d; statfs %7d, %7d (%+6.2f %%)",
					spec, tookTree>>10, e.Bytes>>10, percent(e.Bytes, tookTree), empty>>10, e.OverheadBytes>>10,
					used>>10, e.UsedBytes>>10, percent(e.UsedBytes, used))
				// Half a MiB is a few nodes: more than 5 % of the smallest trees.
				if p := percent(e.UsedBytes, used); (p > 5 || p < -5) && max(used-e.UsedBytes, e.UsedBytes-used) > 512<<10 {
					t.Errorf("%s: estimated %d bytes used, statfs says %d (%+.2f %%)", spec, e.UsedBytes, used, p)
				}
				if e.Need() < used+e.OverheadBytes-empty || e.OverheadBytes < empty*99/100 {
					t.Errorf("%s: %d bytes would be said to be enough", spec, e.Need())
				}
				if e.Inodes != stats.Objects() || strings.HasPrefix(name, "ext") && inodes-e.Inodes > 16 {
					t.Errorf("%s: estimated %d inodes, statfs says %d", spec, e.Inodes, inodes)
				}
			}
		})
	}
}

func percent(got, want int64) float64 { return float64(got-want) * 100 / float64(want) }

func usedInodes(t *testing.T, dir string) int64 {
	t.Helper()
	var st unix.Statfs_t
	must(t, unix.Statfs(dir, &st))
	return int64(st.Files - st.Ffree)
}

// What an empty file system takes grows with the device by other rules than the tree.
func TestOverhead(t *testing.T) {
	for spec, size := range map[string]int64{
		"ext4": 20 << 30, "ext4:journal_size=64": 100 << 30, "ext2:block_size=1024": 10 << 30, "ext4:inode_size=512,bytes_per_inode=65536,64bit=0": 6 << 30,
		"xfs": 60 << 30, "xfs:rmapbt=1,agcount=10": 20 << 30, "xfs:reflink=0,finobt=0": 10 << 30,
		"btrfs": 60 << 30,
	} {
		t.Run(spec, func(t *testing.T) {
			name, opts, err := formats.ParseSpec(spec)
			must(t, err)
			f, _ := formats.Lookup(name)
			e, err := f.Estimate(formats.TreeStats{}, opts, size)
			must(t, err)
			v := formattest.Make(t, f, size, opts)
			v.Mount(name, "")
			empty, used := size-v.Free(), v.Used()
			t.Logf("%d MiB: empty %d KiB, estimated %d (%+.2f %%); statfs %d, %d", size>>20, empty>>10, e.OverheadBytes>>10,
				percent(e.OverheadBytes, empty), used>>10, e.UsedBytes>>10)
			if p := percent(e.OverheadBytes, empty); name != "btrfs" && (p > 2 || p < -2) {
				t.Errorf("overhead: estimated %d bytes, it takes %d", e.OverheadBytes, empty)
			}
			if d := e.UsedBytes - used; d > size/1000 || d < -size/1000 {
				t.Errorf("used: estimated %d bytes, statfs says %d", e.UsedBytes, used)
			}
		})
	}
}
