package copier

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/zeebo/blake3"
	"golang.org/x/sys/unix"

	"github.com/fsmigrate/fsmigrate/blockdev/blocktest"
)

// contentDigest is what DigestVersion says, written down once more over bytes in memory.
func contentDigest(data []byte) [32]byte {
	const block = 1 << 20
	if len(data) <= block {
		return blake3.Sum256(data)
	}
	var list []byte
	for i := 0; i*block < len(data); i++ {
		b := data[i*block : min((i+1)*block, len(data))]
		if len(bytes.Trim(b, "\x00")) == 0 {
			continue
		}
		sum := blake3.Sum256(b)
		list = append(binary.LittleEndian.AppendUint64(list, uint64(i)), sum[:]...)
	}
	list = binary.LittleEndian.AppendUint64(list, 1<<64-1)
	return blake3.Sum256(binary.LittleEndian.AppendUint64(list, uint64(len(data))))
}

// However a content comes, in whatever pieces and with whichever zeros as holes, its digest
// is that of its bytes.
func TestDigestIsOfTheBytes(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	var d digester
	for round := range 300 {
		var data []byte
		d.reset()
		for range rnd.IntN(8) {
			n := []int{1, 4096, 70_000, 1<<20 - 1, 1 << 20, 1<<20 + 1, 3 << 20}[rnd.IntN(7)]
			piece := make([]byte, n)
			if rnd.IntN(2) == 0 {
				piece[rnd.IntN(n)] = byte(1 + rnd.IntN(255))
				if rnd.IntN(2) == 0 {
					piece[0], piece[n-1] = 7, 9
				}
				d.add(piece)
			} else if rnd.IntN(2) == 0 {
				d.add(piece)
			} else {
				d.hole(int64(n))
			}
			data = append(data, piece...)
		}
		if got := d.sum(); got != contentDigest(data) {
			t.Fatalf("round %d: the digest of %d bytes depends on how they came", round, len(data))
		}
	}
}

// Contents that differ only in where their zeros are have different digests.
func TestDigestTellsZerosApart(t *testing.T) {
	const mib = 1 << 20
	seen := map[[32]byte]string{}
	note := func(name string, at int64, size int64) {
		var d digester
		d.reset()
		if at >= 0 {
			d.hole(at)
			d.add([]byte{1})
			size -= at + 1
		}
		d.hole(size)
		sum := d.sum()
		if other, dup := seen[sum]; dup {
			t.Errorf("%s and %s have one digest", name, other)
		}
		seen[sum] = name
	}
	for _, size := range []int64{0, 1, mib - 1, mib, mib + 1, 2 * mib, 3 * mib, 3*mib + 1, 1 << 44} {
		for _, at := range []int64{-1, 0, 1, mib - 1, mib, mib + 1, 2 * mib, 3 * mib} {
			if at < size {
				note(fmt.Sprintf("%d bytes with a 1 at %d", size, at), at, size)
			}
		}
	}
}

