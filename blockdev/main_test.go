package blockdev_test

import (
	"testing"

	"github.com/fsmigrate/fsmigrate/blockdev/blocktest"
)

func TestMain(m *testing.M) { blocktest.Main(m) }
