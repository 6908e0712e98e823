package ext

import (
	"strconv"

	"github.com/fsmigrate/fsmigrate/formats"
)

var bools = []string{"0", "1"}

// The properties of all three, then those of ext4.
var commonProps = []formats.Property{
	{Name: "inode_size", Values: []string{"128", "256", "512", "1024"}, Default: "256", Meaning: "bytes an inode; 128 has no time past 2038, no nanoseconds, no birth time"},
	{Name: "block_size", Values: []string{"1024", "2048", "4096"}, Default: "4096", Meaning: "bytes a block"},
	{Name: "bytes_per_inode", Min: 1024, Max: 67108864, Default: "16384", Meaning: "one inode for so many bytes; more are made where the tree needs them"},
	{Name: "inodes", Min: 0, Max: 4294967295, Default: "0", Meaning: "how many inodes; 0: by bytes_per_inode and the tree"},
	{Name: "reserved_percent", Min: 0, Max: 50, Default: "1", Meaning: "blocks that only root can use"},
	{Name: "dir_index", Values: bools, Default: "1", Meaning: "hashed directories"},
}

var journalProps = []formats.Property{
	{Name: "journal_size", Min: 0, Max: 40960, Default: "0", Meaning: "MiB of journal; 0: by the size of the device"},
}

var ext4Props = []formats.Property{
	{Name: "journal", Values: bools, Default: "1", Meaning: "a journal"},
	{Name: "extents", Values: bools, Default: "1", Meaning: "files mapped by extents; without: at most 2 TiB a file, no preallocation"},
	{Name: "64bit", Values: bools, Default: "1", Meaning: "more than 2^32 blocks; needs extents"},
	{Name: "metadata_csum", Values: bools, Default: "1", Meaning: "checksums on all metadata"},
	{Name: "flex_bg", Values: bools, Default: "1", Meaning: "inode tables of several groups side by side"},
	{Name: "huge_file", Values: bools, Default: "1", Meaning: "files over 2 TiB"},
	{Name: "dir_nlink", Values: bools, Default: "1", Meaning: "more than 65,000 directories in one"},
	{Name: "large_dir", Values: bools, Default: "0", Meaning: "directories over 10 million entries"},
	{Name: "ea_inode", Values: bools, Default: "0", Meaning: "extended attributes up to 65,536 bytes"},
	{Name: "inline_data", Values: bools, Default: "0", Meaning: "tiny files in the inode; needs inode_size 256"},
	{Name: "casefold", Values: bools, Default: "0", Meaning: "directories that ignore case"},
	{Name: "quota", Values: bools, Default: "0", Meaning: "user and group quota as a feature"},
	{Name: "project", Values: bools, Default: "0", Meaning: "project ids; needs inode_size 256"},
	{Name: "lazy_init", Values: []string{"auto", "0", "1"}, Default: "auto", Meaning: "write the inode tables in the background after the first mount; auto: above 1 GiB of them"},
}

// Describe lists the properties.
func (f *format) Describe() formats.Description {
	d := formats.Description{Name: f.name, Properties: append([]formats.Property(nil), commonProps...)}
	switch f.name {
	case "ext2":
		d.Summary = "block groups and block maps, no journal"
	case "ext3":
		d.Summary = "ext2 with a journal"
		d.Properties = append(d.Properties, journalProps...)
	default:
		d.Summary = "extents, checksums, nanoseconds and times to 2446"
		d.Properties = append(append(d.Properties, journalProps...), ext4Props...)
	}
	o, err := resolve(d, nil)
	if err == nil {
		d.Limits = o.layout().limits()
	}
	return d
}

// options are resolved properties.
type options struct {
	kind  string
	v     map[string]string
	given map[string]string
}

func (f *format) options(opts map[string]string) (options, error) { return resolve(f.Describe(), opts) }

func resolve(d formats.Description, opts map[string]string) (options, error) {
	v, err := d.Resolve(opts)
	if err != nil {
		return options{}, err
	}
	o := options{kind: d.Name, v: v, given: opts}
	if d.Name != "ext4" {
		return o, nil
	}
	// What needs something that was switched off goes too, unless it was asked for.
	if err := o.needs("64bit", "extents"); err != nil {
		return o, err
	}
	if o.v["inode_size"] == "128" {
		for _, name := range []string{"inline_data", "project"} {
			if o.on(name) {
				return o, o.refuse(name, "needs inode_size=256 or more")
			}
		}
	}
	if !o.on("journal") && o.v["journal_size"] != "0" {
		return o, o.refuse("journal_size", "there is no journal")
	}
	// With all of these off nothing tells it from ext2 or ext3.
	if o.layoutKind() != "ext4" {
		return o, o.refuse("extents", "with these features off it is "+o.layoutKind()+": ask for that")
	}
	return o, nil
}

func (o options) needs(name, needed string) error {
	if !o.on(name) || o.on(needed) {
		return nil
	}
	if _, asked := o.given[name]; asked {
		return o.refuse(name, "needs "+needed+"=1")
	}
	o.v[name] = "0"
	return nil
}

func (o options) refuse(name, why string) error {
	return &formats.OptionError{Format: o.kind, Option: name, Value: o.v[name], Why: why}
}

func (o options) on(name string) bool { return o.v[name] == "1" }

func (o options) int(name string) int64 {
	n, err := strconv.ParseInt(o.v[name], 10, 64)
	if err != nil {
		return 0 // Resolve has checked numbers; what is absent is 0
	}
	return n
}

// journalled reports whether the volume has a journal.
func (o options) journalled() bool {
	return o.kind == "ext3" || o.kind == "ext4" && o.on("journal")
}

func (o options) layoutKind() string {
	if o.kind != "ext4" {
		return o.kind
	}
	for _, name := range []string{"extents", "64bit", "metadata_csum", "flex_bg", "huge_file", "dir_nlink",
		"large_dir", "ea_inode", "inline_data", "casefold", "quota", "project"} {
		if o.on(name) {
			return "ext4"
		}
	}
	if o.v["inode_size"] != "128" {
		return "ext4" // extra_isize
	}
	if o.on("journal") {
		return "ext3"
	}
	return "ext2"
}

func (o options) layout() layout {
	return layout{
		kind: o.kind, inodeSize: int(o.int("inode_size")), blockSize: o.int("block_size"),
		extents: o.on("extents"), hugeFile: o.on("huge_file"), dirNlink: o.on("dir_nlink"),
		largeDir: o.on("large_dir"), eaInode: o.on("ea_inode"), dirIndex: o.on("dir_index"),
		project: o.on("project"), casefold: o.on("casefold"), bits64: o.on("64bit"),
	}
}

// Limits of a volume made with these options.
func (f *format) Limits(opts map[string]string) (formats.Limits, error) {
	o, err := f.options(opts)
	if err != nil {
		return formats.Limits{}, err
	}
	return o.layout().limits(), nil
}
