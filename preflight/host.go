package preflight

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fsmigrate/fsmigrate/blockdev"
	"github.com/fsmigrate/fsmigrate/formats"
	"github.com/fsmigrate/fsmigrate/migrate"
)

// journalPerObject is the disk space that the journal takes for an object, bytes
// (measured: 110 to 140 at 1,000,000 objects), and what its log and tables need in any case.
const (
	journalPerObject = 400
	journalBase      = 128 << 20
	memoryNeeded     = 256 << 20
)

// checkState looks at the state directory: local, persistent, with room, on neither volume.
func checkState(_ context.Context, l *list, t *target, o *Options) error {
	dir := existing(o.State)
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return fmt.Errorf("look at %s: %w", dir, err)
	}
	var own unix.Stat_t
	if err := unix.Stat(dir, &own); err != nil {
		return fmt.Errorf("look at %s: %w", dir, err)
	}
	need := "a local, persistent directory on neither volume"
	switch {
	case onVolume(o.State, t.mount.Dev) || strings.HasPrefix(o.State+"/", strings.TrimSuffix(t.mount.Point, "/")+"/"):
		l.refuse("state-directory", catState, o.State+" is on the source", need, "use --state with a directory on another volume")
	case st.Type == unix.TMPFS_MAGIC || st.Type == unix.RAMFS_MAGIC:
		l.refuse("state-directory", catState, o.State+" is in memory", need, "use --state with a directory on a disk: after a reboot it says who is the truth")
	case st.Type == unix.NFS_SUPER_MAGIC || st.Type == unix.FUSE_SUPER_MAGIC || st.Type == unix.CIFS_SUPER_MAGIC:
		l.refuse("state-directory", catState, o.State+" is remote, or a FUSE mount", need, "use --state with a directory on a local disk")
	case unix.Access(dir, unix.W_OK) != nil:
		l.refuse("state-directory", catState, o.State+" cannot be written", need, "check its owner, and that its volume is not read-only")
	default:
		l.ok("state-directory", catState, o.State, need)
	}
	want := int64(journalBase)
	if t.census != nil {
		want += t.census.stats.Objects() * journalPerObject
	}
	if free := int64(st.Bavail) * st.Bsize; free < want {
		l.refuse("journal-space", catState, bytes(free)+" free in "+dir, bytes(want), "free space there, or use --state")
	} else {
		l.ok("journal-space", catState, bytes(free)+" free", bytes(want))
	}
	return nil
}

// existing is dir, or its nearest parent that exists.
func existing(dir string) string {
	for {
		if _, err := os.Stat(dir); err == nil || dir == "/" || dir == "." {
			return dir
		}
		dir = filepath.Dir(dir)
	}
}

// checkTools looks for mkfs, fsck and friends in versions that are known to work.
func checkTools(ctx context.Context, l *list, t *target, _ *Options) error {
	for _, tool := range t.to.Tools() {
		version, err := toolVersion(ctx, tool)
		name := "tool-" + tool.Name
		switch {
		case errors.Is(err, exec.ErrNotFound):
			l.refuse(name, catKernel, "not installed", tool.Name+" "+tool.Min+" or later", "apt-get install "+packageOf(tool.Name))
		case err != nil:
			l.refuse(name, catKernel, err.Error(), tool.Name+" "+tool.Min+" or later", "reinstall "+packageOf(tool.Name))
		case version != "" && older(version, tool.Min):
			l.refuse(name, catKernel, version, tool.Min+" or later", "install a newer "+packageOf(tool.Name))
		default:
			l.ok(name, catKernel, version, tool.Min+" or later")
		}
	}
	return nil
}

var versionForm = regexp.MustCompile(`\d+(\.\d+)+`)

func toolVersion(ctx context.Context, tool formats.Tool) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, tool.Name, tool.Arg).CombinedOutput()
	if v := versionForm.Find(out); v != nil {
		return string(v), nil
	}
	return "", err
}

// older compares dotted numbers.
func older(have, min string) bool {
	h, m := strings.Split(have, "."), strings.Split(min, ".")
	for i := range m {
		a, b := 0, 0
		if i < len(h) {
			a, _ = strconv.Atoi(h[i])
		}
		b, _ = strconv.Atoi(m[i])
		if a != b {
			return a < b
		}
	}
	return false
}

func packageOf(tool string) string {
	switch {
	case strings.Contains(tool, "btrfs"):
		return "btrfs-progs"
	case strings.Contains(tool, "xfs"):
		return "xfsprogs"
	}
	return "e2fsprogs"
}

// trialBytes is large enough for every format's smallest volume; the image is sparse.
const trialBytes = 1 << 30

