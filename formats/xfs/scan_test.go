package xfs_test

import (
	"testing"

	"github.com/fsmigrate/fsmigrate/formats"
	"github.com/fsmigrate/fsmigrate/formats/formattest"
	_ "github.com/fsmigrate/fsmigrate/formats/xfs"
)

func lookup(t testing.TB) formats.Format {
	t.Helper()
	f, ok := formats.Lookup("xfs")
	if !ok {
		t.Fatal("xfs is not registered")
	}
	return f
}

// Bulkstat says what statx and name_to_handle_at say, in every field.
func TestScanEqualsKernel(t *testing.T) {
	for name, opts := range map[string]map[string]string{
		"default":    nil,
		"no-bigtime": {"bigtime": "0", "reflink": "0", "inobtcount": "0", "rmapbt": "1", "inode_size": "1024", "block_size": "2048"},
		"agcount-16": {"agcount": "16", "nrext64": "1"},
	} {
		t.Run(name, func(t *testing.T) {
			formattest.ScanContract(t, formattest.Make(t, lookup(t), 2<<30, opts))
		})
	}
}

func BenchmarkScan(b *testing.B) { formattest.BenchScan(b, lookup(b), nil) }
