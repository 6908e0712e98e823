package btrfs_test

import (
	"testing"

	"github.com/fsmigrate/fsmigrate/formats/formattest"
)

func TestContract(t *testing.T) {
	formattest.Suite(t, lookup(t), map[string]formattest.Case{
		"default": {Sealed: 64<<10 + 299, Bytes: 256 << 20},
		"4k-node": {Sealed: 64<<10 + 299, Bytes: 256 << 20, Options: map[string]string{"nodesize": "4096", "metadata": "single", "csum": "xxhash"}},
		"mixed":   {Sealed: 64<<10 + 299, Bytes: 128 << 20, Options: map[string]string{"mixed": "1", "no_holes": "0"}},
		"blake2":  {Bytes: 256 << 20, Options: map[string]string{"csum": "blake2", "free_space_tree": "0"}},
	})
}
