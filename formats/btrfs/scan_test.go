package btrfs_test

import (
	"testing"

	"github.com/fsmigrate/fsmigrate/formats"
	_ "github.com/fsmigrate/fsmigrate/formats/btrfs"
	"github.com/fsmigrate/fsmigrate/formats/formattest"
)

func lookup(t testing.TB) formats.Format {
	t.Helper()
	f, ok := formats.Lookup("btrfs")
	if !ok {
		t.Fatal("btrfs is not registered")
	}
	return f
}

// The tree search says what statx and name_to_handle_at say, in every field.
func TestScanEqualsKernel(t *testing.T) {
	for name, opts := range map[string]map[string]string{
		"default": nil,
		"small":   {"nodesize": "4096", "no_holes": "0", "metadata": "single", "csum": "xxhash"},
		"mixed":   {"mixed": "1", "csum": "sha256"},
	} {
		t.Run(name, func(t *testing.T) {
			formattest.ScanContract(t, formattest.Make(t, lookup(t), 2<<30, opts))
		})
	}
}

func BenchmarkScan(b *testing.B) { formattest.BenchScan(b, lookup(b), nil) }
