package btrfs

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/fsmigrate/fsmigrate/formats"
)

// seed makes a volume with the real mkfs on a file and returns its beginning.
func seed(f *testing.F, size int64, opts map[string]string, head int) []byte {
	f.Helper()
	path := filepath.Join(f.TempDir(), "image")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		f.Fatal(err)
	}
	if err := os.Truncate(path, size); err != nil {
		f.Fatal(err)
	}
	argv, err := format{}.Mkfs(path, formats.MakeOptions{Options: opts, Bytes: size})
	if err != nil {
		f.Fatal(err)
	}
	if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
		f.Fatalf("%v: %v\n%s", argv, err, out)
	}
	image, err := os.Open(path)
	if err != nil {
		f.Fatal(err)
	}
	defer image.Close()
	b := make([]byte, head)
	if _, err := image.ReadAt(b, 0); err != nil {
		f.Fatal(err)
	}
	return b
}

// The input is a patch of a real superblock.
func FuzzProbe(f *testing.F) {
	image := seed(f, 256<<20, nil, superOffset+superSize)
	f.Add(uint16(0), []byte{})
	for _, off := range []int{32, 64, 112, 144, 196, 299} {
		f.Add(uint16(off), image[superOffset+off:superOffset+off+32])
	}
	f.Fuzz(func(t *testing.T, off uint16, patch []byte) {
		b := append([]byte(nil), image...)
		super := b[superOffset:]
		copy(super[int(off)%superSize:], patch)
		// A right checksum, so that the fuzzer gets behind it.
		binary.LittleEndian.PutUint32(super, crc32.Checksum(super[32:], castagnoli))
		v, err := format{}.Probe(bytes.NewReader(b), 1<<40)
		if err == nil {
			if v.Bytes <= 0 || v.FreeBlocks > v.Blocks || v.Limits.XattrValueBytes <= 0 {
				t.Fatalf("%+v", v)
			}
			format{}.Findings(v)
		}
	})
}

func FuzzItems(f *testing.F) {
	f.Add([]byte{}, 1)
	f.Add(make([]byte, itemHeader+inodeItemSize), 2)
	f.Fuzz(func(t *testing.T, b []byte, n int) {
		total := 0
		_, _ = items(b, min(n, 1<<16), func(k key, item []byte) error {
			total += len(item)
			if k.typ == typeInodeItem && len(item) >= inodeItemSize {
				decode(k.objectid, item)
			}
			return nil
		})
		if total > len(b) {
			t.Fatalf("%d bytes out of %d", total, len(b))
		}
	})
}
