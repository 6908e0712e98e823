package btrfs

import (
	"github.com/fsmigrate/fsmigrate/formats"
)

// Findings say what ends or hurts.
func (format) Findings(v formats.Volume) []formats.Finding {
	var out []formats.Finding
	add := func(severity, what, why, do string) {
		out = append(out, formats.Finding{Severity: severity, What: what, Why: why, Do: do})
	}
	off := func(p string) bool { return v.Props[p] == "0" }
	if n := v.Props["devices"]; n != "" && n != "1" {
		add(formats.Note, "on "+n+" devices", "fsmigrate takes a volume of one device", "btrfs device remove, until one is left")
	}
	if off("extref") {
		add(formats.Hurts, "no extended inode references", "a file can have only a few links in one directory", "unmount it and run btrfstune -r DEVICE")
	}
	if off("free_space_tree") {
		add(formats.Hurts, "no free space tree", "the old space cache is leaving the kernel and makes large volumes slow", "mount once with -o clear_cache,space_cache=v2")
	}
	if off("no_holes") {
		add(formats.Note, "no no-holes", "sparse files take an item for every hole", "unmount it and run btrfstune -n DEVICE")
	}
	if off("skinny_metadata") {
		add(formats.Note, "no skinny metadata", "more metadata than needed", "unmount it and run btrfstune -x DEVICE")
	}
	return out
}
