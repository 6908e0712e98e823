package blocktest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fsmigrate/fsmigrate/blockdev"
)

const inside = "FSMIGRATE_TEST_NAMESPACE"

// Main is for TestMain of packages that mount: the tests run in a mount
// namespace of their own. Another test that makes a namespace at the same time then
// doesn't carry copies of our mounts away, which would keep the devices busy,
// nor does the machine keep mounts when the tests are killed.
func Main(m *testing.M) {
	if os.Getenv(inside) != "" {
		os.Unsetenv(inside)
		if err := leaveOthers(); err != nil {
			fmt.Fprintln(os.Stderr, "mount namespace of the tests:", err)
			os.Exit(1)
		}
		os.Exit(m.Run())
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	runtime.LockOSThread() // the signal comes when the thread ends that started it
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		os.Exit(max(1, exit.ExitCode()))
	case err != nil:
		fmt.Fprintln(os.Stderr, "start tests in a mount namespace:", err)
		os.Exit(1)
	}
}

// leaveOthers drops our copies of loop mounts that other tests made.
func leaveOthers() error {
	all, err := blockdev.OwnMounts()
	if err != nil {
		return err
	}
	for i := len(all) - 1; i >= 0; i-- {
		m := all[i]
		if m.Point != "/" && strings.HasPrefix(m.Source, "/dev/loop") {
			if err := unix.Unmount(m.Point, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil &&
				!errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
				return fmt.Errorf("unmount %s: %w", m.Point, err)
			}
		}
	}
	return nil
}
