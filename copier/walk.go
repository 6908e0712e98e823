package copier

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// node is a directory of a walk, by the names that lead to it: a queued
// directory costs no descriptor, and no path is longer than the kernel takes.
type node struct {
	parent *node
	name   string
	length int // of the path
}

func (n *node) child(name string) *node { return &node{n, name, n.length + len(name) + 1} }

// path is the way from the root, "." for the root itself.
func (n *node) path() string {
	if n.parent == nil {
		return "."
	}
	return strings.Join(n.names(), "/")
}

func (n *node) names() []string {
	count := 0
	for m := n; m.parent != nil; m = m.parent {
		count++
	}
	names := make([]string, count)
	for m := n; m.parent != nil; m = m.parent {
		count--
		names[count] = m.name
	}
	return names
}

// pathStep is the longest path handed to the kernel at once: PATH_MAX less room
// for a last name.
const pathStep = unix.PathMax - 256

// openNode opens a directory below root for reading, in as few steps as its
// path needs. Nothing on the way may be a link or another mount.
func openNode(root int, n *node) (int, error) {
	const flags = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_NOATIME
	if n.length < pathStep {
		return OpenBeneath(root, n.path(), flags, 0)
	}
	fd, names := root, n.names()
	for len(names) > 0 {
		take, length := 0, 0
		for take < len(names) && length+len(names[take])+1 < pathStep {
			length += len(names[take]) + 1
			take++
		}
		next, err := OpenBeneath(fd, strings.Join(names[:take], "/"), flags, 0)
		if fd != root {
			unix.Close(fd)
		}
		if err != nil {
			return -1, err
		}
		fd, names = next, names[take:]
	}
	return fd, nil
}

// openEntry opens an object of a directory for ReadAttr: files and directories
// readable, everything else by O_PATH. A FIFO or device that took a file's place
// since it was listed is not waited for.
func openEntry(dir int, name string, typ uint8) (int, error) {
	if typ == unix.DT_REG || typ == unix.DT_DIR {
		fd, err := OpenBeneath(dir, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NOATIME|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
		if !errors.Is(err, unix.ELOOP) && !errors.Is(err, unix.ENXIO) && !errors.Is(err, unix.ENODEV) {
			return fd, err
		}
	}
	return OpenBeneath(dir, name, unix.O_PATH|unix.O_NOFOLLOW, 0)
}

// walk runs visit for every queued directory on a number of workers, each with
// its own Buffers. The queue is a stack, so that its length follows the depth of
// the tree rather than its breadth. The first error ends it.
func walk(ctx context.Context, workers int, visit func(ctx context.Context, b *Buffers, n *node, push func(*node)) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	q := newStack(&node{})
	var wg sync.WaitGroup
	for range max(workers, 1) {
		wg.Go(func() {
			b := NewBuffers()
			for {
				n := q.pop()
				if n == nil {
					return
				}
				err := ctx.Err()
				if err == nil {
					err = visit(ctx, b, n, q.push)
				}
				if err != nil {
					cancel(err)
					q.close()
					return
				}
				q.done()
			}
		})
	}
	wg.Wait()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}

// stack hands out directories until none is left and nobody works on one.
type stack struct {
	mu     sync.Mutex
	wake   *sync.Cond
	nodes  []*node
	busy   int
	closed bool
}

func newStack(first *node) *stack {
	s := &stack{nodes: []*node{first}}
	s.wake = sync.NewCond(&s.mu)
	return s
}

func (s *stack) push(n *node) {
	s.mu.Lock()
	s.nodes = append(s.nodes, n)
	s.mu.Unlock()
	s.wake.Signal()
}

func (s *stack) pop() *node {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.nodes) == 0 && s.busy > 0 && !s.closed {
		s.wake.Wait()
	}
	if len(s.nodes) == 0 || s.closed {
		return nil
	}
	n := s.nodes[len(s.nodes)-1]
	s.nodes[len(s.nodes)-1] = nil
	s.nodes = s.nodes[:len(s.nodes)-1]
	s.busy++
	return n
}

func (s *stack) done() {
	s.mu.Lock()
	s.busy--
	last := s.busy == 0 && len(s.nodes) == 0
	s.mu.Unlock()
	if last {
		s.wake.Broadcast()
	}
}

func (s *stack) close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.wake.Broadcast()
}

// OpenTree opens dir as the root of a walk: a private clone of its mount, where
// submounts do not hide what lies below them and neither devices nor atime are
// touched; without the privilege for that, the directory as it is.
func OpenTree(dir string) (int, error) {
	fd, err := unix.OpenTree(unix.AT_FDCWD, dir, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		fd, err = unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return -1, fmt.Errorf("open tree %s: %w", Escape(dir), err)
		}
		return fd, nil
	}
	// The clone is an O_PATH descriptor; closing it would dissolve the mount, but
	// a descriptor opened through it keeps the mount alive.
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NOATIME, Attr_clr: unix.MOUNT_ATTR__ATIME}
	if _, _, e := unix.Syscall6(unix.SYS_MOUNT_SETATTR, uintptr(fd), uintptr(unsafe.Pointer(&emptyPath)), unix.AT_EMPTY_PATH,
		uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr), 0); e != 0 {
		unix.Close(fd)
		return -1, fmt.Errorf("protect clone of %s: %w", Escape(dir), e)
	}
	defer unix.Close(fd)
	root, err := unix.Openat(fd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open tree %s: %w", Escape(dir), err)
	}
	return root, nil
}
