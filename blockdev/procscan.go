package blockdev

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Holder is a process, or the kernel (PID 0), that keeps a volume or device busy.
type Holder struct {
	PID     int
	Command string
	Path    string // what it holds, as the kernel names it
	Kind    string // write, read, cwd, root, map, exe, swap, loop, export, mount, device
	Writes  bool   // it keeps the superblock from becoming read-only, or could still write
}

// use is one thing that a task refers to.
type use struct {
	Holder
	via     string // a path through /proc that reaches it
	mountID int
	rdev    uint64 // of a device node
}

// scan walks /proc once and collects what refers to what wanted accepts.
type scan struct {
	ignore []int                                   // processes to pass over
	fd     func(st *unix.Statx_t, via string) bool // whether an open file, directory or program counts
	maps   func(major, minor uint32) bool          // whether mappings of that superblock count; nil: none do
	denied func(pid int, command string)           // a process that may not be looked at
	remote []string                                // where servers' file systems are mounted: asking there may hang
}

// run looks at the processes in parallel: it has to be over before they change much.
func (s *scan) run() ([]use, error) {
	pids, err := numbers("/proc")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	work := make(chan int)
	var (
		mu    sync.Mutex
		found []use
		errs  []error
		wg    sync.WaitGroup
	)
	for range max(2, min(8, runtime.GOMAXPROCS(0))) {
		wg.Go(func() {
			for pid := range work {
				uses, err := s.process(pid)
				mu.Lock()
				found = append(found, uses...)
				if err != nil && len(errs) < 8 {
					errs = append(errs, err)
				}
				mu.Unlock()
			}
		})
	}
	for _, pid := range pids {
		if !slices.Contains(s.ignore, pid) {
			work <- pid
		}
	}
	close(work)
	wg.Wait()
	return found, errors.Join(errs...)
}

func (s *scan) process(pid int) ([]use, error) {
	tids, err := numbers(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return nil, ignoreGone(err)
	}
	p := &process{scan: s, pid: pid}
	var first int
	for _, tid := range tids {
		dir := fmt.Sprintf("/proc/%d/task/%d", pid, tid)
		for _, kind := range []string{"cwd", "root"} {
			if err := p.look(dir+"/"+kind, kind); err != nil {
				return p.end(err)
			}
		}
		// Threads share their descriptors unless one said otherwise.
		if first != 0 && sameFiles(first, tid) {
			continue
		}
		open, err := p.descriptors(dir)
		if err != nil {
			return p.end(err)
		}
		if open && first == 0 {
			first = tid
		}
	}
	if s.maps != nil {
		if err := p.look(fmt.Sprintf("/proc/%d/exe", pid), "exe"); err != nil {
			return p.end(err)
		}
		if err := p.mappings(); err != nil {
			return p.end(err)
		}
	}
	return p.end(nil)
}

// kcmpFiles is KCMP_FILES of linux/kcmp.h: do two tasks share their descriptors?
const kcmpFiles = 2

func sameFiles(a, b int) bool {
	r, _, errno := unix.Syscall6(unix.SYS_KCMP, uintptr(a), uintptr(b), kcmpFiles, 0, 0, 0)
	return errno == 0 && r == 0
}

// process collects what one process refers to.
type process struct {
	*scan
	pid  int
	uses []use
}

// end names the process in what was found.
func (p *process) end(err error) ([]use, error) {
	err = ignoreGone(err)
	secret := errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM)
	if len(p.uses) == 0 && !secret {
		return nil, err
	}
	command := commandOf(p.pid)
	for i := range p.uses {
		p.uses[i].PID, p.uses[i].Command = p.pid, command
	}
	if secret {
		if p.denied != nil {
			p.denied(p.pid, command)
		}
		err = nil
	}
	return p.uses, err
}

// look examines what a link of /proc leads to.
func (p *process) look(link, kind string) error {
	st, err := p.stat(link)
	if err != nil {
		if isStale(err) {
			return nil
		}
		return ignoreGone(err)
	}
	if !p.fd(&st, link) {
		return nil
	}
	u := use{via: link, mountID: int(st.Mnt_id), rdev: unix.Mkdev(st.Rdev_major, st.Rdev_minor)}
	u.Kind, u.Path = kind, linkText(link)
	if kind == "read" && writable(link) {
		u.Kind = "write"
		// Writing to a FIFO, socket or device node writes nothing to the volume
		// that it is on.
		t := st.Mode & unix.S_IFMT
		u.Writes = t == unix.S_IFREG || t == unix.S_IFBLK
	}
	p.add(u)
	return nil
}

// stat follows a link of /proc. The kernel asks the server about a file of a
// network file system even so, and waits for ever if that is gone: there it is
// given a moment, since what hangs is on no local volume.
func (p *process) stat(link string) (unix.Statx_t, error) {
	const mask = unix.STATX_TYPE | unix.STATX_MNT_ID
	var st unix.Statx_t
	if len(p.remote) == 0 || !p.isRemote(linkText(link)) {
		err := unix.Statx(unix.AT_FDCWD, link, unix.AT_STATX_DONT_SYNC, mask, &st)
		return st, err
	}
	type answer struct {
		st  unix.Statx_t
		err error
	}
	done := make(chan answer, 1)
	go func() {
		var a answer
		a.err = unix.Statx(unix.AT_FDCWD, link, unix.AT_STATX_DONT_SYNC, mask, &a.st)
		done <- a
	}()
	limit := time.NewTimer(remoteLimit)
	defer limit.Stop()
	select {
	case a := <-done:
		return a.st, a.err
	case <-limit.C:
		return st, unix.ESTALE
	}
}

