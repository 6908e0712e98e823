package xfs

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

func FuzzProbe(f *testing.F) {
	f.Add(seed(f, 320<<20, nil, 512))
	f.Add(seed(f, 320<<20, map[string]string{"crc": "0", "ftype": "0"}, 512))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) == 512 { // a right checksum, so that the fuzzer gets behind it
			clear(b[224:228])
			binary.LittleEndian.PutUint32(b[224:], crc32.Checksum(b, castagnoli))
		}
		if s, err := parseSuper(b); err == nil && (s.bytes() <= 0 || s.InodeSize == 0) {
			t.Fatalf("%+v", s)
		}
		v, err := format{}.Probe(bytes.NewReader(b), 1<<40)
		if err == nil {
			if v.Bytes <= 0 || v.FreeBlocks > v.Blocks || v.FreeInodes > v.Inodes {
				t.Fatalf("%+v", v)
			}
			format{}.Findings(v)
		}
	})
}

func FuzzBulkstat(f *testing.F) {
	f.Add(make([]byte, statSize))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) >= statSize {
			decode(b[:statSize])
		}
	})
}
