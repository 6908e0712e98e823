package blockdev

import (
	"fmt"
	"os"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"
)

// visit is something to do in another mount namespace.
type visit struct {
	ns   *os.File
	f    func(proc int) error
	done chan error
}

var (
	visits       chan visit
	startVisitor sync.Once
)

// inNamespace runs f inside the mount namespace ns, with its root as root. f
// gets a descriptor of our own /proc: there need not be one in there. f must not
// start goroutines that touch the file system, or processes.
//
// One thread does all visits and comes back after each: it would keep the
// namespace alive otherwise. It never ends either, since with a thread the children end
// that it started with a parent-death signal, and which thread that was isn't
// known.
func inNamespace(ns *os.File, f func(proc int) error) error {
	startVisitor.Do(func() {
		visits = make(chan visit)
		go visitor()
	})
	v := visit{ns: ns, f: f, done: make(chan error, 1)}
	visits <- v
	return <-v.done
}

func visitor() {
	runtime.LockOSThread()
	proc, err := unix.Open("/proc", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err == nil {
		// setns refuses a thread that shares its root and working directory.
		err = unix.Unshare(unix.CLONE_FS)
	}
	home, homeErr := os.Open("/proc/thread-self/ns/mnt")
	if err == nil {
		err = homeErr
	}
	for v := range visits {
		if err != nil {
			v.done <- fmt.Errorf("prepare to visit mount namespaces: %w", err)
			continue
		}
		if err := unix.Setns(int(v.ns.Fd()), unix.CLONE_NEWNS); err != nil {
			v.done <- fmt.Errorf("enter mount namespace: %w", err)
			continue
		}
		result := v.f(proc)
		if err = unix.Setns(int(home.Fd()), unix.CLONE_NEWNS); err != nil {
			result = fmt.Errorf("return from a mount namespace: %w", err)
		}
		v.done <- result
	}
}
