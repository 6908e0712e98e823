package blockdev

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// HolderOption changes whom FileHolders and DeviceHolders report.
type HolderOption func(*holderOptions)

type holderOptions struct {
	ignore []int
	denied func(pid int, command string)
}

// IgnorePID passes over processes: our own, as a rule.
func IgnorePID(pids ...int) HolderOption {
	return func(o *holderOptions) { o.ignore = append(o.ignore, pids...) }
}

// Denied is called for processes that may not be looked at, because a security
// module says so. What they hold is unknown; the kernel's own EBUSY still counts it.
func Denied(f func(pid int, command string)) HolderOption {
	return func(o *holderOptions) {
		var mu sync.Mutex
		o.denied = func(pid int, command string) { mu.Lock(); defer mu.Unlock(); f(pid, command) }
	}
}

// FileHolders lists who uses the file system with the device number dev: the
// superblock's (MountDev), or the st_dev of the directory mountRoot, where it is mounted.
// Open files and directories, working directories, roots, programs and mappings
// (deleted files and detached mounts included), swap files, loop devices
// over its files, NFS exports, and its mounts other than the one at mountRoot in our
// namespace. Writers come first. What is held only by a file in flight
// through a socket or registered with io_uring isn't found.
func FileHolders(dev uint64, mountRoot string, opts ...HolderOption) ([]Holder, error) {
	o := newHolderOptions(opts)
	v, err := newVolume(dev, mountRoot)
	if err != nil {
		return nil, err
	}
	list, _, err := v.processes(o)
	if err != nil {
		return nil, err
	}
	list = append(list, v.otherMounts(mountRoot)...)
	list = append(list, v.swapFiles()...)
	list = append(list, v.loops()...)
	list = append(list, v.exports()...)
	sortHolders(list)
	return list, nil
}

// DetachedMountsOf finds the mounts of the superblock dev that are in no
// namespace any more but pinned by a descriptor, working directory or root: by
// whoever still has it. Trees that a process holds and never attached are among them.
// Via reaches each. They can't be sealed (ErrDetached).
func DetachedMountsOf(dev uint64, opts ...HolderOption) ([]Mount, error) {
	v, err := newVolume(dev, "")
	if err != nil {
		return nil, err
	}
	_, detached, err := v.processes(newHolderOptions(opts))
	return detached, err
}

func newHolderOptions(opts []HolderOption) holderOptions {
	var o holderOptions
	for _, opt := range opts {
		opt(&o)
	}
	return o
}

// volume is a superblock whose users are looked for.
type volume struct {
	dev    uint64 // of the superblock
	stDev  uint64 // of files, where that is another
	mounts []Mount
	remote []string
	byID   map[int]uint64 // mount id → superblock, of all attached mounts

	mu      sync.Mutex
	unknown map[int]bool // mount ids in no table: whether they are of this superblock
}

func newVolume(dev uint64, mountRoot string) (*volume, error) {
	all, err := AllMounts()
	if err != nil {
		return nil, err
	}
	v := &volume{dev: dev, stDev: dev, byID: make(map[int]uint64, len(all)), unknown: map[int]bool{}, remote: remotePoints(all)}
	if mountRoot != "" {
		var st unix.Stat_t
		if m, err := MountAt(mountRoot); err == nil && unix.Stat(mountRoot, &st) == nil && st.Dev == dev {
			v.dev = m.Dev
		}
	}
	for _, m := range all {
		v.byID[m.ID] = m.Dev
		if m.Dev == v.dev {
			v.mounts = append(v.mounts, m)
		}
	}
	return v, nil
}

// has decides whether something open is on the volume.
func (v *volume) has(st *unix.Statx_t, via string) bool {
	id := int(st.Mnt_id)
	if dev, ok := v.byID[id]; ok {
		return dev == v.dev
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG, unix.S_IFDIR, unix.S_IFLNK, unix.S_IFIFO, unix.S_IFSOCK, unix.S_IFBLK, unix.S_IFCHR:
	default:
		return false // an anonymous inode
	}
	switch unix.Mkdev(st.Dev_major, st.Dev_minor) {
	case v.dev, v.stDev:
		v.mu.Lock()
		v.unknown[id] = true
		v.mu.Unlock()
		return true
	}
	if st.Dev_major != 0 || unix.Major(v.dev) != 0 {
		return false
	}
	// A detached mount of something without a device number of its own, like
	// each subvolume of a btrfs. Pipes and memory files come here too.
	v.mu.Lock()
	mine, ok := v.unknown[id]
	v.mu.Unlock()
	if ok {
		return mine
	}
	dev, err := superDev(via)
	mine = err == nil && dev == v.dev
	v.mu.Lock()
	v.unknown[id] = mine
	v.mu.Unlock()
	return mine
}

