package control

import (
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// A socket address holds 108 bytes of path, a state directory may be deeper. The
// directory is opened and the socket reached through its descriptor, which also
// works without chdir, the whole process' and a race.

// short is a path of name in dir that fits a socket address, valid until release.
func short(dir, name string) (path string, release func(), err error) {
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", nil, fmt.Errorf("open state directory %s: %w", dir, err)
	}
	return fmt.Sprintf("/proc/self/fd/%d/%s", fd, name), func() { _ = unix.Close(fd) }, nil
}

// Group is the name of the group that may read the status.
const Group = "fsmigrate"

// place is where a socket of the migration in dir is. The status socket is beside its
// directory, which nobody but its owner may enter.
func place(dir string, statusOnly bool) (in, name string) {
	if statusOnly {
		return filepath.Dir(dir), filepath.Base(dir) + StatusSuffix
	}
	return dir, Socket
}

// statusGroup is the id of the group that may read the status, if there is one and
// we are allowed to give files to it.
var statusGroup = func() (int, bool) {
	if os.Geteuid() != 0 {
		return 0, false
	}
	g, err := user.LookupGroup(Group)
	if err != nil {
		return 0, false
	}
	gid, err := strconv.Atoi(g.Gid)
	return gid, err == nil
}

// openToGroup lets the group reach the status sockets: it may enter and list the
// directory that holds the migrations'. What is in it keeps its own mode.
func openToGroup(root string, gid int) error {
	info, err := os.Stat(root)
	if err != nil {
		return fmt.Errorf("open %s to group %s: %w", root, Group, err)
	}
	if info.Mode().Perm() != 0o700 {
		return nil // somebody decided otherwise, or it is done
	}
	if err := os.Chown(root, -1, gid); err != nil {
		return fmt.Errorf("open %s to group %s: %w", root, Group, err)
	}
	if err := os.Chmod(root, 0o750); err != nil {
		return fmt.Errorf("open %s to group %s: %w", root, Group, err)
	}
	return nil
}
