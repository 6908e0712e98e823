package shadow

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"unsafe"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/fsmigrate/fsmigrate/migrate"
)

// mountPoint is one mount of one of the two volumes, in some mount namespace.
type mountPoint struct {
	mountinfo.Info
	ns   *nsRef
	side migrate.Side
	peer string // peer group of the parent mount, "" when private
	from string // master group of the parent mount, "" when none
}

// readOnly reports whether this mount refuses writes by itself, whatever its superblock says.
func (m *mountPoint) readOnly() bool { return hasOption(m.Options, "ro") }

func hasOption(options, name string) bool {
	for o := range strings.SplitSeq(options, ",") {
		if o == name {
			return true
		}
	}
	return false
}

// nsRef is a mount namespace and a way into it.
type nsRef struct {
	inode uint64
	pid   int      // a process in it; 0: none
	file  *os.File // open when no process is in it
	own   bool

	// chroot: pid's root is not that of the namespace, so that its mountinfo leaves
	// out what it cannot reach.
	chroot bool
}

// chrooted reports whether a process sees less than its whole namespace.
func chrooted(pid int) bool {
	root, err := os.Readlink(fmt.Sprintf("/proc/%d/root", pid))
	return err != nil || root != "/"
}

func (n *nsRef) String() string {
	if n.own {
		return "this mount namespace"
	}
	if n.pid == 0 {
		return fmt.Sprintf("mount namespace %d without a process", n.inode)
	}
	return fmt.Sprintf("mount namespace %d (pid %d, %s)", n.inode, n.pid, commandOf(n.pid))
}

// enter runs fn on a thread inside the namespace. The thread is thrown away:
// one that unshared its file-system context and changed namespace must not serve others.
func (n *nsRef) enter(fn func() error) error {
	if n.own {
		return fn()
	}
	f := n.file
	if f == nil {
		var err error
		if f, err = os.Open(fmt.Sprintf("/proc/%d/ns/mnt", n.pid)); err != nil {
			return fmt.Errorf("enter %s: %w", n, err)
		}
		defer f.Close()
	}
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			done <- fmt.Errorf("enter %s: unshare: %w", n, err)
			return
		}
		if err := unix.Setns(int(f.Fd()), unix.CLONE_NEWNS); err != nil {
			done <- fmt.Errorf("enter %s: %w", n, err)
			return
		}
		done <- fn()
	}()
	return <-done
}

// listing is every mount of every mount namespace, as far as it matters to a place.
type listing struct {
	mounts []*mountPoint
	files  []*os.File
	ids    map[int]bool // ids of all attached mounts of both sides
}

func (l *listing) close() {
	for _, f := range l.files {
		f.Close()
	}
}

func (l *listing) of(s migrate.Side) []*mountPoint {
	var out []*mountPoint
	for _, m := range l.mounts {
		if m.side == s {
			out = append(out, m)
		}
	}
	return out
}

// list reads the mounts of both sides in every mount namespace. A namespace
// that vanishes meanwhile is left out. The caller closes the listing.
func (p *Place) list() (*listing, error) {
	match := p.matcher()
	l := &listing{ids: map[int]bool{}}
	spaces, err := l.namespaces()
	if err != nil {
		l.close()
		return nil, err
	}
	for _, ns := range spaces {
		infos, err := ns.mounts()
		if err != nil {
			if gone(err) {
				continue
			}
			l.close()
			return nil, fmt.Errorf("read mounts of %s: %w", ns, err)
		}
		byID := make(map[int]*mountinfo.Info, len(infos))
		for _, i := range infos {
			byID[i.ID] = i
		}
		for _, i := range infos {
			side, ok := match(i)
			if !ok {
				continue
			}
			m := &mountPoint{Info: *i, ns: ns, side: side}
			if parent := byID[i.Parent]; parent != nil {
				m.peer, m.from = group(parent.Optional, "shared:"), group(parent.Optional, "master:")
			}
			l.mounts = append(l.mounts, m)
			l.ids[i.ID] = true
		}
	}
	return l, nil
}

func group(optional, tag string) string {
	for f := range strings.FieldsSeq(optional) {
		if g, ok := strings.CutPrefix(f, tag); ok {
			return g
		}
	}
	return ""
}

