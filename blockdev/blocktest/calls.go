package blocktest

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Calls runs do and answers the system calls that it made to make things durable or
// to give them their names, in their order: "fsync PATH", "fdatasync PATH", "syncfs PATH", "sync_file_range PATH",
// "sync", "rename OLD NEW", "link OLD NEW". Paths are relative to dir where they lie in it; a file system
// that is synced as a whole is "volume 1", "volume 2" … when its mount is among volumes. What
// cannot be seen in a file's content is seen here: the kernel itself reports each
// call before it is made (seccomp's user notification), so nothing stands between. Only the
// calls of do's own goroutine are seen, not those of goroutines that it starts.
func Calls(t testing.TB, dir string, do func(), volumes ...string) []string {
	t.Helper()
	if real, err := filepath.EvalSymlinks(dir); err == nil {
		dir = real
	}
	r := recorder{dir: dir, volumes: map[uint64]int{}}
	for i, v := range volumes {
		var st unix.Stat_t
		if err := unix.Stat(v, &st); err != nil {
			t.Fatal(err)
		}
		r.volumes[st.Dev] = i + 1
	}
	listener := make(chan int, 1)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		// The filter cannot be taken away again: the thread ends with this goroutine.
		runtime.LockOSThread()
		fd, err := filter()
		if err != nil {
			t.Errorf("watch system calls: %v", err)
			listener <- -1
			return
		}
		listener <- fd
		do()
	}()
	fd := <-listener
	if fd < 0 {
		<-ended
		t.FailNow()
	}
	var reader sync.WaitGroup
	stop, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	reader.Go(func() { err = r.read(fd, stop) })
	<-ended
	_, _ = unix.Write(stop, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	reader.Wait()
	unix.Close(stop)
	unix.Close(fd)
	if err != nil {
		t.Fatalf("watch system calls: %v", err)
	}
	return r.calls
}

// watched are the calls, by number.
var watched = map[int32]string{
	unix.SYS_FSYNC: "fsync", unix.SYS_FDATASYNC: "fdatasync", unix.SYS_SYNCFS: "syncfs", unix.SYS_SYNC: "sync", unix.SYS_SYNC_FILE_RANGE: "sync_file_range",
	unix.SYS_RENAMEAT: "rename", unix.SYS_RENAMEAT2: "rename", unix.SYS_LINKAT: "link",
}

// filter has this thread's watched calls reported.
func filter() (int, error) {
	prog := []unix.SockFilter{{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}} // the call's number
	for nr := range watched {
		prog = append(prog,
			unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: uint32(nr), Jf: 1},
			unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_USER_NOTIF})
	}
	prog = append(prog, unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW})
	f := unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]}
	fd, _, e := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_NEW_LISTENER, uintptr(unsafe.Pointer(&f)))
	runtime.KeepAlive(prog)
	if e != 0 {
		return -1, e
	}
	return int(fd), nil
}

// The kernel's structures, linux/seccomp.h.
type (
	notification struct {
		id         uint64
		pid, flags uint32
		nr         int32
		arch       uint32
		ip         uint64
		args       [6]uint64
	}
	response struct {
		id    uint64
		val   int64
		err   int32
		flags uint32
	}
)

const (
	notifyRecv     = 0xc0502100
	notifySend     = 0xc0182101
	notifyContinue = 1
)

type recorder struct {
	dir     string
	volumes map[uint64]int // by device number
	calls   []string
}

// read reports calls and lets them go on, until the thread has ended and stop says so.
func (r *recorder) read(fd, stop int) error {
	for {
		polls := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}, {Fd: int32(stop), Events: unix.POLLIN}}
		if _, err := unix.Poll(polls, -1); errors.Is(err, unix.EINTR) {
			continue
		} else if err != nil {
			return err
		}
		if polls[0].Revents&unix.POLLIN == 0 {
			return nil
		}
		var n notification
		switch err := control(fd, notifyRecv, unsafe.Pointer(&n)); {
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.ENOENT): // a signal came first: it is made again
			continue
		case err != nil:
			return err
		}
		call := r.describe(&n)
		switch err := control(fd, notifySend, unsafe.Pointer(&response{id: n.id, flags: notifyContinue})); {
		case errors.Is(err, unix.ENOENT):
		case err != nil:
			return err
		default:
			r.calls = append(r.calls, call)
		}
	}
}

func control(fd int, request uintptr, arg unsafe.Pointer) error {
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(arg)); e != 0 {
		return e
	}
	return nil
}

func (r *recorder) describe(n *notification) string {
	name := watched[n.nr]
	switch name {
	case "sync":
		return name
	case "rename", "link":
		return name + " " + r.at(n.args[0], n.args[1]) + " " + r.at(n.args[2], n.args[3])
	}
	path, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", int32(n.args[0])))
	if err != nil {
		return name + " ?"
	}
	var st unix.Stat_t
	if name == "syncfs" && unix.Fstat(int(int32(n.args[0])), &st) == nil && r.volumes[st.Dev] > 0 {
		return fmt.Sprintf("syncfs volume %d", r.volumes[st.Dev])
	}
	return name + " " + r.short(path)
}

// at is the path of an *at call.
func (r *recorder) at(dirfd, addr uint64) string {
	buf := make([]byte, unix.PathMax)
	local := []unix.Iovec{{Base: &buf[0], Len: uint64(len(buf))}}
	// To the end of the page at least: what lies behind it may not be there.
	size := 4096 - int(addr%4096)
	n, err := unix.ProcessVMReadv(os.Getpid(), local, []unix.RemoteIovec{{Base: uintptr(addr), Len: size}}, 0)
	if err == nil && bytes.IndexByte(buf[:n], 0) < 0 {
		n, err = unix.ProcessVMReadv(os.Getpid(), local, []unix.RemoteIovec{{Base: uintptr(addr), Len: len(buf)}}, 0)
	}
	if err != nil {
		return "?"
	}
	name, _, _ := bytes.Cut(buf[:n], []byte{0})
	path := string(name)
	if !filepath.IsAbs(path) && int32(dirfd) != unix.AT_FDCWD {
		dir, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", int32(dirfd)))
		if err != nil {
			return "?"
		}
		path = filepath.Join(dir, path)
	}
	return r.short(path)
}

func (r *recorder) short(path string) string {
	if rel, ok := strings.CutPrefix(path, r.dir+"/"); ok {
		return rel
	}
	if path == r.dir {
		return "."
	}
	return path
}
