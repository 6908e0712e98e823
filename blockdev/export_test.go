package blockdev

import (
	"testing"
	"time"
)

// WithoutBeneath lets the kernel look like one before 6.5 for the rest of the test.
func WithoutBeneath(t *testing.T) {
	noBeneath = true
	t.Cleanup(func() { noBeneath = false })
}

// DetachWithin shortens the wait of Loop.Detach until the result is called.
func DetachWithin(t *testing.T, ms int) (restore func()) {
	was := detachLimit
	detachLimit = time.Duration(ms) * time.Millisecond
	restore = func() { detachLimit = was }
	t.Cleanup(restore)
	return restore
}
