package churn

import (
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// volume is a directory worked on through descriptors only: paths longer than
// PATH_MAX and any bytes in names are no obstacle.
type volume struct{ root int }

func openVolume(dir string) (*volume, error) {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", dir, err)
	}
	return &volume{fd}, nil
}

func (v *volume) close() error { return unix.Close(v.root) }

// path is the names that lead to a directory.
func path(dir *Node) []string {
	var names []string
	for len(dir.Places) > 0 {
		names = append(names, dir.Places[0].Name)
		dir = dir.Places[0].Dir
	}
	slices.Reverse(names)
	return names
}

// dir opens a directory with O_PATH. The caller holds the tree's lock.
func (v *volume) dir(n *Node) (int, error) {
	const flags = unix.O_PATH | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
	fd, err := unix.Openat(v.root, ".", flags, 0)
	if err != nil {
		return -1, err
	}
	for _, name := range path(n) {
		next, err := unix.Openat(fd, name, flags, 0)
		unix.Close(fd)
		if err != nil {
			return -1, fmt.Errorf("open directory %q of %q: %w", name, path(n), err)
		}
		fd = next
	}
	return fd, nil
}

// node opens any object with O_PATH by its k-th name.
func (v *volume) node(n *Node, k int) (int, error) {
	if len(n.Places) == 0 {
		if n.ID != RootID {
			return -1, fmt.Errorf("object %d has no name", n.ID)
		}
		return v.dir(n)
	}
	p := n.Places[k%len(n.Places)]
	dir, err := v.dir(p.Dir)
	if err != nil {
		return -1, err
	}
	defer unix.Close(dir)
	fd, err := unix.Openat(dir, p.Name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open %q in %q: %w", p.Name, path(p.Dir), err)
	}
	return fd, nil
}

// reopen turns an O_PATH descriptor of a file into one for I/O.
func reopen(fd, flags int) (int, error) {
	return unix.Open(procPath(fd), flags|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
}
