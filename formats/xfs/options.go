package xfs

import (
	"fmt"
	"strconv"

	"github.com/fsmigrate/fsmigrate/formats"
)

var bools = []string{"0", "1"}

var properties = []formats.Property{
	{Name: "crc", Values: bools, Default: "1", Meaning: "V5: checksums on all metadata; V4 (0) leaves the kernel in 2030"},
	{Name: "bigtime", Values: bools, Default: "1", Meaning: "times to 2486; without: to 2038"},
	{Name: "reflink", Values: bools, Default: "1", Meaning: "files can share extents"},
	{Name: "ftype", Values: bools, Default: "1", Meaning: "directory entries tell the type; V5 always has it"},
	{Name: "finobt", Values: bools, Default: "1", Meaning: "an index of free inodes"},
	{Name: "inobtcount", Values: bools, Default: "1", Meaning: "inode index sizes recorded: fast mounts"},
	{Name: "rmapbt", Values: bools, Default: "0", Meaning: "an index from blocks to owners, for online repair"},
	{Name: "sparse", Values: bools, Default: "1", Meaning: "inodes also where free space is fragmented"},
	{Name: "nrext64", Values: bools, Default: "0", Meaning: "more than 2^31 extents a file; Linux 5.19"},
	{Name: "inode_size", Values: []string{"256", "512", "1024", "2048"}, Default: "512", Meaning: "bytes an inode; 256 only in V4"},
	{Name: "block_size", Values: []string{"512", "1024", "2048", "4096", "8192", "16384", "32768", "65536"}, Default: "4096", Meaning: "bytes a block; above 4096 needs Linux 6.12; 512 only in V4"},
	{Name: "sector_size", Values: []string{"auto", "512", "4096"}, Default: "auto", Meaning: "smallest write; auto: the device's"},
	{Name: "imaxpct", Min: 0, Max: 100, Default: "0", Meaning: "space that inodes may take, percent; 0: by the size of the device"},
	{Name: "agcount", Min: 0, Max: 1000000, Default: "0", Meaning: "allocation groups; 0: by the size of the device"},
	{Name: "log_size", Min: 0, Max: 2047, Default: "0", Meaning: "MiB of log; 0: by the size of the device"},
	{Name: "discard", Values: bools, Default: "0", Meaning: "discard the device's blocks first"},
}

// Describe lists the properties.
func (format) Describe() formats.Description {
	return formats.Description{Name: "xfs", Summary: "allocation groups and B+trees, inodes as needed, checksums",
		Properties: properties, Limits: layout{v5: true, bigtime: true, reflink: true, project: true}.limits()}
}

type options struct{ v, given map[string]string }

func resolve(opts map[string]string) (options, error) {
	v, err := format{}.Describe().Resolve(opts)
	if err != nil {
		return options{}, err
	}
	o := options{v, opts}
	// What mkfs.xfs refuses is refused here with the reason; what only follows
	// from a default goes quietly.
	for _, n := range []struct{ name, value, need string }{
		{"bigtime", "1", "crc"}, {"reflink", "1", "crc"}, {"finobt", "1", "crc"}, {"rmapbt", "1", "crc"},
		{"sparse", "1", "crc"}, {"nrext64", "1", "crc"}, {"inobtcount", "1", "finobt"}, {"inobtcount", "1", "crc"},
	} {
		if o.v[n.name] != n.value || o.on(n.need) {
			continue
		}
		if _, asked := opts[n.name]; asked {
			return o, o.refuse(n.name, "needs "+n.need+"=1")
		}
		o.v[n.name] = "0"
	}
	switch {
	case o.on("crc") && !o.on("ftype"):
		return o, o.refuse("ftype", "V5 always has it (crc=0 could do without)")
	case o.on("crc") && o.v["inode_size"] == "256":
		return o, o.refuse("inode_size", "V5 needs 512 or more")
	case o.on("crc") && o.v["block_size"] == "512":
		return o, o.refuse("block_size", "V5 needs 1024 or more")
	case o.int("inode_size") > o.int("block_size")/2:
		return o, o.refuse("inode_size", "an inode takes at most half a block")
	case o.int("log_size") > 0 && o.int("log_size") < 64:
		return o, o.refuse("log_size", "mkfs.xfs needs 64 MiB or more")
	case o.v["sector_size"] != "auto" && o.int("sector_size") > o.int("block_size"):
		return o, o.refuse("sector_size", "a sector is at most a block")
	}
	return o, nil
}