// processes lists the processes that use the volume, and its detached mounts.
func (v *volume) processes(o holderOptions) ([]Holder, []Mount, error) {
	major, minor := unix.Major(v.dev), unix.Minor(v.dev)
	s := scan{
		ignore: o.ignore, denied: o.denied, fd: v.has, remote: v.remote,
		maps: func(ma, mi uint32) bool { return ma == major && mi == minor },
	}
	uses, err := s.run()
	if err != nil {
		return nil, nil, err
	}
	var (
		list     []Holder
		detached []Mount
	)
	for _, u := range uses {
		if u.mountID != 0 && v.unknown[u.mountID] {
			if !slices.ContainsFunc(detached, func(m Mount) bool { return m.ID == u.mountID }) {
				detached = append(detached, Mount{ID: u.mountID, Dev: v.dev, Point: u.Path, PID: u.PID, Via: u.via})
			}
			u.Path += " (on a detached mount)"
		}
		list = append(list, u.Holder)
	}
	return list, detached, nil
}

func (v *volume) otherMounts(mountRoot string) []Holder {
	var list []Holder
	own, _ := MountAt(mountRoot)
	for _, m := range v.mounts {
		if own.ID != 0 && m.ID == own.ID {
			continue
		}
		h := Holder{PID: m.PID, Path: m.Point, Kind: "mount", Writes: !m.ReadOnly() && !IsSuperReadOnly(m)}
		if m.PID != 0 {
			h.Command = commandOf(m.PID)
		}
		list = append(list, h)
	}
	return list
}

// contains reports whether the file at path is on the volume.
func (v *volume) contains(path string) bool {
	fd, err := openPath(path)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	st, err := statMount(fd)
	return err == nil && v.has(&st, fmt.Sprintf("/proc/self/fd/%d", fd))
}

func (v *volume) swapFiles() []Holder {
	var list []Holder
	for _, s := range swaps() {
		if s.file && v.contains(s.path) {
			list = append(list, Holder{Path: s.path, Kind: "swap", Command: "swap", Writes: true})
		}
	}
	return list
}

// loops lists the loop devices over files of the volume.
func (v *volume) loops() []Holder {
	var list []Holder
	for _, l := range loopDevices() {
		if v.contains(l.file) || l.deleted && v.loopOn(l.name) {
			list = append(list, Holder{Path: l.file, Kind: "loop", Command: "/dev/" + l.name, Writes: !l.readOnly})
		}
	}
	return list
}

// loopOn asks a loop device whose file was deleted where that is.
func (v *volume) loopOn(name string) bool {
	f, err := os.Open("/dev/" + name)
	if err != nil {
		return false
	}
	defer f.Close()
	info, err := unix.IoctlLoopGetStatus64(int(f.Fd()))
	return err == nil && (info.Device == v.dev || info.Device == v.stDev)
}

type loopDevice struct {
	name, file        string
	deleted, readOnly bool
}

func loopDevices() []loopDevice {
	found, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
	var list []loopDevice
	for _, f := range found {
		dir := filepath.Dir(filepath.Dir(f))
		file, deleted := strings.CutSuffix(readLine(f), " (deleted)")
		if file != "" {
			list = append(list, loopDevice{name: filepath.Base(dir), file: file, deleted: deleted, readOnly: readLine(dir+"/ro") == "1"})
		}
	}
	return list
}

// exports lists the directories of the volume that the NFS server exports.
func (v *volume) exports() []Holder {
	var list []Holder
	for _, table := range []string{"/proc/fs/nfsd/exports", "/var/lib/nfs/etab"} {
		data, err := os.ReadFile(table)
		if err != nil {
			continue
		}
		for _, dir := range parseExports(string(data)) {
			h := Holder{Path: dir, Kind: "export", Command: "nfsd", Writes: true}
			if v.contains(dir) && !slices.Contains(list, h) {
				list = append(list, h)
			}
		}
	}
	return list
}

// parseExports reads the paths of an export table: the first field of each line,
// with octal escapes.
func parseExports(text string) []string {
	var dirs []string
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) == 0 || strings.HasPrefix(fields[0], "#") {
			continue
		}
		if dir := unescapeOctal(fields[0]); !slices.Contains(dirs, dir) {
			dirs = append(dirs, dir)
		}
	}
	return dirs
}
