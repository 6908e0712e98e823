package record

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"
)

const apartFD = "FSMIGRATE_RECORD_FD"

// Apart mounts a connection at dir and begins this program anew, with the same
// arguments, in a mount namespace of its own; there it answers the connection's
// descriptor, for Serve. Call it first thing in main.
//
// In a namespace of its own, because a process that serves a mount may not be the last one
// in the namespace of that mount: when it is killed, the kernel unmounts what is there
// before it closes the process's descriptors, a file system on a loop over a served file
// waits for its last writes to be served, and both wait for ever.
//
// Its memory is also given to it without writing out dirty pages, which may be of a
// file system that waits for it. Without CAP_SYS_RESOURCE that is left out.
func Apart(dir string) (fd int, err error) {
	if s := os.Getenv(apartFD); s != "" {
		return strconv.Atoi(s)
	}
	runtime.LockOSThread() // what follows is the thread's, and passes to what it executes
	defer runtime.UnlockOSThread()
	fd, err = unix.Open("/dev/fuse", unix.O_RDWR, 0)
	if err != nil {
		return 0, &os.PathError{Op: "open", Path: "/dev/fuse", Err: err}
	}
	options := fmt.Sprintf("fd=%d,rootmode=40000,user_id=%d,group_id=%d,max_read=%d", fd, os.Geteuid(), os.Getegid(), maxIO)
	if err := unix.Mount("fsmigrate-record", dir, "fuse.record", unix.MS_NOSUID|unix.MS_NODEV, options); err != nil {
		return 0, &os.PathError{Op: "mount", Path: dir, Err: err}
	}
	if err := apart(dir); err != nil {
		return 0, errors.Join(fmt.Errorf("begin anew in a mount namespace: %w", err), unix.Unmount(dir, unix.MNT_DETACH))
	}
	env := append(os.Environ(), apartFD+"="+strconv.Itoa(fd))
	return 0, fmt.Errorf("begin anew: %w", unix.Exec("/proc/self/exe", os.Args, env))
}

func apart(dir string) error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return err
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil { // the copy: the mount goes with the other
		return err
	}
	err := unix.Prctl(unix.PR_SET_IO_FLUSHER, 1, 0, 0, 0)
	if errors.Is(err, unix.EPERM) {
		return nil
	}
	return err
}