func (o options) refuse(name, why string) error {
	return &formats.OptionError{Format: "xfs", Option: name, Value: o.v[name], Why: why}
}

func (o options) on(name string) bool { return o.v[name] == "1" }

func (o options) int(name string) int64 {
	n, err := strconv.ParseInt(o.v[name], 10, 64)
	if err != nil {
		return 0 // "auto"
	}
	return n
}

func (o options) layout() layout {
	return layout{v5: o.on("crc"), bigtime: o.on("bigtime"), reflink: o.on("reflink"), project: true}
}

// Limits of a volume made with these options.
func (format) Limits(opts map[string]string) (formats.Limits, error) {
	o, err := resolve(opts)
	if err != nil {
		return formats.Limits{}, err
	}
	return o.layout().limits(), nil
}

// minBytes is what mkfs.xfs demands since 6.0 (and 64 MiB of log).
const minBytes = 300 << 20

// Mkfs composes mkfs.xfs.
func (f format) Mkfs(device string, m formats.MakeOptions) ([]string, error) {
	o, err := resolve(m.Options)
	if err != nil {
		return nil, err
	}
	if len(m.Label) > f.LabelMax() {
		return nil, fmt.Errorf("xfs: label %q has %d bytes, the limit is %d", m.Label, len(m.Label), f.LabelMax())
	}
	if m.Bytes > 0 && m.Bytes < minBytes {
		return nil, fmt.Errorf("xfs: a device of %d bytes is too small, mkfs.xfs needs %d (300 MiB)", m.Bytes, int64(minBytes))
	}
	// The log lies within one group and has 64 MiB at least.
	if n := o.int("agcount"); n > 0 && m.Bytes > 0 && m.Bytes/n < 80<<20 {
		return nil, o.refuse("agcount", fmt.Sprintf("groups of less than 80 MiB on a device of %d bytes", m.Bytes))
	}
	if sect := o.int("sector_size"); sect > 0 && int64(m.SectorSize) > sect {
		return nil, o.refuse("sector_size", fmt.Sprintf("the device has sectors of %d bytes", m.SectorSize))
	}
	meta := fmt.Sprintf("crc=%s", o.v["crc"])
	inode := fmt.Sprintf("size=%s", o.v["inode_size"])
	if o.on("crc") {
		meta += fmt.Sprintf(",finobt=%s,inobtcount=%s,bigtime=%s,reflink=%s,rmapbt=%s", o.v["finobt"], o.v["inobtcount"],
			o.v["bigtime"], o.v["reflink"], o.v["rmapbt"])
		inode += fmt.Sprintf(",sparse=%s", o.v["sparse"])
		if o.on("nrext64") { // older mkfs.xfs does not know the word
			inode += ",nrext64=1"
		}
	}
	if m.UUID != "" {
		meta += ",uuid=" + m.UUID
	}
	if pct := o.imaxpct(m); pct > 0 {
		inode += fmt.Sprintf(",maxpct=%d", pct)
	}
	argv := []string{"mkfs.xfs", "-q", "-f", "-m", meta, "-i", inode, "-n", "ftype=" + o.v["ftype"], "-b", "size=" + o.v["block_size"]}
	if o.v["sector_size"] != "auto" {
		argv = append(argv, "-s", "size="+o.v["sector_size"])
	}
	if n := o.int("agcount"); n > 0 {
		argv = append(argv, "-d", fmt.Sprintf("agcount=%d", n))
	}
	if n := o.int("log_size"); n > 0 {
		argv = append(argv, "-l", fmt.Sprintf("size=%dm", n))
	}
	if !o.on("discard") {
		argv = append(argv, "-K")
	}
	if m.Label != "" {
		argv = append(argv, "-L", m.Label)
	}
	return append(argv, device), nil
}

// imaxpct raises mkfs.xfs's own (25 % below 1 TiB, 5 % below 50 TiB, then 1 %)
// where the tree needs more.
func (o options) imaxpct(m formats.MakeOptions) int64 {
	if n := o.int("imaxpct"); n > 0 {
		return n
	}
	n := max(m.Inodes, m.Objects+m.Objects/4)
	if m.Bytes <= 0 || n <= 0 {
		return 0
	}
	def := int64(25)
	if m.Bytes >= 50<<40 {
		def = 1
	} else if m.Bytes >= 1<<40 {
		def = 5
	}
	need := n/(m.Bytes/100/o.int("inode_size")+1) + 1
	if need <= def {
		return 0
	}
	return min(need, 100)
}
