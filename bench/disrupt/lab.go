package disrupt

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
	"github.com/fsmigrate/fsmigrate/formats"
	_ "github.com/fsmigrate/fsmigrate/formats/btrfs" // the formats that scenarios name
	_ "github.com/fsmigrate/fsmigrate/formats/ext"
	_ "github.com/fsmigrate/fsmigrate/formats/xfs"
)

const labPrefix = "fsmigrate-bench."

// lab is a directory with the volumes of one scenario, and everything that must be gone
// when it is closed.
type lab struct {
	root           string
	scenario       Scenario
	source, spare  string // devices
	loops          []*blockdev.Loop
	blank          []*os.File // the user's devices, held
	state          string     // the device that holds fsmigrate's state
	target, origin string     // types of file systems, for mount(2)
	bytes          int64      // in the tree, once it was made
	lock           *os.File   // held while the benchmark lives
}

func (l *lab) data() string       { return filepath.Join(l.root, "data") } // the application's
func (l *lab) peer() string       { return filepath.Join(l.root, "peer") } // where a peer's target is until the swap
func (l *lab) stateDir() string   { return filepath.Join(l.root, "state") }
func (l *lab) migrations() string { return filepath.Join(l.stateDir(), "migrations") }
func (l *lab) fstab() string      { return filepath.Join(l.root, "fstab") }
func (l *lab) socket() string     { return filepath.Join(l.root, "hook") }
func (l *lab) scratch() string    { return filepath.Join(l.root, "scratch") } // logs of the application

// openLab makes the devices.
func openLab(o Options, s Scenario) (*lab, error) {
	clearDead(o.Dir)
	root, err := os.MkdirTemp(o.Dir, labPrefix)
	if err != nil {
		return nil, fmt.Errorf("make the benchmark's directory: %w", err)
	}
	l := &lab{root: root, scenario: s}
	l.origin, _, _ = strings.Cut(s.From, ":")
	l.target, _, _ = strings.Cut(s.To, ":")
	fail := func(err error) (*lab, error) { return nil, errors.Join(err, l.close()) }
	if l.lock, err = claim(root); err != nil {
		return fail(err)
	}
	for _, dir := range []string{l.data(), l.peer(), l.stateDir()} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return fail(err)
		}
	}
	if l.state, err = l.image("state.img", 256<<20+int64(s.files)*1024); err != nil {
		return fail(err)
	}
	if o.Source != "" {
		l.source, l.spare = o.Source, o.Spare
		for _, path := range []string{l.source, l.spare} {
			if err := l.hold(path); err != nil {
				return fail(err)
			}
		}
		return l, nil
	}
	if l.source, err = l.image("source.img", s.volume()); err != nil {
		return fail(err)
	}
	if l.spare, err = l.image("spare.img", s.volume()); err != nil {
		return fail(err)
	}
	return l, nil
}

// hold takes note of a device of the user's, which must be blank still.
func (l *lab) hold(path string) error {
	f, err := openBlank(path)
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil { // held exclusively it could not be mounted
		return err
	}
	if f, err = os.Open(path); err != nil {
		return err
	}
	l.blank = append(l.blank, f)
	return nil
}

// image makes a sparse file with a loop device over it, past the page cache.
func (l *lab) image(name string, size int64) (string, error) {
	file := filepath.Join(l.root, name)
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		return "", err
	}
	if err := os.Truncate(file, size); err != nil {
		return "", err
	}
	loop, err := blockdev.AttachLoop(file, blockdev.LoopOptions{DirectIO: true})
	if err != nil {
		return "", err
	}
	l.loops = append(l.loops, loop)
	if direct, err := loop.DirectIO(); err != nil || !direct {
		return "", refused(loop.Path+" would go through the page cache of its file: that is no disk", "--dir DIR on a file system with direct I/O")
	}
	return loop.Path, nil
}

// prepare makes a filled source, mounted cold, and blank everything else.
func (l *lab) prepare(ctx context.Context) (err error) {
	if err := l.clear(ctx); err != nil {
		return err
	}
	if err := l.mkfs(ctx, l.source, l.scenario.From, l.scenario.inodes()); err != nil {
		return err
	}
	if err := unix.Mount(l.source, l.data(), l.origin, 0, ""); err != nil {
		return fmt.Errorf("mount %s: %w", l.source, err)
	}
	if l.bytes, err = l.scenario.fill(ctx, l.data()); err != nil {
		return err
	}
	if err := l.stateVolume(ctx); err != nil {
		return err
	}
	uuid, err := exec.CommandContext(ctx, "blkid", "-p", "-s", "UUID", "-o", "value", l.source).Output()
	if err != nil {
		return fmt.Errorf("read the UUID of %s: %w", l.source, err)
	}
	entry := fmt.Sprintf("UUID=%s %s %s defaults 0 2\n", strings.TrimSpace(string(uuid)), l.data(), l.origin)
	if err := os.WriteFile(l.fstab(), []byte(entry), 0o600); err != nil {
		return err
	}
	if err := unix.Unmount(l.data(), 0); err != nil {
		return fmt.Errorf("unmount %s: %w", l.data(), err)
	}
	unix.Sync()
	if err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0); err != nil {
		return fmt.Errorf("drop caches: %w", err)
	}
	if err := unix.Mount(l.source, l.data(), l.origin, 0, ""); err != nil {
		return fmt.Errorf("mount %s: %w", l.source, err)
	}
	return nil
}

