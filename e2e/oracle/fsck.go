package oracle

import (
	"fmt"
	"os/exec"
	"strings"
)

// Fsck lets the format's own checker read an unmounted device.
func Fsck(fstype, device string) error {
	var args []string
	switch {
	case strings.HasPrefix(fstype, "ext"):
		args = []string{"e2fsck", "-fn", device}
	case fstype == "xfs":
		args = []string{"xfs_repair", "-n", device}
	case fstype == "btrfs":
		args = []string{"btrfs", "check", "--readonly", device}
	default:
		return fmt.Errorf("no checker for %q", fstype)
	}
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return nil
}
