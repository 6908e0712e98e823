package shadow

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// A file of 16 TiB that is hole for the most part costs what it holds, in each of: the walk, a
// pass, the comparison, the proof, and the copy of every byte's present state after a difference.
func TestPairHugeSparseFile(t *testing.T) {
	const tib = int64(1) << 40
	for _, c := range []struct {
		from, to string
		size     int64
	}{{"ext4", "xfs", 16*tib - 4096}, {"xfs", "btrfs", 20 * tib}} {
		t.Run(c.from+"-"+c.to, func(t *testing.T) {
			var options []string
			if c.from == "ext4" {
				options = []string{"-b", "4096"}
			}
			r := newSyncRig(t, c.from, c.to, options...)
			ctx := context.Background()
			f, err := os.Create(filepath.Join(r.src, "huge"))
			must(t, err)
			defer f.Close()
			must(t, f.Truncate(c.size))
			put := func(f *os.File, s string, offs ...int64) {
				t.Helper()
				for _, at := range offs {
					_, err := f.WriteAt([]byte(s), at)
					must(t, err)
				}
			}
			ends := []int64{0, 5 << 20, tib + 123, 7*tib - 2, c.size - 4}
			put(f, "data", ends...)
			must(t, r.p.walk(ctx))
			put(f, "more", 3*tib)
			must(t, unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 5<<20, 4096))
			r.quiet()
			proof, err := r.p.verifyAll(ctx)
			must(t, err)
			if proof.Different != 0 || proof.Bytes > 64<<20 {
				t.Errorf("proof %+v", proof)
			}
			// What differs on the shadow is found, where one side is a hole too.
			g, err := os.OpenFile(filepath.Join(r.dst, "huge"), os.O_RDWR, 0)
			must(t, err)
			defer g.Close()
			got := make([]byte, 4)
			for _, at := range []int64{2*tib + 77, tib + 123} {
				var st unix.Stat_t
				must(t, unix.Fstat(int(g.Fd()), &st))
				old := make([]byte, 4)
				_, err = g.ReadAt(old, at)
				must(t, err)
				put(g, "ERR!", at)
				times := []unix.Timespec{st.Atim, st.Mtim}
				must(t, unix.UtimesNanoAt(unix.AT_FDCWD, filepath.Join(r.dst, "huge"), times, 0))
				n := r.node("huge")
				rec, _, err := r.p.nodes.Get(n)
				must(t, err)
				r.p.unverify(&rec)
				must(t, r.p.nodes.Put(n, &rec))
				if proof, err = r.p.verifyAll(ctx); err != nil || proof.Different != 1 {
					t.Fatalf("an error at %d: %+v, %v", at, proof, err)
				}
				r.quiet()
				if _, err = g.ReadAt(got, at); err != nil || string(got) != string(old) {
					t.Errorf("at %d after it was copied again: %q, %v", at, got, err)
				}
			}
			r.settle()
			for _, at := range append(ends, 3*tib) {
				want := map[bool]string{true: "more", false: "data"}[at == 3*tib]
				if at == 5<<20 {
					want = "\x00\x00\x00\x00"
				}
				if _, err := g.ReadAt(got, at); err != nil || string(got) != want {
					t.Errorf("at %d: %q, want %q: %v", at, got, want, err)
				}
			}
			var st unix.Stat_t
			must(t, unix.Fstat(int(g.Fd()), &st))
			if st.Size != c.size || st.Blocks*512 > 64<<20 {
				t.Errorf("size %d, %d bytes on the disk", st.Size, st.Blocks*512)
			}
		})
	}
}