// stateVolume makes the volume that holds fsmigrate's state, so that what it writes there
// is counted.
func (l *lab) stateVolume(ctx context.Context) error {
	if err := l.mkfs(ctx, l.state, "ext4", 0); err != nil {
		return err
	}
	if err := unix.Mount(l.state, l.stateDir(), "ext4", 0, ""); err != nil {
		return fmt.Errorf("mount %s: %w", l.state, err)
	}
	return errors.Join(os.Mkdir(l.migrations(), 0o700), os.RemoveAll(l.scratch()), os.Mkdir(l.scratch(), 0o755))
}

// mkfs makes a format as fsmigrate does: the peers get the same volume.
func (l *lab) mkfs(ctx context.Context, device, spec string, inodes int64) error {
	name, opts, err := formats.ParseSpec(spec)
	if err != nil {
		return err
	}
	f, ok := formats.Lookup(name)
	if !ok {
		return fmt.Errorf("there is no format %s", name)
	}
	argv, err := f.Mkfs(device, formats.MakeOptions{Options: opts, Inodes: inodes})
	if err != nil {
		return fmt.Errorf("make %s: %w", spec, err)
	}
	return tool(ctx, argv[0], argv[1:]...)
}

// newTarget makes a peer's target and mounts it beside the source.
func (l *lab) newTarget(ctx context.Context) error {
	if err := l.mkfs(ctx, l.spare, l.scenario.To, 0); err != nil {
		return err
	}
	if err := unix.Mount(l.spare, l.peer(), l.target, 0, ""); err != nil {
		return fmt.Errorf("mount %s: %w", l.spare, err)
	}
	return nil
}

// swap puts a peer's target into the source's place. Unmounting writes what is dirty.
func (l *lab) swap() error {
	for _, dir := range []string{l.data(), l.peer()} {
		if err := unix.Unmount(dir, 0); err != nil {
			return fmt.Errorf("unmount %s: %w", dir, err)
		}
	}
	if err := unix.Mount(l.spare, l.data(), l.target, 0, ""); err != nil {
		return fmt.Errorf("mount %s: %w", l.spare, err)
	}
	return nil
}

// now is the type of what the application's directory is.
func (l *lab) now() (string, error) {
	out, err := exec.Command("findmnt", "-n", "-o", "FSTYPE", "--first-only", "-M", l.data()).Output()
	if err != nil {
		return "", fmt.Errorf("what %s is: %w", l.data(), err)
	}
	lines := strings.Fields(string(out))
	return lines[len(lines)-1], nil
}

// clear unmounts everything and makes the devices blank.
func (l *lab) clear(ctx context.Context) error {
	if err := l.unmount(); err != nil {
		return err
	}
	for _, dev := range []string{l.source, l.spare, l.state} {
		if dev == "" {
			continue
		}
		// Nothing below it stays allocated; a device that cannot discard loses its signatures.
		if tool(ctx, "blkdiscard", "-f", dev) != nil || len(l.blank) > 0 {
			if err := tool(ctx, "wipefs", "-q", "-a", dev); err != nil {
				return err
			}
		}
	}
	return nil
}

// tool runs a program and gives what it said when it fails.
func tool(ctx context.Context, name string, args ...string) error {
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, tail(out))
	}
	return nil
}

// traffic is what the devices have moved, in bytes.
type traffic struct{ read, written int64 }

// moved reads the counters (Documentation/block/stat.rst: sectors of 512 bytes in the
// third and seventh field).
func (l *lab) moved() (t traffic, err error) {
	for _, dev := range []string{l.source, l.spare, l.state} {
		var st unix.Stat_t
		if err := unix.Stat(dev, &st); err != nil {
			return t, err
		}
		b, err := os.ReadFile(fmt.Sprintf("/sys/dev/block/%d:%d/stat", unix.Major(st.Rdev), unix.Minor(st.Rdev)))
		if err != nil {
			return t, fmt.Errorf("counters of %s: %w", dev, err)
		}
		f := strings.Fields(string(b))
		if len(f) < 7 {
			return t, fmt.Errorf("counters of %s: %q", dev, b)
		}
		read, err1 := strconv.ParseInt(f[2], 10, 64)
		written, err2 := strconv.ParseInt(f[6], 10, 64)
		if err := errors.Join(err1, err2); err != nil {
			return t, fmt.Errorf("counters of %s: %w", dev, err)
		}
		t.read, t.written = t.read+read*512, t.written+written*512
	}
	return t, nil
}
