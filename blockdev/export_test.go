package blockdev

import "testing"

// WithoutBeneath lets the kernel look like one before 6.5 for the rest of the test.
func WithoutBeneath(t *testing.T) {
	noBeneath = true
	t.Cleanup(func() { noBeneath = false })
}
