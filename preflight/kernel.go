package preflight

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fsmigrate/fsmigrate/blockdev"
	"github.com/fsmigrate/fsmigrate/formats"
	"github.com/fsmigrate/fsmigrate/migrate"
)

// trialBytes is large enough for every format's smallest volume; the image is sparse.
const trialBytes = 1 << 30

// checkKernel proves that this kernel mounts what will be made, by making and
// mounting a small one, and that it has what a watch needs.
func checkKernel(ctx context.Context, l *list, t *target, o *Options) error {
	c := migrate.Check{Name: "kernel-mounts", Category: catKernel, Found: "a small one was made and mounted",
		Need: "a kernel that mounts " + t.to.Name() + " with these options", Verdict: migrate.OK}
	switch err := l.untried(t); {
	case err != nil:
		c.Verdict, c.Found, c.Remedy = migrate.Refused, "not tried: "+err.Error(), "mend that first"
	default:
		if err := trial(ctx, t, existing(o.State)); err != nil {
			c.Verdict, c.Found, c.Remedy = migrate.Refused, err.Error(), "leave out an option, or use a newer kernel"
		}
	}
	l.add(c)
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

// untried says why there is no use in trying.
func (l *list) untried(t *target) error {
	names := []string{"state-directory"}
	for _, tool := range t.to.Tools() {
		names = append(names, "tool-"+tool.Name)
	}
	for _, name := range names {
		if l.verdict(name) == migrate.Refused {
			return errors.New(name + " is refused")
		}
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
		return fmt.Errorf("%s: %w: %s", argv[0], err, lastLine(string(out)))
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

// lastLine is where tools say why they failed.
func lastLine(out string) string {
	lines := strings.Split(strings.TrimSpace(out), "\n")
	return lines[len(lines)-1]
}
