package xfs_test

import (
	"testing"

	"github.com/fsmigrate/fsmigrate/formats/formattest"
)

func TestContract(t *testing.T) {
	formattest.Suite(t, lookup(t), map[string]formattest.Case{
		"default":    {Sealed: 108, Bytes: 400 << 20},
		"no-bigtime": {Sealed: 108, Bytes: 400 << 20, Options: map[string]string{"bigtime": "0", "reflink": "0", "rmapbt": "1"}},
		"1k":         {Sealed: 108, Bytes: 400 << 20, Options: map[string]string{"block_size": "1024", "sector_size": "512", "finobt": "0"}},
	})
}
