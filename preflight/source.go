package preflight

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fsmigrate/fsmigrate/blockdev"
	"github.com/fsmigrate/fsmigrate/formats"
	"github.com/fsmigrate/fsmigrate/fstab"
	"github.com/fsmigrate/fsmigrate/migrate"
	"github.com/fsmigrate/fsmigrate/shadow"
)

// checkSource looks at the volume that is to change: whole, alone, writable, sound.
func checkSource(_ context.Context, l *list, t *target, o *Options) error {
	m := t.mount
	switch {
	case m.Point == "/":
		l.refuse("mount-point", catData, "/ (the root volume)", "a volume that can be unmounted", "migrate / from a rescue system, offline")
	case m.Root != "/":
		l.refuse("mount-point", catData, fmt.Sprintf("%s shows only %s of its volume (a bind mount or subvolume)", m.Point, m.Root),
			"the whole volume", "name the mount point of the whole volume")
	default:
		l.ok("mount-point", catData, fmt.Sprintf("%s, %s, all of it", m.Point, t.volume.Format), "the whole volume, not /")
	}
	if m.ReadOnly() || blockdev.IsSuperReadOnly(m) {
		l.refuse("source-writable", catData, "mounted read-only", "a volume in use", "a read-only volume needs no migration under load: copy it")
	} else {
		l.ok("source-writable", catData, "read-write", "read-write")
	}
	if n := t.volume.ErrorCount; n > 0 {
		l.refuse("source-errors", catData, fmt.Sprintf("%d errors recorded in its superblock", n), "none",
			"unmount it and run "+strings.Join(checker(t.from, t.source.Path), " ")+" with repair")
	} else {
		l.ok("source-errors", catData, "none recorded", "none")
	}
	if t.from.Name() != t.plan.Source.Format {
		l.refuse("source-format", catData, t.from.Name(), t.plan.Source.Format, "make a new plan")
	}
	if other := busyWith(o, t.source, t.plan.ID); other != "" {
		l.refuse("second-run", catState, "migration "+other+" works on "+t.source.Path, "one migration a volume",
			"fsmigrate status "+other)
	} else {
		l.ok("second-run", catState, "no other migration of this volume", "one migration a volume")
	}
	if n := t.volume.Props["devices"]; n != "" && n != "1" {
		l.refuse("source-devices", catData, "a volume on "+n+" devices", "one device", "btrfs device remove, until one is left")
	}
	return nil
}

