package demo

import (
	"fmt"
	"strings"

	"github.com/fsmigrate/fsmigrate/blockdev"
)

// formatOf is what the kernel says is mounted at dir, in capitals where people use them.
func formatOf(dir string) (string, error) {
	m, err := blockdev.MountAt(dir)
	if err != nil {
		return "", fmt.Errorf("look at %s: %w", dir, err)
	}
	if m.FSType == "xfs" {
		return strings.ToUpper(m.FSType), nil
	}
	return m.FSType, nil
}
