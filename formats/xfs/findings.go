package xfs

import (
	"fmt"

	"github.com/fsmigrate/fsmigrate/formats"
)

// Findings say what ends or hurts.
func (format) Findings(v formats.Volume) []formats.Finding {
	var out []formats.Finding
	again := func(options string) string { return "fsmigrate plan DIR --to xfs" + options + " --spare DEVICE" }
	add := func(severity, what, why, do string) {
		out = append(out, formats.Finding{Severity: severity, What: what, Why: why, Do: do})
	}
	off := func(p string) bool { return v.Props[p] == "0" }
	v4 := off("crc")
	if v4 {
		add(formats.Ends, "XFS V4 (crc=0)", "leaves the kernel in 2030, and many are built without it already; times end in 2038; no checksums; cannot be upgraded", again(""))
	} else if off("bigtime") {
		add(formats.Ends, "no bigtime", "times end on 2038-01-19", "unmount it and run xfs_admin -O bigtime=1 DEVICE; in use: "+again(":bigtime=1"))
	}
	if v.Inodes > 0 && (v.Inodes-min(v.FreeInodes, v.Inodes))*100 > v.Inodes*85 {
		add(formats.Hurts, fmt.Sprintf("inodes take nearly all of the %s %% of space that they may (imaxpct)", v.Props["imaxpct"]),
			"then no file can be created, however much space is free", "xfs_growfs -m PERCENT DIR")
	}
	if v.Props["needsrepair"] == "1" {
		add(formats.Hurts, "marked as needing repair", "it cannot be mounted", "xfs_repair DEVICE")
	}
	if off("ftype") {
		add(formats.Hurts, "no ftype", "overlayfs (containers) refuses it; each listing reads every inode; cannot be added", again(""))
	}
	if !v4 && off("reflink") {
		add(formats.Hurts, "no reflink", "files cannot share extents: cp makes full copies; cannot be added", again(":reflink=1"))
	}
	if !v4 && off("inobtcount") {
		add(formats.Note, "no inobtcount", "mounting a large volume reads all inode indexes", "unmount it and run xfs_admin -O inobtcount=1 DEVICE")
	}
	return out
}
