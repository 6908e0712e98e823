package preflight

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fsmigrate/fsmigrate/blockdev"
	"github.com/fsmigrate/fsmigrate/migrate"
)

// checkSpare looks at where the new format will be laid down.
func checkSpare(_ context.Context, l *list, t *target, o *Options) error {
	if t.plan.Target.Spare.File != "" {
		return checkSpareFile(l, t)
	}
	d := t.spare
	above := func(y blockdev.Layer) bool { return y.Name == t.source.Name }
	var below unix.Stat_t // of a loop over a device
	over := d.LoopFile != "" && unix.Stat(d.LoopFile, &below) == nil && below.Mode&unix.S_IFMT == unix.S_IFBLK && below.Rdev == t.source.Number()
	switch {
	case d.Number() == t.source.Number():
		l.refuse("spare-device", catHardware, d.Path+" is the source itself", "another device", "name another device")
		return nil
	case d.LoopFile != "" && onVolume(d.LoopFile, t.mount.Dev):
		l.refuse("spare-device", catHardware, d.Path+" is a loop over "+d.LoopFile+", on the source", "a device that does not depend on the source", "use another device")
		return nil
	case over || slices.ContainsFunc(d.Stack, above) || slices.Contains(t.source.Partitions, d.Name) || t.source.WholeDisk == d.Name:
		l.refuse("spare-device", catHardware, d.Path+" shares its storage with the source "+t.source.Path, "a device that does not depend on the source", "use another device")
		return nil
	case busyWith(o, d, t.plan.ID) != "":
		l.refuse("spare-device", catHardware, d.Path+" belongs to migration "+busyWith(o, d, t.plan.ID), "a device of its own", "fsmigrate status "+busyWith(o, d, t.plan.ID))
		return nil
	case d.ReadOnly:
		l.refuse("spare-device", catHardware, d.Path+" is read-only", "a writable device", "use another device")
		return nil
	}
	l.ok("spare-device", catHardware, fmt.Sprintf("%s, %s", d.Path, bytes(d.Bytes)), "a writable device of its own")
	holders, err := blockdev.DeviceHolders(d.Path, blockdev.IgnorePID(os.Getpid()))
	if err != nil {
		return fmt.Errorf("list users of %s: %w", d.Path, err)
	}
	if len(holders) > 0 {
		var who []string
		for _, h := range holders {
			if h.PID != 0 {
				who = append(who, fmt.Sprintf("%s[%d] %s %s", h.Command, h.PID, h.Kind, h.Path))
				continue
			}
			who = append(who, fmt.Sprintf("%s %s", h.Kind, h.Path))
		}
		l.refuse("spare-free", catHardware, "in use: "+strings.Join(shorten(who, 5), ", "), "used by nobody", "unmount or release it")
		return nil
	}
	l.ok("spare-free", catHardware, "used by nobody", "used by nobody")
	sigs, err := blockdev.Signatures(d.Path)
	if err != nil {
		return fmt.Errorf("look for signatures on %s: %w", d.Path, err)
	}
	switch {
	case len(sigs) == 0:
		l.ok("spare-blank", catHardware, "no signature", "blank, or --wipe")
	case t.plan.Target.Wipe:
		l.warn("spare-blank", catHardware, describe(sigs)+", will be overwritten (--wipe)", "blank, or --wipe", "")
	default:
		l.refuse("spare-blank", catHardware, describe(sigs), "blank, or --wipe",
			"make sure that nobody needs what is on it, then use --wipe")
	}
	return nil
}

func checkSpareFile(l *list, t *target) error {
	file := t.plan.Target.Spare.File
	dir := filepath.Dir(file)
	if onVolume(dir, t.mount.Dev) {
		l.refuse("spare-device", catHardware, file+" would lie on the source", "a volume of its own", "name a file on another volume")
		return nil
	}
	l.ok("spare-device", catHardware, file+", "+bytes(t.spareBytes()), "a file on another volume")
	if _, err := os.Stat(file); err == nil && !t.plan.Target.Wipe {
		l.refuse("spare-blank", catHardware, file+" exists", "a new file, or --wipe", "remove it, or use --wipe")
	}
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		l.refuse("spare-room", catHardware, dir+": "+err.Error(), "a directory that exists", "make the directory")
		return nil
	}
	free := int64(st.Bavail) * st.Bsize
	if free < t.spareBytes() {
		l.warn("spare-room", catHardware, bytes(free)+" free below "+file, bytes(t.spareBytes())+" when it is full",
			"it is sparse: if the volume below fills up, the migration pauses")
	}
	l.refuseUnlessWaived("file-spare", catHardware, "an image in a file, through a loop", "a device",
		"a cutover onto a file depends on the volume below at every boot")
	// Up to Hold it is a rehearsal that needs no waiver.
	last := &l.checks[len(l.checks)-1]
	if last.Verdict == migrate.Refused {
		last.Verdict = migrate.Warning
		last.Remedy += " (asked for at the cutover, not before)"
	}
	return nil
}

func describe(sigs []blockdev.Signature) string {
	var s []string
	for _, g := range sigs {
		s = append(s, strings.TrimSpace(g.Type+" "+g.Label))
	}
	return "signatures: " + strings.Join(shorten(s, 4), ", ")
}

// bytes prints a size.
func bytes(n int64) string {
	const unit = 1024
	if n < unit {
		return fmt.Sprintf("%d B", n)
	}
	div, exp := int64(unit), 0
	for m := n / unit; m >= unit; m /= unit {
		div *= unit
		exp++
	}
	return fmt.Sprintf("%.1f %ciB", float64(n)/float64(div), "KMGTPE"[exp])
}
