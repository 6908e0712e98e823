package preflight

import (
	"testing"

	"github.com/fsmigrate/fsmigrate/blockdev/blocktest"
	_ "github.com/fsmigrate/fsmigrate/formats/btrfs"
	_ "github.com/fsmigrate/fsmigrate/formats/ext"
	_ "github.com/fsmigrate/fsmigrate/formats/xfs"
)

func TestMain(m *testing.M) { blocktest.Main(m) }
