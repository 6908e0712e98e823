package blockdev

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Loop is a loop device over a file.
type Loop struct {
	Path string // /dev/loopN
	File string // the backing file, canonical
}

// LoopOptions say how a file is looped. Offset and Size are bytes; Size 0 is
// the whole file.
type LoopOptions struct {
	ReadOnly     bool
	DirectIO     bool // past the page cache of the file below; without effect where that can't
	Offset, Size int64
	SectorSize   int // 0: 512
}

// AttachLoop makes a loop device over file, complete with its options in one
// step (LOOP_CONFIGURE): at no moment is it there with others.
func AttachLoop(file string, o LoopOptions) (*Loop, error) {
	path, err := canonical(file)
	if err != nil {
		return nil, fmt.Errorf("attach loop: %w", err)
	}
	mode := os.O_RDWR
	if o.ReadOnly {
		mode = os.O_RDONLY
	}
	backing, err := os.OpenFile(path, mode, 0)
	if err != nil {
		return nil, fmt.Errorf("attach loop: %w", err)
	}
	defer backing.Close()
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("attach loop: %w", err)
	}
	defer control.Close()
	config := loopConfig(path, int(backing.Fd()), o)
	// Between "free" and "configure" somebody else may take the number: EBUSY.
	var last error
	for range 64 {
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, fmt.Errorf("attach loop %s: find a free device: %w", path, err)
		}
		dev := "/dev/loop" + strconv.Itoa(n)
		if last = configureLoop(dev, mode, config); last == nil {
			return &Loop{Path: dev, File: path}, nil
		}
		if !errors.Is(last, unix.EBUSY) && !errors.Is(last, unix.ENXIO) && !errors.Is(last, unix.ENOENT) {
			break
		}
	}
	return nil, fmt.Errorf("attach loop %s: %w", path, last)
}

func loopConfig(path string, fd int, o LoopOptions) *unix.LoopConfig {
	c := &unix.LoopConfig{Fd: uint32(fd), Size: uint32(o.SectorSize)}
	c.Info.Offset, c.Info.Sizelimit = uint64(o.Offset), uint64(o.Size)
	if o.ReadOnly {
		c.Info.Flags |= unix.LO_FLAGS_READ_ONLY
	}
	if o.DirectIO {
		c.Info.Flags |= unix.LO_FLAGS_DIRECT_IO
	}
	copy(c.Info.File_name[:len(c.Info.File_name)-1], path)
	return c
}

func configureLoop(dev string, mode int, c *unix.LoopConfig) error {
	f, err := os.OpenFile(dev, mode, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.IoctlLoopConfigure(int(f.Fd()), c); err != nil {
		return &os.PathError{Op: "configure", Path: dev, Err: err}
	}
	return nil
}

// LoopOf finds the loop device over file, with offset 0. A nil Loop: there is none.
func LoopOf(file string) (*Loop, error) {
	path, err := canonical(file)
	if err != nil {
		return nil, err
	}
	return loopOver(path, path)
}

// LoopOfRemoved finds the loop device over a file that was removed since, and which the
// loop keeps alive until it is detached. A nil Loop: there is none.
func LoopOfRemoved(file string) (*Loop, error) {
	dir, err := canonical(filepath.Dir(file))
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir, filepath.Base(file))
	return loopOver(path, path+" (deleted)")
}

// loopOver finds the loop over the file at path, as the kernel names it.
func loopOver(path, named string) (*Loop, error) {
	found, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		return nil, err
	}
	for _, f := range found {
		dir := filepath.Dir(f)
		if readLine(f) == named && readLine(dir+"/offset") == "0" {
			return &Loop{Path: "/dev/" + filepath.Base(filepath.Dir(dir)), File: path}, nil
		}
	}
	return nil, nil
}

// Rescan takes over the backing file's present size.
func (l *Loop) Rescan() error {
	f, err := l.open()
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.IoctlSetInt(int(f.Fd()), unix.LOOP_SET_CAPACITY, 0); err != nil {
		return fmt.Errorf("rescan %s: %w", l.Path, err)
	}
	return nil
}

// DirectIO reports whether the device goes past the page cache of its file:
// the kernel falls back silently where the file can't.
func (l *Loop) DirectIO() (bool, error) {
	f, err := l.open()
	if err != nil {
		return false, err
	}
	defer f.Close()
	info, err := unix.IoctlLoopGetStatus64(int(f.Fd()))
	if err != nil {
		return false, fmt.Errorf("status of %s: %w", l.Path, err)
	}
	return info.Flags&unix.LO_FLAGS_DIRECT_IO != 0, nil
}

// detachLimit bounds the wait for the kernel to let go of a loop device, whose
// last user may just be closing it.
var detachLimit = 5 * time.Second

// Detach takes the device away from its file and returns when it is gone.
//
// A device that is still open elsewhere can't be: the kernel then only notes
// that it should go with its last user (LO_FLAGS_AUTOCLEAR). That is an error that wraps
// EBUSY. A device that is gone already, or that meanwhile belongs to
// another file, is none of ours: nil.
func (l *Loop) Detach() error {
	if !l.ours() {
		return nil
	}
	if err := l.clear(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), detachLimit)
	defer cancel()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for l.ours() {
		select {
		case <-ctx.Done():
			return fmt.Errorf("detach %s from %s: still in use, it goes with its last user: %w", l.Path, l.File, unix.EBUSY)
		case <-tick.C:
		}
	}
	return nil
}

func (l *Loop) clear() error {
	f, err := l.open()
	if err != nil {
		return fmt.Errorf("detach: %w", err)
	}
	defer f.Close()
	err = unix.IoctlSetInt(int(f.Fd()), unix.LOOP_CLR_FD, 0)
	if err != nil && !errors.Is(err, unix.ENXIO) {
		return fmt.Errorf("detach %s: %w", l.Path, err)
	}
	return nil
}

// ours reports whether the device is still bound to our file.
func (l *Loop) ours() bool {
	file := readLine("/sys/block/" + filepath.Base(l.Path) + "/loop/backing_file")
	return strings.TrimSuffix(file, " (deleted)") == l.File
}

func (l *Loop) open() (*os.File, error) {
	f, err := os.OpenFile(l.Path, os.O_RDONLY, 0)
	if err != nil {
		return nil, fmt.Errorf("open loop: %w", err)
	}
	return f, nil
}

// readLine reads a small file of sysfs; "" where there is none.
func readLine(path string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return strings.TrimSuffix(string(data), "\n")
}

func canonical(file string) (string, error) {
	abs, err := filepath.Abs(file)
	if err != nil {
		return "", err
	}
	return filepath.EvalSymlinks(abs)
}
