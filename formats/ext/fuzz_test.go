package ext_test

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"testing"

	"github.com/fsmigrate/fsmigrate/formats"
	"github.com/fsmigrate/fsmigrate/formats/ext"
	"github.com/fsmigrate/fsmigrate/formats/formattest"
)

// sparseImage is a fuzzed head of an image, zeros behind it up to size.
type sparseImage struct {
	head []byte
	size int64
}

func (s sparseImage) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 || off >= s.size {
		return 0, io.EOF
	}
	n := int(min(int64(len(p)), s.size-off))
	clear(p[:n])
	if off < int64(len(s.head)) {
		copy(p[:n], s.head[off:])
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// seal makes the superblock's checksum right, so that the fuzzer gets behind it.
func seal(head []byte) {
	if len(head) >= 2048 {
		sum := ^crc32.Checksum(head[1024:2044], crc32.MakeTable(crc32.Castagnoli))
		binary.LittleEndian.PutUint32(head[2044:], sum)
	}
}

// Both targets take a golden image, and bytes to put at some place of it: small
// inputs that reach everything.
func patched(images [][]byte, which uint8, off uint32, patch []byte) sparseImage {
	head := append([]byte(nil), images[int(which)%len(images)]...)
	if int64(off) < int64(len(head)) {
		copy(head[off:], patch)
	}
	seal(head)
	return sparseImage{head, 16 << 20}
}

func seeds(f *testing.F, bytes int) [][]byte {
	var images [][]byte
	for i, name := range goldens {
		image, _ := formattest.Golden(f, "ext", name)
		images = append(images, image[:bytes])
		f.Add(uint8(i), uint32(1024), image[1024:1024+96])
		f.Add(uint8(i), uint32(1024+96), image[1024+96:1024+256])
		f.Add(uint8(i), uint32(2048), image[2048:2048+64])
		f.Add(uint8(i), uint32(16<<10), image[16<<10:16<<10+256])
	}
	return images
}

func FuzzProbe(f *testing.F) {
	images := seeds(f, 64<<10)
	f.Fuzz(func(t *testing.T, which uint8, off uint32, patch []byte) {
		r := patched(images, which, off, patch)
		n := 0
		for _, name := range []string{"ext2", "ext3", "ext4"} {
			fm := lookup(t, name)
			v, err := fm.Probe(r, r.size)
			if err != nil {
				continue
			}
			n++
			if v.Bytes > r.size || v.Format != name || v.InodeSize < 128 {
				t.Fatalf("%+v", v)
			}
			fm.Findings(v)
		}
		if n > 1 {
			t.Fatalf("%d formats claim it", n)
		}
	})
}

// A damaged image makes an error or records of it, nothing else.
func FuzzInodeTable(f *testing.F) {
	images := seeds(f, 256<<10)
	stop := errors.New("enough")
	f.Fuzz(func(t *testing.T, which uint8, off uint32, patch []byte) {
		r := patched(images, which, off, patch)
		n := 0
		_, _ = ext.ScanImage(t.Context(), r, r.size, func(recs []formats.InodeRecord) error {
			for _, rec := range recs {
				if rec.Ino == 0 || rec.Mode == 0 || rec.CtimeNsec >= 1<<30 {
					t.Fatalf("%+v", rec)
				}
			}
			if n += len(recs); n > 1<<20 {
				return stop
			}
			return nil
		})
	})
}
