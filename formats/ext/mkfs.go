package ext

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/fsmigrate/fsmigrate/formats"
)

// lazyFrom is how many bytes of inode tables are left to be written in the
// background: below it mkfs takes a second or two longer, and afterwards no
// hidden writes fall into the migration.
const lazyFrom = 1 << 30

// Mkfs composes mke2fs. The features are listed in full, so that the result does
// not depend on /etc/mke2fs.conf.
func (f *format) Mkfs(device string, m formats.MakeOptions) ([]string, error) {
	o, err := f.options(m.Options)
	if err != nil {
		return nil, err
	}
	if len(m.Label) > f.LabelMax() {
		return nil, fmt.Errorf("%s: label %q has %d bytes, the limit is %d", f.name, m.Label, len(m.Label), f.LabelMax())
	}
	if int64(m.SectorSize) > o.int("block_size") {
		return nil, o.refuse("block_size", fmt.Sprintf("the device has sectors of %d bytes", m.SectorSize))
	}
	inodes, err := o.inodes(m)
	if err != nil {
		return nil, err
	}
	argv := []string{"mke2fs", "-q", "-F", "-t", f.name, "-b", o.v["block_size"], "-I", o.v["inode_size"],
		"-O", strings.Join(o.features(m.Bytes), ","), "-m", o.v["reserved_percent"], "-i", o.v["bytes_per_inode"]}
	if inodes > 0 {
		argv = append(argv, "-N", strconv.FormatInt(inodes, 10))
	}
	if js := o.int("journal_size"); js > 0 {
		argv = append(argv, "-J", fmt.Sprintf("size=%d", js))
	}
	// The block map of an unused device is the caller's to discard; mke2fs would
	// do it before every other thing and for minutes on some.
	argv = append(argv, "-E", fmt.Sprintf("nodiscard,lazy_journal_init=0,lazy_itable_init=%d", o.lazy(inodes, m.Bytes)))
	if m.Label != "" {
		argv = append(argv, "-L", m.Label)
	}
	if m.UUID != "" {
		argv = append(argv, "-U", m.UUID)
	}
	return append(argv, device), nil
}

func (o options) lazy(inodes, bytes int64) int {
	// Only group checksums let the kernel know that a table was not written.
	if o.kind != "ext4" || !o.on("metadata_csum") {
		return 0
	}
	if o.v["lazy_init"] != "auto" {
		return int(o.int("lazy_init"))
	}
	if inodes == 0 {
		inodes = bytes / o.int("bytes_per_inode")
	}
	if inodes*o.int("inode_size") > lazyFrom {
		return 1
	}
	return 0
}

// wanted is how many inodes are made for a tree: a quarter more than it has.
func wanted(objects int64) int64 { return objects + objects/4 + 1024 }

// inodes is what -N gets; 0 leaves it to -i.
func (o options) inodes(m formats.MakeOptions) (int64, error) {
	n := m.Inodes
	if asked := o.int("inodes"); asked > 0 {
		n = asked
	}
	byRatio := int64(0)
	if m.Bytes > 0 {
		byRatio = m.Bytes / o.int("bytes_per_inode")
	}
	if n == 0 && m.Objects > 0 && wanted(m.Objects) > byRatio {
		n = wanted(m.Objects)
	}
	if n > 1<<32-1 {
		return 0, fmt.Errorf("%s: %d inodes are more than the format can have (2^32-1)", o.kind, n)
	}
	if bs := o.int("block_size"); m.Bytes > 0 && n > m.Bytes/bs {
		return 0, fmt.Errorf("%s: %d inodes do not fit a device of %d bytes: there is at most one a block", o.kind, n, m.Bytes)
	}
	if n > 0 && n < m.Objects+16 {
		return 0, fmt.Errorf("%s: %d inodes are too few for %d objects", o.kind, n, m.Objects)
	}
	return n, nil
}

// features lists them for -O, beginning with none.
func (o options) features(bytes int64) []string {
	f := []string{"none", "ext_attr", "sparse_super", "filetype", "large_file"}
	if bytes < 1<<44 { // 2^32 blocks of 4 KiB: its tables cannot hold more
		f = append(f, "resize_inode")
	}
	if o.on("dir_index") {
		f = append(f, "dir_index")
	}
	if o.journalled() {
		f = append(f, "has_journal")
	}
	if o.kind != "ext4" {
		return f
	}
	if o.v["inode_size"] != "128" {
		f = append(f, "extra_isize")
	}
	for _, p := range []struct{ prop, name string }{
		{"extents", "extent"}, {"64bit", "64bit"}, {"metadata_csum", "metadata_csum"}, {"flex_bg", "flex_bg"},
		{"huge_file", "huge_file"}, {"dir_nlink", "dir_nlink"}, {"large_dir", "large_dir"}, {"ea_inode", "ea_inode"},
		{"inline_data", "inline_data"}, {"casefold", "casefold"}, {"quota", "quota"}, {"project", "project"},
	} {
		if o.on(p.prop) {
			f = append(f, p.name)
		}
	}
	return f
}
