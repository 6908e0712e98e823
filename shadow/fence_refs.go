package shadow

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/fsmigrate/fsmigrate/migrate"
)

// reference is something a process holds on a volume: a descriptor, a working
// directory, a root, its executable. It keeps the mount alive that it came through, also
// one that is attached nowhere any more.
type reference struct {
	pid   int
	link  string // /proc/PID/…
	kind  string // cwd, root, exe, read
	mount uint64 // unique mount id; the short one before Linux 6.8
}

func (r reference) holder() migrate.Holder {
	path, _ := os.Readlink(r.link)
	return migrate.Holder{PID: r.pid, Command: commandOf(r.pid), Path: path, Kind: r.kind}
}

// sealed reports whether nothing can be written through the reference.
func (r reference) sealed() (bool, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(r.link, &fs); err != nil {
		return gone(err), err
	}
	return fs.Flags&unix.ST_RDONLY != 0, nil
}

// references finds what other processes hold on the volume that fd is on.
func (p *Place) references(s migrate.Side, fd int) ([]reference, error) {
	same, err := p.sameVolume(s, fd)
	if err != nil {
		return nil, err
	}
	pids, err := processes()
	if err != nil {
		return nil, err
	}
	var out []reference
	look := func(pid int, name, kind string) {
		link := fmt.Sprintf("/proc/%d/%s", pid, name)
		var st unix.Statx_t
		if err := unix.Statx(unix.AT_FDCWD, link, unix.AT_NO_AUTOMOUNT|unix.AT_STATX_DONT_SYNC, mntIDMask, &st); err != nil {
			return // ended, a kernel thread, or closed meanwhile
		}
		if same(link, &st) {
			out = append(out, reference{pid: pid, link: link, kind: kind, mount: st.Mnt_id})
		}
	}
	self := os.Getpid()
	for _, pid := range pids {
		if pid == self {
			continue // ours are the private mounts
		}
		look(pid, "cwd", "cwd")
		look(pid, "root", "root")
		look(pid, "exe", "exe")
		d, err := os.Open(fmt.Sprintf("/proc/%d/fd", pid))
		if err != nil {
			continue
		}
		fds, _ := d.Readdirnames(-1)
		d.Close()
		for _, n := range fds {
			look(pid, "fd/"+n, "read")
		}
	}
	return out, nil
}

// mntIDMask asks for the mount id that is never used twice, and gets the short
// one from kernels before 6.8.
const mntIDMask = unix.STATX_BASIC_STATS | unix.STATX_MNT_ID | unix.STATX_MNT_ID_UNIQUE

// sameVolume makes a test for "is on the volume that fd is on". Every btrfs
// subvolume has a device number of its own; what they share is the first half of the
// file system id, which the kernel derives from the UUID and the high half of the subvolume's number.
func (p *Place) sameVolume(s migrate.Side, fd int) (func(link string, st *unix.Statx_t) bool, error) {
	var root unix.Statx_t
	if err := unix.Statx(fd, "", unix.AT_EMPTY_PATH, mntIDMask, &root); err != nil {
		return nil, fmt.Errorf("stat the %s: %w", s, err)
	}
	if p.format(s) != "btrfs" {
		return func(_ string, st *unix.Statx_t) bool {
			return st.Dev_major == root.Dev_major && st.Dev_minor == root.Dev_minor
		}, nil
	}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err != nil {
		return nil, fmt.Errorf("statfs the %s: %w", s, err)
	}
	return func(link string, st *unix.Statx_t) bool {
		if st.Dev_major != 0 {
			return false
		}
		var other unix.Statfs_t
		return unix.Statfs(link, &other) == nil && other.Type == fs.Type && other.Fsid.Val[0] == fs.Fsid.Val[0]
	}, nil
}

// uniqueID is the id of the mount that fd was opened through.
func uniqueID(fd int) (uint64, error) {
	var st unix.Statx_t
	if err := unix.Statx(fd, "", unix.AT_EMPTY_PATH, mntIDMask, &st); err != nil {
		return 0, fmt.Errorf("read mount id: %w", err)
	}
	return st.Mnt_id, nil
}

// shortID is the id of fd's mount as mountinfo shows it.
func shortID(fd int) (int, error) {
	var st unix.Statx_t
	if err := unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_MNT_ID, &st); err != nil {
		return 0, fmt.Errorf("read mount id: %w", err)
	}
	return int(st.Mnt_id), nil
}

// openRoot opens the topmost mount at path and makes sure that it is mount id.
func openRoot(path string, id int) (int, error) {
	fd, err := unix.OpenTree(unix.AT_FDCWD, path, unix.O_CLOEXEC|unix.AT_NO_AUTOMOUNT|unix.AT_SYMLINK_NOFOLLOW)
	if err != nil {
		return -1, fmt.Errorf("open mount %s: %w", path, err)
	}
	got, err := shortID(fd)
	if err == nil && got != id {
		err = fmt.Errorf("open mount %s: %w", path, errCovered)
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// refuseDetached refuses what holds a mount of the truth that is attached in no namespace:
// nobody can seal such a mount, so a write through it could only be kept out by
// the superblock, which reverse needs writable.
func (p *Place) refuseDetached(truth migrate.Side, refs []reference) error {
	loose, err := p.loose(truth, refs)
	if err != nil {
		return err
	}
	if len(loose) == 0 {
		return nil
	}
	busy := &migrate.Busy{What: fmt.Sprintf("the %s at %s, through a mount that was unmounted lazily or never attached,", truth, p.o.Dir)}
	for _, r := range loose {
		h := r.holder()
		h.Writes = true
		busy.Holders = append(busy.Holders, h)
	}
	return busy
}

// loose filters out the references that go through an attached mount.
func (p *Place) loose(side migrate.Side, refs []reference) ([]reference, error) {
	if len(refs) == 0 {
		return nil, nil
	}
	attached, err := p.attachedIDs(side)
	if err != nil {
		return nil, err
	}
	var out []reference
	for _, r := range refs {
		if !attached[r.mount] {
			out = append(out, r)
		}
	}
	return out, nil
}

// attachedIDs are the unique ids of all attached mounts of a side that can be reached by path.
func (p *Place) attachedIDs(side migrate.Side) (map[uint64]bool, error) {
	l, err := p.list()
	if err != nil {
		return nil, err
	}
	defer l.close()
	ids := map[uint64]bool{}
	for _, m := range l.of(side) {
		if id, err := m.unique(); err == nil {
			ids[id] = true
		}
	}
	return ids, nil
}

// tellReaders warns of those who keep reading the truth after it became the past.
func (p *Place) tellReaders(truth migrate.Side, refs []reference) {
	const most = 20
	for i, r := range refs {
		if i == most {
			p.o.Warn("more readers stay on the old volume", fmt.Sprintf("%d in all", len(refs)), "")
			return
		}
		h := r.holder()
		p.o.Warn(fmt.Sprintf("pid %d (%s) stays on the old volume", h.PID, h.Command),
			fmt.Sprintf("%s %s: it reads the past after the cutover", h.Kind, h.Path),
			"restart it after the cutover")
	}
}