// busyWith is the other migration that works on the device d, whatever path it names it by.
func busyWith(o *Options, d blockdev.Device, own string) string {
	for path, id := range o.Others {
		if id == own {
			continue
		}
		var st unix.Stat_t
		if path == d.Path || unix.Stat(path, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFBLK && st.Rdev == d.Number() {
			return id
		}
	}
	return ""
}

// checkMounts refuses any other mount of the source, in any namespace: nobody could
// fence what is written through it.
func checkMounts(_ context.Context, l *list, t *target, o *Options) (err error) {
	if t.spare.Path != "" && t.spare.Major == t.source.Major && t.spare.Minor == t.source.Minor {
		return nil // refused for that; whose mount is whose cannot be told
	}
	po := shadow.PlaceOf(t.plan, o.State)
	place, err := shadow.OpenPlace(po)
	if err != nil {
		return fmt.Errorf("list mounts of %s: %w", t.source.Path, err)
	}
	defer func() { err = errors.Join(err, place.Close()) }()
	holders, err := place.Others(migrate.Source)
	if err != nil {
		return fmt.Errorf("list mounts of %s: %w", t.source.Path, err)
	}
	need := "one mount, and those that follow it"
	if len(holders) > 0 {
		var others []string
		for _, h := range holders {
			where := h.Path
			if h.PID != 0 {
				where = fmt.Sprintf("%s (%s, pid %d)", h.Path, h.Command, h.PID)
			}
			others = append(others, where)
		}
		l.refuse("other-mounts", catData, fmt.Sprintf("also mounted at %s", strings.Join(shorten(others, 5), ", ")), need,
			"unmount them, or stop the containers that have them")
		return nil
	}
	l.ok("other-mounts", catData, "none that would stay behind", need)
	return nil
}

// checkOptions looks at what the mount carries that the new one must have, or cannot.
func checkOptions(_ context.Context, l *list, t *target, _ *Options) error {
	all := append(fstab.Split(t.mount.Options), fstab.Split(t.mount.SuperOptions)...)
	kept, dropped := fstab.Translate(t.plan.Source.Options, t.plan.Source.Format, t.plan.Target.Format)
	found := "carried: " + orNone(kept)
	if len(dropped) > 0 {
		l.warn("mount-options", catData, found+"; unknown to "+t.to.Name()+": "+strings.Join(dropped, ","),
			"every option carried", "they are left out: see docs/what-changes.md")
	} else {
		l.ok("mount-options", catData, found, "every option carried")
	}
	for _, opt := range all {
		if fstab.IsSecurity(opt) {
			l.refuseUnlessWaived("security-label", catData, opt, "labels stored in the files",
				"a mount-wide security context would have to be set for the new volume by hand")
		}
	}
	l.ok("propagation", catData, orNone(t.mount.Propagation), "kept as it is")
	return nil
}

// quotaOptions are the mount options that switch quotas on.
var quotaOptions = []string{"usrquota", "grpquota", "prjquota", "quota", "uquota", "gquota", "pquota", "uqnoenforce",
	"gqnoenforce", "pqnoenforce", "usrjquota", "grpjquota"}

// checkQuota finds limits, which no copy of the tree carries.
func checkQuota(_ context.Context, l *list, t *target, _ *Options) error {
	const need = "no limits, or carried by hand"
	const remedy = "limits are not copied: export them (repquota, xfs_quota report, btrfs qgroup show) and set them after the cutover"
	all := append(fstab.Split(t.mount.Options), fstab.Split(t.mount.SuperOptions)...)
	for _, o := range all {
		if slices.Contains(quotaOptions, fstab.Key(o)) {
			l.refuseUnlessWaived("quota-limits", catFit, "quotas are on ("+o+")", need, remedy)
			return nil
		}
	}
	if t.volume.Format == "btrfs" {
		groups, err := filepath.Glob(filepath.Join("/sys/fs/btrfs", t.volume.UUID, "qgroups", "*"))
		if err == nil && len(groups) > 0 {
			l.refuseUnlessWaived("quota-limits", catFit, "quota groups are on", need, remedy)
			return nil
		}
	}
	if slices.Contains(t.volume.Features, "quota") {
		l.warn("quota-limits", catFit, "the quota feature is there; no limit is enforced now", need, remedy)
		return nil
	}
	l.ok("quota-limits", catFit, "no quotas", need)
	return nil
}

// checkDrift compares what the plan observed with what is now.
func checkDrift(ctx context.Context, l *list, t *target, _ *Options) error {
	if t.plan.Observed.At.IsZero() {
		return nil
	}
	now := *t.plan
	now.Observed = observe(t)
	now.Observed.Tools = tools(ctx, t.to)
	now.Observed.Fit = t.plan.Observed.Fit // counted anew by its own check
	now.Source = describeSource(t)
	now.Source.Options = t.plan.Source.Options
	if t.plan.Persist.Fstab != "" {
		now.Persist, _ = findEntry(t.plan.Persist.Fstab, t) // one that cannot be read is none
		now.Persist.NoSuper = t.plan.Persist.NoSuper
	}
	now.Target.Spare = t.plan.Target.Spare
	if t.plan.Target.Spare.File == "" {
		now.Target.Spare = describeDevice(t.spare, t.plan.Target.Spare.Path)
	}
	if drift := migrate.Drift(*t.plan, now); len(drift) > 0 {
		l.refuse("drift", catState, strings.Join(shorten(drift, 6), "; "), "as planned", "make a new plan: fsmigrate plan")
		return nil
	}
	l.ok("drift", catState, "nothing changed since the plan was made", "as planned")
	return nil
}

// checkBoot says what the next boot will mount.
func checkBoot(_ context.Context, l *list, t *target, _ *Options) error {
	if t.plan.Persist.Fstab == "" || t.plan.Persist.Entry == "" {
		l.warn("boot", catState, "the volume has no entry in fstab", "an entry that fsmigrate can take over",
			"nothing mounts it at boot: after a reboot run fsmigrate resume "+t.plan.ID+"; never mount the old device by hand")
		return nil
	}
	if _, err := os.Stat("/sbin/mount.fsmigrate"); err != nil && t.plan.Persist.Fstab == "/etc/fstab" {
		l.refuse("boot", catState, "/sbin/mount.fsmigrate is missing", "the helper that mounts the truth at boot",
			"make install, or ln -s $(command -v fsmigrate) /sbin/mount.fsmigrate")
		return nil
	}
	l.ok("boot", catState, "fstab: "+t.plan.Persist.Entry, "an entry that fsmigrate can take over")
	return nil
}

// checkService says whether a cutover will be possible at all.
func checkService(_ context.Context, l *list, t *target, _ *Options) error {
	s := t.plan.Service
	switch {
	case s.AcceptEROFS:
		l.warn("service", catService, "--accept-erofs: the application is not stopped", "an application that bears EROFS for the pause", "")
	case s.Configured():
		found := s.Unit
		if found == "" {
			found = fmt.Sprintf("stop: %s; start: %s", s.Stop, s.Start)
		}
		l.ok("service", catService, found, "a unit, or stop and start commands")
	default:
		l.warn("service", catService, "nothing stops and starts the application", "a unit, or stop and start commands",
			"the migration runs up to Hold; for a cutover use --unit, --stop and --start, or --accept-erofs")
	}
	return nil
}

func checker(f formats.Format, device string) []string { return f.Check(device) }

func shorten(s []string, n int) []string {
	if len(s) <= n {
		return s
	}
	return append(slices.Clone(s[:n]), fmt.Sprintf("and %d more", len(s)-n))
}

func orNone(s string) string {
	if s = strings.TrimSpace(s); s == "" {
		return "none"
	}
	return s
}

// missing reports whether err says that a file is not there.
func missing(err error) bool { return errors.Is(err, os.ErrNotExist) }