// A file is as equal with holes as with zeros, however it is read; also where holes begin
// between the pages that a direct read needs.
func TestDigestOfHolesIsThatOfZeros(t *testing.T) {
	for _, c := range [][]string{{"ext4", "-b", "1024"}, {"ext4"}, {"xfs"}, {"btrfs"}} {
		t.Run(fmt.Sprint(c), func(t *testing.T) {
			dir, _ := blocktest.NewVolume(t, c[0], 320<<20, c[1:]...)
			data := make([]byte, 20<<20+777)
			holes := openFile(t, filepath.Join(dir, "holes"), os.O_RDWR|os.O_CREATE)
			must(t, holes.Truncate(int64(len(data))))
			for i, at := range []int{0, 5 << 20, 5<<20 + 9216, 7<<20 - 5, 12<<20 + 3072, len(data) - 1} {
				data[at] = byte(i + 1)
				_, err := holes.WriteAt(data[at:at+1], int64(at))
				must(t, err)
			}
			must(t, holes.Sync())
			dense := openFile(t, filepath.Join(dir, "dense"), os.O_RDWR|os.O_CREATE)
			_, err := dense.Write(data)
			must(t, err)
			must(t, dense.Sync())
			want := contentDigest(data)
			for _, f := range []*os.File{holes, dense} {
				for _, o := range []DigestOptions{{}, {Sparse: true}, {Direct: true}, {Sparse: true, Direct: true}, {Sparse: true, Overlap: true}, {Sparse: true, RangeSize: 192 << 10}} {
					got, err := Digest(t.Context(), f, int64(len(data)), o)
					if err != nil || got != want {
						t.Errorf("%s with %+v: %v, equal %v", f.Name(), o, err, got == want)
					}
				}
			}
			into := openFile(t, filepath.Join(dir, "into"), os.O_RDWR|os.O_CREATE)
			for _, o := range []CopyOptions{{Sparse: true}, {}, {Punch: true}, {Sparse: true, NoRanges: true}} {
				r, err := CopyData(t.Context(), holes, into, int64(len(data)), o)
				if err != nil || r.Digest != want || (len(r.Ranges) == 0) != o.NoRanges {
					t.Errorf("copy with %+v: %v, equal %v, %d ranges", o, err, r.Digest == want, len(r.Ranges))
				}
				must(t, into.Sync())
				var st unix.Stat_t
				must(t, unix.Fstat(int(into.Fd()), &st))
				if dense := !o.Sparse && !o.Punch; (st.Blocks*512 >= int64(len(data))) != dense {
					t.Errorf("copy with %+v takes %d bytes", o, st.Blocks*512)
				}
			}
		})
	}
}

// A file of 16 TiB that is hole for the most part is copied, copied again over itself and
// read back by what it holds.
func TestHugeSparseFile(t *testing.T) {
	const tib = int64(1) << 40
	for _, c := range []struct {
		from, to string
		size     int64
	}{{"ext4", "xfs", 16*tib - 4096}, {"xfs", "ext4", 9 * tib}, {"xfs", "btrfs", 40 * tib}, {"btrfs", "xfs", 9*tib + 5}} {
		t.Run(c.from+"-"+c.to, func(t *testing.T) {
			a, _ := blocktest.NewVolume(t, c.from, 512<<20, fourK(c.from)...)
			b, _ := blocktest.NewVolume(t, c.to, 512<<20, fourK(c.to)...)
			src := openFile(t, filepath.Join(a, "f"), os.O_RDWR|os.O_CREATE)
			dst := openFile(t, filepath.Join(b, "f"), os.O_RDWR|os.O_CREATE)
			must(t, src.Truncate(c.size))
			for _, at := range []int64{0, 3<<20 + 17, tib, tib + 5<<20, c.size - 9} {
				_, err := src.WriteAt([]byte("data here"), at)
				must(t, err)
			}
			must(t, src.Sync())
			o := CopyOptions{Sparse: true, NoRanges: true}
			first, err := CopyData(t.Context(), src, dst, c.size, o)
			must(t, err)
			_, err = src.WriteAt([]byte("more data"), 5*tib+12345)
			must(t, err)
			must(t, src.Sync())
			second, err := CopyData(t.Context(), src, dst, c.size, o)
			must(t, err)
			if first.Digest == second.Digest || second.Size != c.size || second.Read > 64<<20 {
				t.Errorf("digests differ %v, size %d, read %d", first.Digest != second.Digest, second.Size, second.Read)
			}
			must(t, dst.Sync())
			for _, o := range []DigestOptions{{Sparse: true}, {Sparse: true, Direct: true}} {
				if d, err := Digest(t.Context(), dst, c.size, o); err != nil || d != second.Digest {
					t.Errorf("read back: %v, equal %v", err, d == second.Digest)
				}
			}
			got := make([]byte, 9)
			for _, at := range []int64{0, 3<<20 + 17, tib, tib + 5<<20, c.size - 9} {
				if _, err := dst.ReadAt(got, at); err != nil || string(got) != "data here" {
					t.Errorf("at %d: %q, %v", at, got, err)
				}
			}
		})
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func fourK(format string) []string {
	if format == "ext4" {
		return []string{"-b", "4096"}
	}
	return nil
}
