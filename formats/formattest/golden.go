package formattest

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/fsmigrate/fsmigrate/formats"
)

// DataDir finds the golden images: $FSMIGRATE_DATA, or shared/data beside the
// repository. They are part of the proof: without them the test fails.
func DataDir(t testing.TB) string {
	t.Helper()
	dir := os.Getenv("FSMIGRATE_DATA")
	if dir == "" {
		root, err := os.Getwd()
		if err != nil {
			t.Fatal(err)
		}
		for root != "/" {
			if _, err := os.Stat(filepath.Join(root, "go.mod")); err == nil {
				break
			}
			root = filepath.Dir(root)
		}
		dir = filepath.Join(root, "..", "shared", "data")
	}
	if _, err := os.Stat(dir); err != nil {
		t.Fatalf("the golden images are not at %s: set FSMIGRATE_DATA to their directory (%v)", dir, err)
	}
	return dir
}

// Manifest says what a reader must find in a golden image.
type Manifest struct {
	Version   string           `json:"version"`
	InodeSize int              `json:"inode_size"`
	Features  string           `json:"features"`
	Objects   []ManifestObject `json:"objects"`
}

// ManifestObject is one name in it.
type ManifestObject struct {
	Path    string `json:"path"`
	Type    string `json:"type"`
	Mode    string `json:"mode"`
	UID     uint32 `json:"uid"`
	GID     uint32 `json:"gid"`
	Nlink   uint32 `json:"nlink"`
	Ino     uint64 `json:"ino"`
	Size    *int64 `json:"size"`
	MtimeS  int64  `json:"mtime_s"`
	MtimeNS uint32 `json:"mtime_ns"`
	CtimeS  int64  `json:"ctime_s"`
	CtimeNS uint32 `json:"ctime_ns"`
	Target  string `json:"target"`
}

// Golden unpacks an image and its manifest, for example "ext", "ext4-1k".
func Golden(t testing.TB, folder, name string) ([]byte, Manifest) {
	t.Helper()
	base := filepath.Join(DataDir(t), folder, name)
	packed, err := os.ReadFile(base + ".img.zst")
	if err != nil {
		t.Fatal(err)
	}
	dec, err := zstd.NewReader(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer dec.Close()
	image, err := dec.DecodeAll(packed, nil)
	if err != nil {
		t.Fatalf("unpack %s: %v", name, err)
	}
	text, err := os.ReadFile(base + ".manifest.json")
	if err != nil {
		t.Fatal(err)
	}
	var m Manifest
	if err := json.Unmarshal(text, &m); err != nil {
		t.Fatalf("manifest of %s: %v", name, err)
	}
	return image, m
}

var manifestTypes = map[string]uint32{"file": 0o100000, "dir": 0o040000, "symlink": 0o120000, "fifo": 0o010000,
	"char": 0o020000, "block": 0o060000, "socket": 0o140000}

// Equal reports whether a record says what the object does; sizes only where the
// manifest has one. The generation is not in the manifest.
func (o ManifestObject) Equal(r formats.InodeRecord) bool {
	perm, err := strconv.ParseUint(o.Mode, 8, 32)
	if err != nil {
		return false
	}
	if o.Size != nil && uint64(*o.Size) != r.Size {
		return false
	}
	return r.Ino == o.Ino && r.Mode == manifestTypes[o.Type]|uint32(perm) && r.UID == o.UID && r.GID == o.GID &&
		r.Nlink == o.Nlink && r.MtimeSec == o.MtimeS && r.MtimeNsec == o.MtimeNS &&
		r.CtimeSec == o.CtimeS && r.CtimeNsec == o.CtimeNS
}
