package ext_test

import (
	"testing"

	"github.com/fsmigrate/fsmigrate/formats/formattest"
)

func TestContract(t *testing.T) {
	const size = 128 << 20
	formattest.Suite(t, lookup(t, "ext2"), map[string]formattest.Case{
		"default": {Bytes: size},
		"128-1k":  {Bytes: size, Options: map[string]string{"inode_size": "128", "block_size": "1024"}},
	})
	formattest.Suite(t, lookup(t, "ext3"), map[string]formattest.Case{
		"default": {Bytes: size},
		"128-2k":  {Bytes: size, Options: map[string]string{"inode_size": "128", "block_size": "2048"}},
	})
	formattest.Suite(t, lookup(t, "ext4"), map[string]formattest.Case{
		"default": {Sealed: 1024 + 120, Bytes: size},
		"128":     {Sealed: 1024 + 120, Bytes: size, Options: map[string]string{"inode_size": "128"}},
		"1k":      {Sealed: 1024 + 120, Bytes: size, Options: map[string]string{"block_size": "1024", "inode_size": "512"}},
		"plain":   {Bytes: size, Options: map[string]string{"extents": "0", "64bit": "0", "metadata_csum": "0", "journal": "0", "huge_file": "0"}},
		"huge":    {Bytes: size, Options: map[string]string{"extents": "0", "block_size": "2048"}},
		"wide":    {Sealed: 1024 + 120, Bytes: size, Options: map[string]string{"large_dir": "1", "ea_inode": "1", "inline_data": "1"}},
	})
}
