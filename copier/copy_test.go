package copier

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"github.com/fsmigrate/fsmigrate/blockdev/blocktest"
	"github.com/zeebo/blake3"
	"golang.org/x/sys/unix"
)

func randomBytes(seed uint64, n int) []byte {
	b := make([]byte, n)
	var key [32]byte
	key[0] = byte(seed)
	_, _ = rand.NewChaCha8(key).Read(b)
	return b
}

func openFile(t testing.TB, path string, flags int) *os.File {
	t.Helper()
	f, err := os.OpenFile(path, flags, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func readBack(t testing.TB, path string) []byte {
	t.Helper()
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// Around every boundary of the code: empty, one buffer, one range, the pipeline,
// ranges; onto new targets, longer and shorter ones.
func TestCopySizes(t *testing.T) {
	dir := t.TempDir()
	b := NewBuffers()
	for _, size := range []int{0, 1, 4095, 4096, dataBytes - 1, dataBytes, dataBytes + 1, pipelineMin - 1, pipelineMin, pipelineMin + 5, RangedMin - 1, RangedMin, RangedMin + 12345} {
		data := randomBytes(uint64(size), size)
		writeFile(t, dir+"/src", data)
		src := openFile(t, dir+"/src", os.O_RDONLY)
		for _, old := range []int{-1, 0, size / 2, size + 5000} {
			path := fmt.Sprintf("%s/dst%d", dir, old)
			if old >= 0 {
				writeFile(t, path, bytes.Repeat([]byte{'o'}, old))
			}
			for _, sparse := range []bool{false, true} {
				dst := openFile(t, path, os.O_RDWR|os.O_CREATE)
				r, err := CopyData(t.Context(), src, dst, int64(size), CopyOptions{Fresh: old < 0 && !sparse, Sparse: sparse, Buffers: b, Overlap: old > 0})
				if err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(readBack(t, path), data) {
					t.Errorf("size %d over %d, sparse %v: content differs", size, old, sparse)
				}
				if r.Digest != contentDigest(data) || r.Size != int64(size) || r.Read != int64(size) || r.Written != int64(size) {
					t.Errorf("size %d over %d, sparse %v: %+v", size, old, sparse, r)
				}
				if want := (size + dataBytes - 1) / dataBytes; size >= RangedMin && len(r.Ranges) != want || size < RangedMin && r.Ranges != nil {
					t.Errorf("size %d: %d ranges", size, len(r.Ranges))
				}
				for _, o := range []DigestOptions{{}, {Direct: true}, {Sparse: true, Direct: true, Buffers: b, Overlap: true}} {
					if err := dst.Sync(); err != nil {
						t.Fatal(err)
					}
					if d, err := Digest(t.Context(), dst, int64(size), o); err != nil || d != r.Digest {
						t.Errorf("size %d: digest %+v: %x: %v", size, o, d, err)
					}
				}
			}
		}
	}
	if got := hex.EncodeToString(func() []byte { d := blake3.Sum256(nil); return d[:] }()); got != "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262" {
		t.Errorf("blake3 of nothing is %s", got)
	}
}

// Holes go along, on every format: new targets, and over targets full of data.
func TestCopyHoles(t *testing.T) {
	for _, format := range formatsTested {
		dir := testVolume(t, format)
		const size = 12<<20 + 777
		want := make([]byte, size)
		f := openFile(t, dir+"/src", os.O_RDWR|os.O_CREATE)
		if err := f.Truncate(size); err != nil {
			t.Fatal(err)
		}
		for _, at := range []int{0, 64 << 10, 3<<20 - 4096, 3 << 20, 9<<20 + 8192} {
			p := randomBytes(uint64(at), 4096)
			copy(want[at:], p)
			if _, err := f.WriteAt(p, int64(at)); err != nil {
				t.Fatal(err)
			}
		}
		if err := f.Sync(); err != nil {
			t.Fatal(err)
		}
		for _, over := range []string{"new", "full"} {
			path := dir + "/" + over
			if over == "full" {
				writeFile(t, path, bytes.Repeat([]byte{1}, size+9000))
			}
			dst := openFile(t, path, os.O_RDWR|os.O_CREATE)
			r, err := CopyData(t.Context(), f, dst, size, CopyOptions{Sparse: true, Fresh: over == "new"})
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(readBack(t, path), want) || r.Digest != contentDigest(want) {
				t.Errorf("%s: %s: content differs", format, over)
			}
			if r.Holes+r.Written != size || r.Read != r.Written || r.Written > 128<<10 {
				t.Errorf("%s: %s: %+v", format, over, r)
			}
			if err := dst.Sync(); err != nil {
				t.Fatal(err)
			}
			if a := attrOf(t, path); a.Blocks > 1024 || !a.Sparse() {
				t.Errorf("%s: %s: %d blocks", format, over, a.Blocks)
			}
			if d, err := Digest(t.Context(), dst, size, DigestOptions{Sparse: true, Direct: true}); err != nil || d != r.Digest {
				t.Errorf("%s: %s: read back %x: %v", format, over, d, err)
			}
		}
		// Without trust in holes every zero is written: none is turned into a hole.
		dst := openFile(t, dir+"/dense", os.O_RDWR|os.O_CREATE)
		r, err := CopyData(t.Context(), f, dst, size, CopyOptions{Fresh: true})
		if err != nil || r.Written != size || r.Holes != 0 || r.Digest != contentDigest(want) {
			t.Errorf("%s: dense: %+v: %v", format, r, err)
		}
	}
}

// An unflushed file may show holes over data; a copy that reads every byte does not care.
func TestCopyDenseIgnoresHoles(t *testing.T) {
	dir := testVolume(t, "ext4")
	f := openFile(t, dir+"/f", os.O_RDWR|os.O_CREATE)
	want := make([]byte, 6<<20)
	for i := range 200 {
		at := i * 31 << 10 % (len(want) - 4096)
		p := randomBytes(uint64(i), 4096)
		copy(want[at:], p)
		if _, err := f.WriteAt(p, int64(at)); err != nil {
			t.Fatal(err)
		}
		if i%7 == 0 {
			n := int64(at) &^ 4095
			if err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, n, 4096); err != nil {
				t.Fatal(err)
			}
			clear(want[n : n+4096])
		}
	}
	if err := f.Truncate(int64(len(want))); err != nil {
		t.Fatal(err)
	}
	dst := openFile(t, dir+"/g", os.O_RDWR|os.O_CREATE)
	if _, err := CopyData(t.Context(), f, dst, int64(len(want)), CopyOptions{Fresh: true}); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(readBack(t, dir+"/g"), want) {
		t.Error("content differs")
	}
}

// A copy that follows writes only ranges that differ, and never reads the target:
// it is opened for writing alone.
func TestCopyRanges(t *testing.T) {
	for _, sparse := range []bool{false, true} {
		dir := testVolume(t, "xfs")
		data := randomBytes(1, 16<<20+100)
		writeFile(t, dir+"/src", data)
		src := openFile(t, dir+"/src", os.O_RDWR)
		dst := openFile(t, dir+"/dst", os.O_WRONLY|os.O_CREATE)
		first, err := CopyData(t.Context(), src, dst, int64(len(data)), CopyOptions{Fresh: true})
		if err != nil {
			t.Fatal(err)
		}
		step := func(name string, size int, want int64) {
			t.Helper()
			if err := src.Sync(); err != nil {
				t.Fatal(err)
			}
			r, err := CopyData(t.Context(), src, dst, int64(size), CopyOptions{Ranges: first.Ranges, Sparse: sparse})
			if err != nil {
				t.Fatal(err)
			}
			now := readBack(t, dir+"/src")[:size]
			if !bytes.Equal(readBack(t, dir+"/dst"), now) || r.Digest != contentDigest(now) {
				t.Errorf("%s, sparse %v: content differs", name, sparse)
			}
			if r.Written != want || r.Written+r.Holes+r.Skipped != int64(size) {
				t.Errorf("%s, sparse %v: %+v", name, sparse, r)
			}
			first = r
		}
		step("nothing changed", len(data), 0)
		if _, err := src.WriteAt([]byte("changed"), 5<<20+1); err != nil {
			t.Fatal(err)
		}
		step("one range", len(data), 1<<20)
		if err := src.Truncate(int64(len(data)) + 4096); err != nil {
			t.Fatal(err)
		}
		step("grown", len(data)+4096, map[bool]int64{false: 100 + 4096, true: 4096}[sparse])
		if err := unix.Fallocate(int(src.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 2<<20, 1<<20); err != nil {
			t.Fatal(err)
		}
		step("punched", len(data)+4096, map[bool]int64{false: 1 << 20, true: 0}[sparse])
		if err := src.Truncate(10 << 20); err != nil {
			t.Fatal(err)
		}
		step("shrunk", 10<<20, 0)
	}
}

// A source that ends before the size it was seen with: the copy ends there too.
func TestCopyOfAFileThatShrank(t *testing.T) {
	dir := t.TempDir()
	for _, size := range []int{0, 100, 2 << 20, 5 << 20, 20 << 20} {
		data := randomBytes(3, size)
		writeFile(t, dir+"/src", data)
		for _, sparse := range []bool{false, true} {
			dst := openFile(t, dir+"/dst", os.O_RDWR|os.O_CREATE)
			r, err := CopyData(t.Context(), openFile(t, dir+"/src", os.O_RDONLY), dst, int64(size+9<<20), CopyOptions{Sparse: sparse})
			if err != nil {
				t.Fatal(err)
			}
			if sparse { // its end is a hole like any other until somebody looks again
				continue
			}
			if r.Size != int64(size) || r.Digest != contentDigest(data) || !bytes.Equal(readBack(t, dir+"/dst"), data) {
				t.Errorf("size %d: %+v", size, r)
			}
			if _, err := Digest(t.Context(), dst, int64(size)+1, DigestOptions{}); !errors.Is(err, ErrShort) {
				t.Errorf("size %d: digest of more than there is: %v", size, err)
			}
		}
	}
}

// A full spare is the target's error, an unreadable source the source's.
func TestCopyErrorsNameTheirSide(t *testing.T) {
	small := blocktest.MountTemp(t, blocktest.NewDevice(t, "ext4", 32<<20), "ext4")
	dir := t.TempDir()
	for _, size := range []int{300, 1 << 20, 3 << 20, 60 << 20} {
		writeFile(t, dir+"/src", randomBytes(4, size))
		src := openFile(t, dir+"/src", os.O_RDONLY)
		if size < 60<<20 {
			filler := openFile(t, small+"/filler", os.O_WRONLY|os.O_CREATE)
			_ = unix.Fallocate(int(filler.Fd()), 0, 0, 31<<20)
			blocktest.Run(t, "sh", "-c", "dd if=/dev/zero of="+small+"/filler2 bs=4k 2>/dev/null || true")
		}
		_, err := CopyData(t.Context(), src, openFile(t, small+"/dst", os.O_RDWR|os.O_CREATE), int64(size), CopyOptions{Fresh: true, WriteBehind: true, Overlap: size > 50<<20})
		if !Full(err) {
			t.Errorf("size %d onto a full volume: %v", size, err)
		}
		blocktest.Run(t, "sh", "-c", "rm -f "+small+"/*ller* "+small+"/dst")
		var source *SourceError
		_, err = CopyData(t.Context(), openFile(t, dir, os.O_RDONLY), openFile(t, dir+"/dst", os.O_RDWR|os.O_CREATE), int64(size), CopyOptions{Fresh: true})
		if !errors.As(err, &source) || !errors.Is(err, unix.EISDIR) {
			t.Errorf("size %d from what cannot be read: %v", size, err)
		}
	}
}

func TestCopyStopsWithItsContext(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, dir+"/src", randomBytes(5, 20<<20))
	for _, size := range []int64{100, 2 << 20, 20 << 20} {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := CopyData(ctx, openFile(t, dir+"/src", os.O_RDONLY), openFile(t, dir+"/dst", os.O_RDWR|os.O_CREATE), size, CopyOptions{Overlap: true})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("size %d: %v", size, err)
		}
	}
}

func TestCopySmallAllocations(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, dir+"/src", randomBytes(6, 4096))
	src, dst := openRead(t, dir+"/src"), openFile(t, dir+"/dst", os.O_RDWR|os.O_CREATE)
	fd, b, ctx := int(dst.Fd()), NewBuffers(), context.Background()
	throttle := NewThrottle(PolicyASAP, 1<<40)
	for _, o := range []CopyOptions{{Fresh: true, Buffers: b}, {Buffers: b, Throttle: throttle}} {
		if n := testing.AllocsPerRun(100, func() {
			if _, err := CopyFd(ctx, src, fd, 4096, o); err != nil {
				t.Fatal(err)
			}
		}); n > 0 {
			t.Errorf("%+v: %v allocations", o, n)
		}
	}
	if n := testing.AllocsPerRun(100, func() {
		if _, _, err := DigestFd(ctx, src, 4096, DigestOptions{Buffers: b}); err != nil {
			t.Fatal(err)
		}
	}); n > 0 {
		t.Errorf("digest: %v allocations", n)
	}
	if !strings.HasPrefix(b.String(), "copier.Buffers") {
		t.Error("Buffers print what they hold")
	}
}

// What was read back with Direct did not come from the page cache, and left
// nothing in it; fincore judges.
func TestDigestDirect(t *testing.T) {
	for _, format := range formatsTested {
		dir := testVolume(t, format)
		for _, size := range []int{1, 4096, 5<<20 + 3} {
			data := randomBytes(7, size)
			writeFile(t, dir+"/f", data)
			f := openFile(t, dir+"/f", os.O_RDONLY)
			if err := f.Sync(); err != nil {
				t.Fatal(err)
			}
			d, err := Digest(t.Context(), f, int64(size), DigestOptions{Direct: true})
			if err != nil || d != contentDigest(data) {
				t.Errorf("%s: %d bytes: %x: %v", format, size, d, err)
			}
			if pages := strings.TrimSpace(shell(t, dir, "fincore -b -n -o PAGES f")); pages != "0" && !(format == "btrfs" && size == 1) { // inline: it lies in the metadata
				t.Errorf("%s: %d bytes: %s pages are cached", format, size, pages)
			}
		}
	}
}
