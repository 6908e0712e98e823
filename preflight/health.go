package preflight

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fsmigrate/fsmigrate/blockdev"
	"github.com/fsmigrate/fsmigrate/migrate"
)

// ailing lists what the kernel says is wrong with a device or a layer below it.
// broken is true when it is more than counted errors: a disk that is offline, an array
// without its redundancy.
func ailing(root string, d blockdev.Device) (found []string, broken bool) {
	names := []string{d.Name}
	for _, y := range d.Stack {
		names = append(names, y.Name)
	}
	if d.WholeDisk != "" {
		names = append(names, d.WholeDisk)
	}
	seen := map[string]bool{}
	for _, name := range names {
		if name == "" || seen[name] {
			continue
		}
		seen[name] = true
		dir := filepath.Join(root, "sys/class/block", name)
		line := func(file string) string {
			b, _ := os.ReadFile(filepath.Join(dir, file)) // not every device has each of these
			return strings.TrimSpace(string(b))
		}
		for _, counter := range []string{"ioerr_cnt", "iotmo_cnt"} {
			if n, err := strconv.ParseInt(line("device/"+counter), 0, 64); err == nil && n > 0 {
				found = append(found, fmt.Sprintf("%s: %s is %d", name, counter, n))
			}
		}
		if s := line("device/state"); s != "" && s != "running" && s != "live" {
			found, broken = append(found, name+" is "+s), true
		}
		if n, err := strconv.Atoi(line("md/degraded")); err == nil && n > 0 {
			found, broken = append(found, fmt.Sprintf("%s lacks %d disks", name, n)), true
		}
	}
	return found, broken
}

// checkHealth looks at what the kernel knows of both devices' failures. The disks' own
// counters (SMART) are not read.
func checkHealth(_ context.Context, l *list, t *target, _ *Options) error {
	const need = "no errors counted by the kernel"
	judge := func(name string, d blockdev.Device) {
		found, broken := ailing(t.rates.root, d)
		text := strings.Join(shorten(found, 3), ", ")
		switch {
		case broken && name == "spare-health":
			l.refuseUnlessWaived(name, catHardware, text, need, "repair it, or use another spare")
		case len(found) > 0:
			l.warn(name, catHardware, text, need, "see the kernel log and smartctl -a; a backup first")
		default:
			l.ok(name, catHardware, "none counted (SMART is not read)", need)
		}
	}
	judge("source-health", t.source)
	if t.plan.Target.Spare.File != "" {
		return nil
	}
	judge("spare-health", t.spare)
	switch {
	case t.spare.Discard || !t.source.Discard:
		l.ok("discard", catHardware, yesNo(t.spare.Discard, "the spare discards", "neither side discards"), "as the source")
	default:
		l.warn("discard", catHardware, "the source discards, the spare does not", "as the source", "fstrim and -o discard will do nothing on the new volume")
	}
	return nil
}

// checkSectors looks at sector sizes and at where the spare begins on its disk.
func checkSectors(_ context.Context, l *list, t *target, _ *Options) error {
	if t.plan.Target.Spare.File != "" {
		return nil
	}
	s, d := t.source, t.spare
	found := fmt.Sprintf("spare %d/%d, source %d/%d bytes", d.LogicalSector, d.PhysicalSector, s.LogicalSector, s.PhysicalSector)
	const need = "no larger than the source's, aligned"
	offset, _ := os.ReadFile(fmt.Sprintf("%s/sys/dev/block/%d:%d/alignment_offset", t.rates.root, d.Major, d.Minor))
	switch off := strings.TrimSpace(string(offset)); {
	case d.LogicalSector > unix.Getpagesize():
		l.refuse("sectors", catHardware, found, need, "this kernel mounts no file system on sectors larger than a page")
	case d.LogicalSector > s.LogicalSector:
		l.warn("sectors", catHardware, found, need, "programs that write with O_DIRECT in smaller blocks will get EINVAL")
	case off != "" && off != "0":
		l.warn("sectors", catHardware, found+", misaligned by "+off, need, "move the partition's start: every write touches two physical sectors")
	default:
		l.ok("sectors", catHardware, found, need)
	}
	return nil
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
	path := func(d blockdev.Device) bool {
		for _, y := range d.Stack {
			if y.Kind == "multipath" {
				return true
			}
		}
		return false
	}
	se, sr, _, st := has(t.source)
	te, tr, thin, tt := has(t.spare)
	found := fmt.Sprintf("source: %s; spare: %s", st, tt)
	const need = "no downgrade"
	c := migrate.Check{Name: "stack", Category: catHardware, Found: found, Need: need, Verdict: migrate.OK}
	var lost, remedies []string
	lose := func(what, remedy string) { lost, remedies = append(lost, what), append(remedies, remedy) }
	if se && !te {
		lose("not encrypted", "put encryption below the spare")
	}
	if sr && !tr {
		lose("not redundant", "put a mirror below the spare")
	}
	if path(t.source) && !path(t.spare) {
		lose("on one path", "name the multipath device")
	}
	switch {
	case len(lost) > 0:
		c.Verdict, c.Waivable = migrate.Refused, true
		c.Found, c.Remedy = found+": the spare is "+strings.Join(lost, " and "), strings.Join(remedies, ", ")
	case thin:
		c.Verdict, c.Found = migrate.Warning, found+": the spare is thin"
		c.Remedy = "watch its pool: when it is full the kernel reports I/O errors, and the migration aborts"
	}
	l.add(c)
	if len(t.source.IDs) == 0 || len(t.spare.IDs) == 0 {
		l.warn("stable-ids", catHardware, "no WWN, PARTUUID, LV UUID or serial on both", "names that survive a reboot",
			"device names may change at boot; the volumes' UUIDs are checked before anything is mounted")
	} else {
		l.ok("stable-ids", catHardware, t.source.IDs[0]+" and "+t.spare.IDs[0], "names that survive a reboot")
	}
	return nil
}

func yesNo(b bool, yes, no string) string {
	if b {
		return yes
	}
	return no
}