// remoteLimit bounds one question to a server.
const remoteLimit = 200 * time.Millisecond

// isRemote reports whether path may be on a network file system.
func (s *scan) isRemote(path string) bool {
	return slices.ContainsFunc(s.remote, func(dir string) bool {
		return path == dir || strings.HasPrefix(path, dir+"/")
	})
}

// remotePoints are where the network file systems among mounts are.
func remotePoints(mounts []Mount) []string {
	var dirs []string
	for _, m := range mounts {
		switch kind, _, _ := strings.Cut(m.FSType, "."); kind {
		case "nfs", "nfs4", "cifs", "smb3", "9p", "ceph", "afs", "glusterfs", "lustre", "ocfs2", "gfs2", "fuse":
			if m.Point != "/" && !slices.Contains(dirs, m.Point) {
				dirs = append(dirs, m.Point)
			}
		}
	}
	return dirs
}

func (p *process) add(u use) {
	for i, v := range p.uses {
		if v.Kind == u.Kind && v.Path == u.Path && v.mountID == u.mountID {
			p.uses[i].Writes = v.Writes || u.Writes
			return
		}
	}
	p.uses = append(p.uses, u)
}

// descriptors examines the open descriptors of a task; false: it has none any more.
func (p *process) descriptors(task string) (bool, error) {
	fds, err := numbers(task + "/fd")
	if err != nil {
		return false, ignoreGone(err)
	}
	for _, fd := range fds {
		if err := p.look(task+"/fd/"+strconv.Itoa(fd), "read"); err != nil {
			return true, err
		}
	}
	return true, nil
}

// mappings examines the process's mapped files by the superblock that /proc/PID/maps
// names, which is the real one for btrfs too.
func (p *process) mappings() error {
	f, err := os.Open(fmt.Sprintf("/proc/%d/maps", p.pid))
	if err != nil {
		return ignoreGone(err)
	}
	defer f.Close()
	buf := mapsBuffers.Get().(*[64 << 10]byte)
	defer mapsBuffers.Put(buf)
	lines := bufio.NewScanner(f)
	lines.Buffer(buf[:0], len(buf)) // a line is at most a path and 80 bytes
	for lines.Scan() {
		m, ok := parseMapping(lines.Bytes())
		if !ok || !p.maps(m.major, m.minor) {
			continue
		}
		link := fmt.Sprintf("/proc/%d/map_files/%x-%x", p.pid, m.start, m.end)
		u := use{via: link}
		u.Kind, u.Path = "map", m.path
		// The mode of the link is that of the file as it was opened: a mapping
		// keeps it open, so also a private one of a file opened for writing counts.
		u.Writes = writable(link)
		p.add(u)
	}
	return ignoreGone(lines.Err())
}

var mapsBuffers = sync.Pool{New: func() any { return new([64 << 10]byte) }}

type mapping struct {
	start, end   uint64
	major, minor uint32
	path         string
}

// parseMapping reads "start-end perms offset major:minor inode   path".
func parseMapping(line []byte) (mapping, bool) {
	var m mapping
	fields := bytes.Fields(line)
	if len(fields) < 6 || len(fields[3]) < 3 || bytes.Equal(fields[4], []byte("0")) {
		return m, false
	}
	from, to, _ := bytes.Cut(fields[0], []byte("-"))
	major, minor, _ := bytes.Cut(fields[3], []byte(":"))
	var errs [4]error
	var ma, mi uint64
	m.start, errs[0] = strconv.ParseUint(string(from), 16, 64)
	m.end, errs[1] = strconv.ParseUint(string(to), 16, 64)
	ma, errs[2] = strconv.ParseUint(string(major), 16, 32)
	mi, errs[3] = strconv.ParseUint(string(minor), 16, 32)
	m.major, m.minor = uint32(ma), uint32(mi)
	// The path is all after the inode; it may hold spaces.
	at := bytes.Index(line, fields[5])
	m.path = string(line[at:])
	return m, errors.Join(errs[:]...) == nil
}

// writable reports whether a link of /proc/PID/fd or map_files stands for a file
// opened for writing: the kernel shows it as the link's own mode.
func writable(link string) bool {
	var st unix.Stat_t
	return unix.Lstat(link, &st) == nil && st.Mode&0o200 != 0
}

func linkText(link string) string {
	text, err := os.Readlink(link)
	if err != nil {
		return link
	}
	return text
}

// isStale reports errors of one descriptor's file that say nothing about the
// process: a network file system that is gone, a file whose server forgot it.
func isStale(err error) bool {
	return errors.Is(err, unix.ESTALE) || errors.Is(err, unix.EIO) || errors.Is(err, unix.ENOTCONN)
}

func commandOf(pid int) string {
	if line := readLine(fmt.Sprintf("/proc/%d/cmdline", pid)); line != "" {
		argv := strings.Split(strings.TrimRight(line, "\x00"), "\x00")
		argv[0] = filepath.Base(argv[0])
		text := strings.Join(argv, " ")
		if len(text) > 120 {
			text = text[:120] + "…"
		}
		return text
	}
	return readLine(fmt.Sprintf("/proc/%d/comm", pid))
}

// sortHolders puts writers first, then by process and path.
func sortHolders(list []Holder) {
	slices.SortFunc(list, func(a, b Holder) int {
		if a.Writes != b.Writes {
			if a.Writes {
				return -1
			}
			return 1
		}
		return cmp.Or(cmp.Compare(a.PID, b.PID), cmp.Compare(a.Path, b.Path), cmp.Compare(a.Kind, b.Kind))
	})
}
