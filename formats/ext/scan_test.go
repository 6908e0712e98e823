package ext_test

import (
	"errors"
	"os"
	"testing"

	"github.com/fsmigrate/fsmigrate/formats"
	"github.com/fsmigrate/fsmigrate/formats/ext"
	"github.com/fsmigrate/fsmigrate/formats/formattest"
)

func lookup(t testing.TB, name string) formats.Format {
	t.Helper()
	f, ok := formats.Lookup(name)
	if !ok {
		t.Fatalf("%s is not registered", name)
	}
	return f
}

var layouts = []struct {
	name, format string
	opts         map[string]string
}{
	{"ext2-128-1k", "ext2", map[string]string{"inode_size": "128", "block_size": "1024"}},
	{"ext2-256-4k", "ext2", nil},
	{"ext3-128-4k", "ext3", map[string]string{"inode_size": "128"}},
	{"ext4-128-4k", "ext4", map[string]string{"inode_size": "128"}},
	{"ext4-256-4k", "ext4", nil},
	{"ext4-256-1k", "ext4", map[string]string{"block_size": "1024"}},
	{"ext4-512-inline", "ext4", map[string]string{"inode_size": "512", "inline_data": "1", "ea_inode": "1"}},
	{"ext4-plain", "ext4", map[string]string{"metadata_csum": "0", "64bit": "0", "extents": "0", "flex_bg": "0"}},
	{"ext4-lazy", "ext4", map[string]string{"large_dir": "1", "lazy_init": "1"}},
}

// The scan says what statx and name_to_handle_at say, in every field, on a
// synced rw mount and behind a read-only superblock (FACTS: "Scanning the raw
// ext4 inode table … on a synced or read-only file system").
func TestScanEqualsKernel(t *testing.T) {
	for _, c := range layouts {
		t.Run(c.name, func(t *testing.T) {
			f := lookup(t, c.format)
			v := formattest.Make(t, f, 256<<20, c.opts)
			formattest.ScanContract(t, v)
		})
	}
}

// A device whose journal was not replayed is refused, not read stale.
func TestScanRefusesUnreplayedJournal(t *testing.T) {
	f := lookup(t, "ext4")
	v := formattest.Make(t, f, 64<<20, nil)
	v.Mount("ext4", "")
	_, err := f.Scan(t.Context(), formats.ScanTarget{Device: v.Device}, 0, func(formats.InodeRecord) error { return nil })
	if !errors.Is(err, ext.ErrNeedsRecovery) {
		t.Errorf("scan of a mounted device without its mount: %v", err)
	}
}

// Another device than the mounted one has a page cache of its own.
func TestScanRefusesOtherDevice(t *testing.T) {
	f := lookup(t, "ext4")
	v, w := formattest.Make(t, f, 64<<20, nil), formattest.Make(t, f, 64<<20, nil)
	v.Mount("ext4", "")
	root, err := os.Open(v.Dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	_, err = f.Scan(t.Context(), formats.ScanTarget{Device: w.Device, MountFD: int(root.Fd())}, 0, func(formats.InodeRecord) error { return nil })
	if err == nil {
		t.Error("scan of another device succeeded")
	}
}

func BenchmarkScan(b *testing.B) {
	b.Run("ext4-256", func(b *testing.B) { formattest.BenchScan(b, lookup(b, "ext4"), nil) })
	b.Run("ext3-128", func(b *testing.B) {
		formattest.BenchScan(b, lookup(b, "ext3"), map[string]string{"inode_size": "128"})
	})
}
