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

// statusGroup is the id of the group that may read the status, if there is one and
// we are allowed to give files to it.
func statusGroup() (int, bool) {
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

// openToGroup lets the group reach the status socket: enter the migration's
// directory, enter and list the one above it. Files in them keep their own modes.
func openToGroup(dir string, gid int) error {
	for path, mode := range map[string]os.FileMode{dir: 0o710, filepath.Dir(dir): 0o750} {
		info, err := os.Stat(path)
		if err != nil {
			return fmt.Errorf("open %s to group %s: %w", path, Group, err)
		}
		if info.Mode().Perm()&^0o700 != 0 {
			continue // somebody decided otherwise, or it is done
		}
		if err := os.Chown(path, -1, gid); err != nil {
			return fmt.Errorf("open %s to group %s: %w", path, Group, err)
		}
		if err := os.Chmod(path, mode); err != nil {
			return fmt.Errorf("open %s to group %s: %w", path, Group, err)
		}
	}
	return nil
}
