package preflight

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fsmigrate/fsmigrate/blockdev"
	"github.com/fsmigrate/fsmigrate/migrate"
)

// checkSpare looks at where the new format will be laid down.
func checkSpare(ctx context.Context, l *list, t *target, _ *Options) error {
	if t.plan.Target.Spare.File != "" {
		return checkSpareFile(l, t)
	}
	d := t.spare
	switch {
	case d.Path == t.source.Path || (d.Major == t.source.Major && d.Minor == t.source.Minor):
		l.refuse("spare-device", catHardware, d.Path+" is the source itself", "another device", "name another device")
		return nil
	case d.LoopFile != "" && onVolume(d.LoopFile, t.mount.Dev):
		l.refuse("spare-device", catHardware, d.Path+" is a loop over "+d.LoopFile+", on the source", "a device that does not depend on the source", "use another device")
		return nil
	case d.ReadOnly:
		l.refuse("spare-device", catHardware, d.Path+" is read-only", "a writable device", "use another device")
		return nil
	}
	l.ok("spare-device", catHardware, fmt.Sprintf("%s, %s", d.Path, bytes(d.Bytes)), "a writable device of its own")
	holders, err := blockdev.DeviceHolders(d.Path)
	if err != nil {
		return fmt.Errorf("list users of %s: %w", d.Path, err)
	}
	if len(holders) > 0 {
		var who []string
		for _, h := range holders {
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
	if d.LogicalSector > 4096 || (t.source.LogicalSector < d.LogicalSector && d.LogicalSector > 512) {
		l.warn("sectors", catHardware, fmt.Sprintf("spare %d, source %d bytes", d.LogicalSector, t.source.LogicalSector),
			"no larger than the source's", "programs that write with O_DIRECT in smaller blocks will get EINVAL")
	} else {
		l.ok("sectors", catHardware, fmt.Sprintf("%d/%d bytes", d.LogicalSector, d.PhysicalSector), "no larger than the source's")
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

// checkStack compares what lies below both devices: nobody gives up encryption or
// redundancy by a change of format without saying so.
func checkStack(_ context.Context, l *list, t *target, _ *Options) error {
	if t.plan.Target.Spare.File != "" {
		return nil
	}
	has := func(d blockdev.Device) (enc, red, thin bool, text string) {
		var kinds []string
		for _, y := range d.Stack {
			enc, red, thin = enc || y.Encrypted, red || y.Redundant, thin || y.Thin
			kinds = append(kinds, y.Kind)
		}
		return enc, red, thin, orNone(strings.Join(kinds, " on "))
	}
	se, sr, _, st := has(t.source)
	te, tr, thin, tt := has(t.spare)
	found := fmt.Sprintf("source: %s; spare: %s", st, tt)
	switch {
	case se && !te:
		l.refuseUnlessWaived("stack", catHardware, found+": the spare is not encrypted", "no downgrade", "put encryption below the spare")
	case sr && !tr:
		l.refuseUnlessWaived("stack", catHardware, found+": the spare is not redundant", "no downgrade", "put a mirror below the spare")
	case thin:
		l.warn("stack", catHardware, found+": the spare is thin", "no downgrade", "watch its pool: when it fills up, the migration pauses")
	default:
		l.ok("stack", catHardware, found, "no downgrade")
	}
	if len(t.source.IDs) == 0 || len(t.spare.IDs) == 0 {
		l.warn("stable-ids", catHardware, "no WWN, PARTUUID, LV UUID or serial on both", "names that survive a reboot",
			"device names may change at boot; the volumes' UUIDs are checked before anything is mounted")
	} else {
		l.ok("stable-ids", catHardware, t.source.IDs[0]+" and "+t.spare.IDs[0], "names that survive a reboot")
	}
	return nil
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
