package ext

import (
	"fmt"
	"strconv"
	"time"

	"github.com/fsmigrate/fsmigrate/formats"
)

// inodesFull is the percentage of inodes in use from which on running out is a
// finding: there is no way to add any.
const inodesFull = 85

// Findings say what ends or hurts.
func (f *format) Findings(v formats.Volume) []formats.Finding {
	var out []formats.Finding
	add := func(severity, what, why, do string) {
		out = append(out, formats.Finding{Severity: severity, What: what, Why: why, Do: do})
	}
	const larger = "fsmigrate plan DIR --to ext4:inode_size=256 --spare DEVICE"
	if v.InodeSize == 128 {
		add(formats.Ends, "128-byte inodes",
			"times end on 2038-01-19 and have whole seconds; tune2fs cannot enlarge them while mounted, nor ever with flex_bg", larger)
	}
	if v.Inodes > 0 && (v.Inodes-min(v.FreeInodes, v.Inodes))*100 > v.Inodes*inodesFull {
		used := (v.Inodes - min(v.FreeInodes, v.Inodes)) * 100 / v.Inodes
		add(formats.Ends, fmt.Sprintf("%d %% of the inodes are in use", used),
			"when none is left no file can be created, however much space is free; the number is fixed at mkfs",
			"fsmigrate plan DIR --to xfs --spare DEVICE (inodes as needed), or --to "+f.name+" (made for the tree, and a quarter more)")
	}
	if v.ErrorCount > 0 {
		what := fmt.Sprintf("%d errors recorded", v.ErrorCount)
		if t, err := strconv.ParseInt(v.Props["first_error_time"], 10, 64); err == nil && t > 0 {
			what += fmt.Sprintf(", the first on %s in %s", time.Unix(t, 0).UTC().Format("2006-01-02"), v.Props["first_error"])
		}
		add(formats.Hurts, what, "what is copied from it may be damaged already", "unmount it and run e2fsck -f DEVICE before anything else")
	}
	if f.name != "ext4" {
		why := "no journal: an e2fsck of the whole volume after every crash"
		if f.name == "ext3" {
			why = "no extents: files of at most 2 TiB, slow on large ones"
		}
		add(formats.Hurts, f.name, why+"; no checksums; at most 32,000 directories in one", larger)
		return out
	}
	off := func(p string) bool { return v.Props[p] == "0" }
	if off("journal") {
		add(formats.Hurts, "no journal", "an e2fsck of the whole volume after every crash", "unmount it and run tune2fs -O has_journal DEVICE")
	}
	if off("extents") {
		add(formats.Hurts, "no extents", "files of at most 2 TiB, no preallocation, slow on large files", larger)
	}
	if off("metadata_csum") {
		add(formats.Hurts, "no metadata checksums", "a damaged directory or inode is believed", larger)
	}
	if off("64bit") {
		add(formats.Note, "no 64bit feature", "cannot grow past 16 TiB, and checksums have 16 bits", larger)
	}
	return out
}