// checkKernel proves that this kernel mounts what will be made, by making and
// mounting a small one, and that it has what a watch needs.
func checkKernel(ctx context.Context, l *list, t *target, o *Options) error {
	if err := trial(ctx, t, existing(o.State)); err != nil {
		l.refuse("kernel-mounts", catKernel, err.Error(), "a kernel that mounts "+t.to.Name()+" with these options", "leave out an option, or use a newer kernel")
	} else {
		l.ok("kernel-mounts", catKernel, "a small volume with these options was made and mounted", "a kernel that mounts "+t.to.Name())
	}
	fd, err := unix.FanotifyInit(unix.FAN_CLASS_NOTIF|unix.FAN_REPORT_DFID_NAME_TARGET|unix.FAN_UNLIMITED_QUEUE|unix.FAN_CLOEXEC, unix.O_RDONLY)
	if err == nil {
		err = unix.FanotifyMark(fd, unix.FAN_MARK_ADD|unix.FAN_MARK_FILESYSTEM, unix.FAN_CREATE|unix.FAN_ONDIR, unix.AT_FDCWD, t.mount.Point)
		unix.Close(fd)
	}
	if err != nil {
		l.refuse("watch", catKernel, "fanotify: "+err.Error(), "file system marks with names (Linux 5.17, CAP_SYS_ADMIN)", "run as root, on a newer kernel")
	} else {
		l.ok("watch", catKernel, "fanotify reports names and handles", "Linux 5.17, CAP_SYS_ADMIN")
	}
	if blockdev.CanAttachBeneath() {
		l.ok("swap", catKernel, "mounts beneath a mount", "Linux 6.5, or the fallback")
	} else {
		l.warn("swap", catKernel, "cannot mount beneath a mount", "Linux 6.5, or the fallback",
			"the fallback puts the new volume on top before the switch record")
	}
	return nil
}

// trial makes and mounts a small volume of the target's kind.
func trial(ctx context.Context, t *target, dir string) (err error) {
	f, err := os.CreateTemp(dir, ".fsmigrate-trial-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if err := f.Truncate(trialBytes); err != nil {
		return err
	}
	argv, err := t.to.Mkfs(f.Name(), formats.MakeOptions{Options: t.plan.Target.Options, Bytes: trialBytes})
	if err != nil {
		return err
	}
	if out, err := exec.CommandContext(ctx, argv[0], argv[1:]...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", argv[0], err, strings.TrimSpace(string(out)))
	}
	loop, err := blockdev.AttachLoop(f.Name(), blockdev.LoopOptions{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, loop.Detach()) }()
	tree, err := blockdev.OpenDevice(loop.Path, t.to.Name(), blockdev.MountOptions{})
	if err != nil {
		return err
	}
	return tree.Close()
}

// checkHost looks at memory, processor, clock and pressure.
func checkHost(_ context.Context, l *list, t *target, _ *Options) error {
	avail := memAvailable()
	if avail < memoryNeeded {
		l.warn("memory", catHardware, bytes(avail)+" available", bytes(memoryNeeded), "stop something, or expect the migration to be slow")
	} else {
		l.ok("memory", catHardware, bytes(avail)+" available", bytes(memoryNeeded))
	}
	var tx unix.Timex
	state, err := unix.Adjtimex(&tx)
	if err != nil || state == 5 || tx.Status&0x40 != 0 {
		l.warn("clock", catState, "not synchronised", "a clock that does not step back",
			"a step back can hide a store through a mapping from its time stamp; generations, sizes and events still find the rest")
	} else {
		l.ok("clock", catState, "synchronised", "a clock that does not step back")
	}
	rate, known := writeRate(t.source)
	found := "cannot be measured"
	if known {
		found = bytes(int64(rate)) + "/s written to the source now"
	}
	if rate > 200e6 {
		l.warn("convergence", catHardware, found, "less than the spare can take", "run it when the load is lower")
	} else {
		l.ok("convergence", catHardware, found, "less than the spare can take")
	}
	return nil
}

func memAvailable() int64 {
	f, err := os.Open("/proc/meminfo")
	if err != nil {
		return 0
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if rest, ok := strings.CutPrefix(s.Text(), "MemAvailable:"); ok {
			kb, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
			if err == nil {
				return kb << 10
			}
		}
	}
	return 0
}

// writeRate samples what is written to a device for a moment, bytes/s.
func writeRate(d blockdev.Device) (float64, bool) {
	path := fmt.Sprintf("/sys/dev/block/%d:%d/stat", d.Major, d.Minor)
	sectors := func() (int64, bool) {
		b, err := os.ReadFile(path)
		if err != nil {
			return 0, false
		}
		f := strings.Fields(string(b))
		if len(f) < 7 {
			return 0, false
		}
		n, err := strconv.ParseInt(f[6], 10, 64)
		return n, err == nil
	}
	a, ok := sectors()
	if !ok {
		return 0, false
	}
	began := time.Now()
	<-time.After(300 * time.Millisecond)
	b, ok := sectors()
	return float64(b-a) * 512 / time.Since(began).Seconds(), ok
}

// tools lists the tools of the target with their versions, for the plan.
func tools(ctx context.Context, f formats.Format) []string {
	var out []string
	for _, tool := range f.Tools() {
		if v, err := toolVersion(ctx, tool); err == nil {
			out = append(out, tool.Name+" "+v)
		}
	}
	return out
}

// Verdict is the worst of the checks.
func Verdict(checks []migrate.Check) migrate.Verdict {
	worst := migrate.OK
	for _, c := range checks {
		if c.Verdict == migrate.Refused {
			return migrate.Refused
		}
		if c.Verdict == migrate.Warning {
			worst = migrate.Warning
		}
	}
	return worst
}
