package blockdev

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// namespace is a mount namespace held open.
type namespace struct {
	inode uint64
	pid   int // a process in it; 0 if only the kernel knew of it
	file  *os.File
}

// MountsOf returns every mount of the superblock dev (MountDev) in every mount
// namespace: those of processes and threads, and, where the kernel lists them
// (Linux 6.12), those that only a descriptor or a bind mount keeps. Ours come first.
// Mounts that are in no namespace are found by DetachedMountsOf.
func MountsOf(dev uint64) ([]Mount, error) {
	all, err := AllMounts()
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(all, func(m Mount) bool { return m.Dev != dev }), nil
}

// AllMounts returns the mounts of all namespaces, ours first. Of a process that
// may not be looked at (EACCES: a security module) the mount table still can be
// read; what it shows beyond the others is there with NS 0.
func AllMounts() ([]Mount, error) {
	mounts, err := ownMounts()
	if err != nil {
		return nil, err
	}
	spaces, secret, err := foreignNamespaces()
	defer closeNamespaces(spaces)
	if err != nil {
		return nil, err
	}
	for _, s := range spaces {
		more, err := mountsIn(s)
		if err != nil {
			return nil, err
		}
		mounts = append(mounts, more...)
	}
	if len(secret) == 0 {
		return mounts, nil
	}
	known := make(map[int]bool, len(mounts))
	for _, m := range mounts {
		known[m.ID] = true
	}
	for _, pid := range secret {
		more, err := readMountinfo(fmt.Sprintf("/proc/%d/mountinfo", pid))
		if ignoreGone(err) != nil {
			return nil, err
		}
		for _, m := range more {
			if !known[m.ID] {
				known[m.ID] = true
				m.PID = pid
				mounts = append(mounts, m)
			}
		}
	}
	return mounts, nil
}

func closeNamespaces(spaces []namespace) {
	for _, s := range spaces {
		s.file.Close()
	}
}

// foreignNamespaces opens every mount namespace but the caller's. secret are the
// processes whose namespace may not be asked for.
func foreignNamespaces() (spaces []namespace, secret []int, err error) {
	own, err := nsInode("/proc/thread-self/ns/mnt")
	if err != nil {
		return nil, nil, err
	}
	seen := map[uint64]bool{own: true}
	err = eachTask(func(pid int, task string) error {
		path := task + "/ns/mnt"
		ino, err := nsInode(path)
		if errors.Is(err, unix.EACCES) {
			if n := len(secret); n == 0 || secret[n-1] != pid {
				secret = append(secret, pid)
			}
			return nil
		}
		if err != nil || seen[ino] {
			return ignoreGone(err)
		}
		f, err := os.Open(path)
		if err != nil {
			return ignoreGone(err)
		}
		// The task may have moved on between the two calls.
		if ino, err = nsInode(fmt.Sprintf("/proc/self/fd/%d", f.Fd())); err != nil || seen[ino] {
			f.Close()
			return err
		}
		seen[ino] = true
		spaces = append(spaces, namespace{inode: ino, pid: pid, file: f})
		return nil
	})
	if err != nil {
		return spaces, secret, err
	}
	for _, direction := range []uintptr{nsMntGetNext, nsMntGetPrev} {
		more, err := listedNamespaces(direction, seen)
		spaces = append(spaces, more...)
		if err != nil {
			return spaces, secret, fmt.Errorf("list mount namespaces: %w", err)
		}
	}
	return spaces, secret, nil
}

// NS_MNT_GET_NEXT and NS_MNT_GET_PREV of linux/nsfs.h: _IOR(0xb7, 11 and 12,
// struct mnt_ns_info).
const (
	nsMntGetNext = 0x8010b70b
	nsMntGetPrev = 0x8010b70c
)

// listedNamespaces asks the kernel for the namespaces that are older or younger
// than ours. Kernels before 6.12 answer ENOTTY.
func listedNamespaces(direction uintptr, seen map[uint64]bool) ([]namespace, error) {
	at, err := os.Open("/proc/thread-self/ns/mnt")
	if err != nil {
		return nil, err
	}
	defer func() { at.Close() }()
	var spaces []namespace
	for {
		info := struct {
			size, mounts uint32
			id           uint64
		}{size: 16}
		fd, _, errno := unix.Syscall(unix.SYS_IOCTL, at.Fd(), direction, uintptr(unsafe.Pointer(&info)))
		switch errno {
		case 0:
		case unix.ENOENT, unix.ENOTTY, unix.EINVAL, unix.EPERM:
			return spaces, nil
		default:
			return spaces, errno
		}
		unix.CloseOnExec(int(fd))
		at.Close()
		at = os.NewFile(fd, "mnt namespace")
		ino, err := nsInode(fmt.Sprintf("/proc/self/fd/%d", fd))
		if err != nil {
			return spaces, err
		}
		if seen[ino] {
			continue
		}
		seen[ino] = true
		keep, err := unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 3)
		if err != nil {
			return spaces, err
		}
		spaces = append(spaces, namespace{inode: ino, file: os.NewFile(uintptr(keep), "mnt namespace")})
	}
}

// mountsIn reads a namespace's table from inside, from its root: the table of a
// process with a root of its own shows only what that process can reach. Where
// it can't be entered the process's table has to do.
func mountsIn(s namespace) ([]Mount, error) {
	var mounts []Mount
	err := inNamespace(s.file, func(proc int) error {
		fd, err := unix.Openat(proc, "thread-self/mountinfo", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("read mount table of namespace %d: %w", s.inode, err)
		}
		f := os.NewFile(uintptr(fd), "mountinfo")
		defer f.Close()
		mounts, err = parseMountinfo(f)
		return err
	})
	if errors.Is(err, unix.EPERM) && s.pid != 0 {
		mounts, err = readMountinfo(fmt.Sprintf("/proc/%d/mountinfo", s.pid))
		err = ignoreGone(err)
	}
	if err != nil {
		return nil, err
	}
	for i := range mounts {
		mounts[i].NS, mounts[i].PID = s.inode, s.pid
	}
	return mounts, nil
}

// eachTask calls f with every thread of every process: pid and "/proc/PID/task/TID".
// Threads may have namespaces and working directories of their own.
func eachTask(f func(pid int, task string) error) error {
	pids, err := numbers("/proc")
	if err != nil {
		return fmt.Errorf("list processes: %w", err)
	}
	for _, pid := range pids {
		dir := fmt.Sprintf("/proc/%d/task", pid)
		tids, err := numbers(dir)
		if err != nil {
			if ignoreGone(err) == nil {
				continue
			}
			return fmt.Errorf("list threads: %w", err)
		}
		for _, tid := range tids {
			if err := f(pid, dir+"/"+strconv.Itoa(tid)); err != nil {
				return err
			}
		}
	}
	return nil
}

// numbers lists the names of dir that are numbers.
func numbers(dir string) ([]int, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	list := make([]int, 0, len(names))
	for _, name := range names {
		if n, err := strconv.Atoi(name); err == nil {
			list = append(list, n)
		}
	}
	return list, nil
}

// ignoreGone forgets the errors that mean that a process ended while it was
// looked at, or is a kernel thread, which has no files.
func ignoreGone(err error) error {
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH) {
		return nil
	}
	return err
}
