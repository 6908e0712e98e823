package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fsmigrate/fsmigrate/blockdev"
)

// rig is a source and a spare volume, in a directory of their own.
type rig struct {
	dir           string
	source, spare *blockdev.Loop
}

func (r *rig) data() string  { return filepath.Join(r.dir, "data") } // where the source is mounted
func (r *rig) peer() string  { return filepath.Join(r.dir, "peer") } // where a peer's target is
func (r *rig) state() string { return filepath.Join(r.dir, "state") }
func (r *rig) fstab() string { return filepath.Join(r.dir, "fstab") }

// newRig makes both volumes, the source as ext4 with the 128-byte inodes of old.
func newRig(ctx context.Context, below string, bytes, inodes int64) (*rig, error) {
	dir, err := os.MkdirTemp(below, "fsmigrate-bench.")
	if err != nil {
		return nil, err
	}
	r := &rig{dir: dir}
	fail := func(err error) (*rig, error) { return nil, errors.Join(err, r.close()) }
	for _, d := range []string{r.data(), r.peer(), r.state()} {
		if err := os.Mkdir(d, 0o700); err != nil {
			return fail(err)
		}
	}
	for name, loop := range map[string]**blockdev.Loop{"source": &r.source, "spare": &r.spare} {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			return fail(err)
		}
		if err := os.Truncate(file, bytes); err != nil {
			return fail(err)
		}
		if *loop, err = blockdev.AttachLoop(file, blockdev.LoopOptions{DirectIO: true}); err != nil {
			return fail(err)
		}
		if direct, err := (*loop).DirectIO(); err != nil || !direct {
			return fail(fmt.Errorf("%s goes through the page cache of its file: %w", (*loop).Path, errOr(err, "no direct I/O there")))
		}
	}
	if err := tool(ctx, "mkfs.ext4", "-q", "-F", "-I", "128", "-N", strconv.FormatInt(inodes, 10), r.source.Path); err != nil {
		return fail(err)
	}
	if err := r.mount(); err != nil {
		return fail(err)
	}
	uuid, err := exec.CommandContext(ctx, "blkid", "-p", "-s", "UUID", "-o", "value", r.source.Path).Output()
	if err == nil {
		err = os.WriteFile(r.fstab(), fmt.Appendf(nil, "UUID=%s %s ext4 defaults 0 2\n", strings.TrimSpace(string(uuid)), r.data()), 0o600)
	}
	if err != nil {
		return fail(err)
	}
	return r, nil
}

func errOr(err error, otherwise string) error {
	if err == nil {
		return errors.New(otherwise)
	}
	return err
}

func (r *rig) mount() error {
	if err := unix.Mount(r.source.Path, r.data(), "ext4", 0, ""); err != nil {
		return fmt.Errorf("mount %s: %w", r.source.Path, err)
	}
	return nil
}

// cold unmounts and mounts the source and drops what the kernel remembers.
func (r *rig) cold() error {
	if err := unix.Unmount(r.data(), 0); err != nil {
		return fmt.Errorf("unmount %s: %w", r.data(), err)
	}
	if err := dropCaches(); err != nil {
		return err
	}
	return r.mount()
}

func dropCaches() error {
	unix.Sync()
	return os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0)
}

// blank makes the spare as it was when it was new: nothing below it is allocated.
func (r *rig) blank(ctx context.Context) error { return tool(ctx, "blkdiscard", "-f", r.spare.Path) }

// target makes a peer's target and mounts it.
func (r *rig) target(ctx context.Context) error {
	if err := r.blank(ctx); err != nil {
		return err
	}
	if err := tool(ctx, "mkfs.xfs", "-q", "-f", r.spare.Path); err != nil {
		return err
	}
	if err := unix.Mount(r.spare.Path, r.peer(), "xfs", 0, ""); err != nil {
		return fmt.Errorf("mount %s: %w", r.spare.Path, err)
	}
	return nil
}

func (r *rig) dropTarget() error { return unix.Unmount(r.peer(), 0) }

// close takes everything away.
func (r *rig) close() error {
	var errs []error
	for _, dir := range []string{r.peer(), r.data()} {
		for range 4 { // mounts may lie on top of each other after a failure
			err := unix.Unmount(dir, unix.MNT_DETACH)
			if err != nil {
				break // EINVAL: none is left
			}
		}
	}
	for _, l := range []*blockdev.Loop{r.source, r.spare} {
		if l != nil {
			errs = append(errs, l.Detach())
		}
	}
	return errors.Join(append(errs, os.RemoveAll(r.dir))...)
}

// tool runs a program and gives what it said when it fails.
func tool(ctx context.Context, name string, args ...string) error {
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

// traffic is what a device has moved.
type traffic struct{ Read, Written int64 }

func (t traffic) since(before traffic) traffic {
	return traffic{t.Read - before.Read, t.Written - before.Written}
}

// moved reads a device's counters (Documentation/block/stat.rst: sectors of 512 bytes
// in the third and seventh field).
func moved(l *blockdev.Loop) (traffic, error) {
	b, err := os.ReadFile("/sys/block/" + filepath.Base(l.Path) + "/stat")
	if err != nil {
		return traffic{}, err
	}
	f := strings.Fields(string(b))
	if len(f) < 7 {
		return traffic{}, fmt.Errorf("counters of %s: short", l.Path)
	}
	read, err1 := strconv.ParseInt(f[2], 10, 64)
	written, err2 := strconv.ParseInt(f[6], 10, 64)
	return traffic{read * 512, written * 512}, errors.Join(err1, err2)
}