// matcher tells whose mount a line of mountinfo is. Btrfs shows an anonymous
// device number there, so its mounts are known by their source.
func (p *Place) matcher() func(*mountinfo.Info) (migrate.Side, bool) {
	rdev := map[uint64]migrate.Side{}
	for _, s := range []migrate.Side{migrate.Source, migrate.Shadow} {
		if s == migrate.Shadow && p.o.Spare.File != "" {
			// Looking must not attach a loop.
			if path, err := loopOf(p.o.Spare.File); err != nil || path == "" {
				continue
			}
		}
		if d, err := p.device(s); err == nil {
			rdev[unix.Mkdev(d.Major, d.Minor)] = s
		}
	}
	sources := map[string]uint64{}
	return func(i *mountinfo.Info) (migrate.Side, bool) {
		if s, ok := rdev[unix.Mkdev(uint32(i.Major), uint32(i.Minor))]; ok {
			return s, true
		}
		if i.FSType != "btrfs" {
			return "", false
		}
		dev, ok := sources[i.Source]
		if !ok {
			var st unix.Stat_t
			if unix.Stat(i.Source, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFBLK {
				dev = st.Rdev
			}
			sources[i.Source] = dev
		}
		s, ok := rdev[dev]
		return s, ok && dev != 0
	}
}

// namespaces finds every mount namespace: ours first, those of all processes, and,
// where the kernel can walk them (6.11), those that only a bind mount keeps alive.
func (l *listing) namespaces() ([]*nsRef, error) {
	self, err := os.Open("/proc/thread-self/ns/mnt")
	if err != nil {
		return nil, fmt.Errorf("open own mount namespace: %w", err)
	}
	l.files = append(l.files, self)
	var st unix.Stat_t
	if err := unix.Fstat(int(self.Fd()), &st); err != nil {
		return nil, fmt.Errorf("stat own mount namespace: %w", err)
	}
	out := []*nsRef{{inode: st.Ino, pid: os.Getpid(), own: true}}
	seen := map[uint64]*nsRef{st.Ino: out[0]}
	pids, err := processes()
	if err != nil {
		return nil, err
	}
	for _, pid := range pids {
		if unix.Stat(fmt.Sprintf("/proc/%d/ns/mnt", pid), &st) != nil {
			continue
		}
		if n := seen[st.Ino]; n != nil {
			if !n.own && n.chroot {
				n.chroot, n.pid = chrooted(pid), pid
			}
			continue
		}
		n := &nsRef{inode: st.Ino, pid: pid, chroot: chrooted(pid)}
		seen[st.Ino] = n
		out = append(out, n)
	}
	for _, request := range []uintptr{nsMntGetNext, nsMntGetPrev} {
		at := self
		for {
			info := mntNSInfo{Size: uint32(unsafe.Sizeof(mntNSInfo{}))}
			fd, _, errno := unix.Syscall(unix.SYS_IOCTL, at.Fd(), request, uintptr(unsafe.Pointer(&info)))
			if errno != 0 {
				break // ENOENT: the last one; ENOTTY: an older kernel
			}
			at = os.NewFile(fd, "mnt namespace")
			l.files = append(l.files, at)
			if unix.Fstat(int(at.Fd()), &st) != nil || seen[st.Ino] != nil {
				continue
			}
			n := &nsRef{inode: st.Ino, file: at}
			seen[st.Ino] = n
			out = append(out, n)
		}
	}
	return out, nil
}

// mntNSInfo is struct mnt_ns_info of linux/nsfs.h.
type mntNSInfo struct {
	Size     uint32
	NrMounts uint32
	ID       uint64
}

// NS_MNT_GET_NEXT and _PREV: _IOR(0xb7, 11 and 12, struct mnt_ns_info).
const (
	nsMntGetNext = 0x8010b70b
	nsMntGetPrev = 0x8010b70c
)

// mounts reads the namespace's mountinfo.
func (n *nsRef) mounts() ([]*mountinfo.Info, error) {
	if n.own {
		return readMountinfo("/proc/thread-self/mountinfo")
	}
	if n.pid != 0 && !n.chroot {
		return readMountinfo(fmt.Sprintf("/proc/%d/mountinfo", n.pid))
	}
	proc, err := unix.Open("/proc", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(proc)
	var infos []*mountinfo.Info
	err = n.enter(func() error {
		fd, err := unix.Openat(proc, "thread-self/mountinfo", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		f := os.NewFile(uintptr(fd), "mountinfo")
		defer f.Close()
		infos, err = mountinfo.GetMountsFromReader(f, nil)
		return err
	})
	return infos, err
}

func readMountinfo(path string) ([]*mountinfo.Info, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return mountinfo.GetMountsFromReader(f, nil)
}

// gone says that a process ended while it was looked at.
func gone(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EINVAL) || errors.Is(err, io.ErrUnexpectedEOF)
}

// processes lists the numbered directories of /proc.
func processes() ([]int, error) {
	d, err := os.Open("/proc")
	if err != nil {
		return nil, err
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	var pids []int
	for _, n := range names {
		if pid, err := strconv.Atoi(n); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

func commandOf(pid int) string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	if err != nil {
		return "?"
	}
	return strings.TrimSpace(string(b))
}

// loopOf is the loop device whose backing file is file, from its first byte;
// "" when there is none.
func loopOf(file string) (string, error) {
	if real, err := filepath.EvalSymlinks(file); err == nil {
		file = real
	}
	backing, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		return "", err
	}
	for _, b := range backing {
		name, err := os.ReadFile(b)
		if err != nil || strings.TrimSuffix(string(name), "\n") != file {
			continue
		}
		offset, err := os.ReadFile(filepath.Join(filepath.Dir(b), "offset"))
		if err != nil || strings.TrimSpace(string(offset)) != "0" {
			continue
		}
		return "/dev/" + filepath.Base(filepath.Dir(filepath.Dir(b))), nil
	}
	return "", nil
}
