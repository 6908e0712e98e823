package blockdev

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// Mount is one line of a mount table.
type Mount struct {
	ID, Parent   int    // mount ids, as in mountinfo; reused after an unmount
	Dev          uint64 // the superblock's device: major:minor of mountinfo, unix.Mkdev
	Root         string // the directory of the file system that is mounted, "/" or a bind's or subvolume's
	Point        string // where, seen from the root of its namespace
	FSType       string
	Source       string
	Options      string // of this mount: "rw,nosuid,relatime"
	SuperOptions string // of the superblock: "rw,errors=remount-ro"
	Propagation  string // "private", or mountinfo's fields: "shared:12 master:3"
	NS           uint64 // inode of its mount namespace
	PID          int    // a process in that namespace; 0: ours, or a namespace that no process is in
	Via          string // of a detached mount: a path through /proc that reaches it
}

// ReadOnly reports whether this mount refuses writes, whatever its superblock does.
func (m Mount) ReadOnly() bool { return hasOption(m.Options, "ro") }

// Detached reports whether the mount is in no namespace any more and lives only
// because a descriptor or working directory pins it.
func (m Mount) Detached() bool { return m.Via != "" }

// IsSuperReadOnly reports whether the superblock refused writes when m was read.
func IsSuperReadOnly(m Mount) bool { return hasOption(m.SuperOptions, "ro") }

// ErrNotMountPoint says that a directory is no mount point in our namespace.
var ErrNotMountPoint = errors.New("not a mount point")

// MountAt returns the topmost mount whose mount point is exactly dir, in our namespace.
func MountAt(dir string) (Mount, error) {
	fd, err := openPath(dir)
	if err != nil {
		return Mount{}, err
	}
	defer unix.Close(fd)
	return MountOfFd(fd)
}

// MountOfFd returns the mount whose root fd is: ErrNotMountPoint if fd is
// something below a mount's root, or the mount isn't in our namespace.
func MountOfFd(fd int) (Mount, error) {
	st, err := statMount(fd)
	if err != nil {
		return Mount{}, err
	}
	if st.Attributes&unix.STATX_ATTR_MOUNT_ROOT == 0 {
		return Mount{}, fmt.Errorf("%s: %w", fdName(fd), ErrNotMountPoint)
	}
	mounts, err := ownMounts()
	if err != nil {
		return Mount{}, err
	}
	for _, m := range mounts {
		if m.ID == int(st.Mnt_id) {
			return m, nil
		}
	}
	return Mount{}, fmt.Errorf("%s: mount %d is in no table of this namespace: %w", fdName(fd), st.Mnt_id, ErrNotMountPoint)
}

// MountDev returns the device of the superblock that fd's mount shows: what
// mountinfo prints as major:minor, which for btrfs isn't fd's st_dev.
func MountDev(fd int) (uint64, error) {
	st, err := statMount(fd)
	if err != nil {
		return 0, err
	}
	mounts, err := ownMounts()
	if err != nil {
		return 0, err
	}
	for _, m := range mounts {
		if m.ID == int(st.Mnt_id) {
			return m.Dev, nil
		}
	}
	// A detached mount, or one of another namespace.
	return superDev(fmt.Sprintf("/proc/self/fd/%d", fd))
}

// OwnMounts reads the mount table of our namespace.
func OwnMounts() ([]Mount, error) { return ownMounts() }

func ownMounts() ([]Mount, error) {
	mounts, err := readMountinfo("/proc/thread-self/mountinfo")
	if err != nil {
		return nil, err
	}
	ns, err := nsInode("/proc/thread-self/ns/mnt")
	if err != nil {
		return nil, err
	}
	for i := range mounts {
		mounts[i].NS = ns
	}
	return mounts, nil
}

func readMountinfo(path string) ([]Mount, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read mount table: %w", err)
	}
	defer f.Close()
	mounts, err := parseMountinfo(f)
	if err != nil {
		return nil, fmt.Errorf("read mount table %s: %w", path, err)
	}
	return mounts, nil
}

func parseMountinfo(r io.Reader) ([]Mount, error) {
	infos, err := mountinfo.GetMountsFromReader(r, nil)
	if err != nil {
		return nil, err
	}
	mounts := make([]Mount, 0, len(infos))
	for _, i := range infos {
		propagation := i.Optional
		if propagation == "" {
			propagation = "private"
		}
		mounts = append(mounts, Mount{
			ID: i.ID, Parent: i.Parent, Dev: unix.Mkdev(uint32(i.Major), uint32(i.Minor)),
			Root: i.Root, Point: i.Mountpoint, FSType: i.FSType, Source: i.Source,
			Options: i.Options, SuperOptions: i.VFSOptions, Propagation: propagation,
		})
	}
	return mounts, nil
}

// statMount asks for fd's mount id, without making a remote file system answer.
func statMount(fd int) (unix.Statx_t, error) {
	var st unix.Statx_t
	err := unix.Statx(fd, "", unix.AT_EMPTY_PATH|unix.AT_STATX_DONT_SYNC, unix.STATX_TYPE|unix.STATX_MNT_ID, &st)
	if err != nil {
		return st, fmt.Errorf("stat %s: %w", fdName(fd), err)
	}
	if st.Mask&unix.STATX_MNT_ID == 0 {
		return st, fmt.Errorf("stat %s: this kernel tells no mount ids", fdName(fd))
	}
	return st, nil
}

func nsInode(path string) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return 0, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	return st.Ino, nil
}

// openPath opens dir as a place, not for reading: it works on anything.
func openPath(dir string) (int, error) {
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	return fd, nil
}

// fdName names what fd refers to, for messages.
func fdName(fd int) string {
	name, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
	if err != nil {
		return fmt.Sprintf("descriptor %d", fd)
	}
	return name
}

func hasOption(options, name string) bool {
	for o := range strings.SplitSeq(options, ",") {
		if o == name {
			return true
		}
	}
	return false
}

// below returns path relative to dir, and whether it lies strictly below it.
func below(dir, path string) (string, bool) {
	rel, err := filepath.Rel(dir, path)
	if err != nil || rel == "." || rel == ".." || strings.HasPrefix(rel, "../") {
		return "", false
	}
	return rel, true
}
