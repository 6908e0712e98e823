package btrfs

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/fsmigrate/fsmigrate/formats"
)

var bools = []string{"0", "1"}

var properties = []formats.Property{
	{Name: "nodesize", Values: []string{"4096", "8192", "16384", "32768", "65536"}, Default: "16384", Meaning: "bytes a metadata node; bounds the size of one extended attribute"},
	{Name: "sectorsize", Values: []string{"4096", "8192", "16384", "32768", "65536"}, Default: "4096", Meaning: "bytes a block; others than the processor's page need a new kernel"},
	{Name: "csum", Values: []string{"crc32c", "xxhash", "sha256", "blake2"}, Default: "crc32c", Meaning: "checksum of data and metadata"},
	{Name: "data", Values: []string{"single", "dup"}, Default: "single", Meaning: "copies of data on the device"},
	{Name: "metadata", Values: []string{"single", "dup"}, Default: "dup", Meaning: "copies of metadata on the device"},
	{Name: "mixed", Values: bools, Default: "0", Meaning: "data and metadata in common groups, for devices below 1 GiB"},
	{Name: "no_holes", Values: bools, Default: "1", Meaning: "holes take no item"},
	{Name: "free_space_tree", Values: bools, Default: "1", Meaning: "free space in a tree: fast mounts"},
	{Name: "extref", Values: bools, Default: "1", Meaning: "65,535 links to a file in one directory"},
	{Name: "discard", Values: bools, Default: "0", Meaning: "discard the device's blocks first"},
}

// Describe lists the properties.
func (format) Describe() formats.Description {
	return formats.Description{Name: "btrfs", Summary: "copy on write, checksums on data, 64-bit times; no project ids",
		Properties: properties, Limits: layout{nodeSize: 16384, sectorSize: 4096, extref: true}.limits()}
}

type options struct{ v map[string]string }

func resolve(opts map[string]string) (options, error) {
	v, err := format{}.Describe().Resolve(opts)
	if err != nil {
		return options{}, err
	}
	o := options{v}
	if o.on("mixed") {
		for _, same := range []struct{ name, other string }{{"nodesize", "sectorsize"}, {"metadata", "data"}} {
			if _, asked := opts[same.name]; !asked {
				o.v[same.name] = o.v[same.other]
			}
			if o.v[same.name] != o.v[same.other] {
				return o, o.refuse(same.name, "mixed groups need it equal to "+same.other)
			}
		}
	}
	if o.int("nodesize") < o.int("sectorsize") {
		return o, o.refuse("nodesize", "is smaller than sectorsize")
	}
	return o, nil
}

func (o options) refuse(name, why string) error {
	return &formats.OptionError{Format: "btrfs", Option: name, Value: o.v[name], Why: why}
}

func (o options) on(name string) bool { return o.v[name] == "1" }

func (o options) int(name string) int64 {
	n, err := strconv.ParseInt(o.v[name], 10, 64)
	if err != nil {
		return 0 // Resolve has checked what is a number
	}
	return n
}

// Limits of a volume made with these options.
func (format) Limits(opts map[string]string) (formats.Limits, error) {
	o, err := resolve(opts)
	if err != nil {
		return formats.Limits{}, err
	}
	return layout{nodeSize: int(o.int("nodesize")), sectorSize: int(o.int("sectorsize")), extref: o.on("extref")}.limits(), nil
}

// minBytes is the least device: mkfs.btrfs demands about 109 MiB with metadata
// twice, 41 MiB with everything once, and 16 MiB mixed.
func (o options) minBytes() int64 {
	switch {
	case o.on("mixed"):
		return 16 << 20
	case o.v["metadata"] == "dup" || o.v["data"] == "dup":
		return 128 << 20
	default:
		return 64 << 20
	}
}

// Mkfs composes mkfs.btrfs.
func (f format) Mkfs(device string, m formats.MakeOptions) ([]string, error) {
	o, err := resolve(m.Options)
	if err != nil {
		return nil, err
	}
	if len(m.Label) > f.LabelMax() {
		return nil, fmt.Errorf("btrfs: label of %d bytes, the limit is %d", len(m.Label), f.LabelMax())
	}
	if strings.ContainsAny(m.Label, "\n") {
		return nil, fmt.Errorf("btrfs: label %q: a line break is not allowed", m.Label)
	}
	if m.Bytes > 0 && m.Bytes < o.minBytes() {
		return nil, fmt.Errorf("btrfs: a device of %d bytes is too small, %d are needed", m.Bytes, o.minBytes())
	}
	if int64(m.SectorSize) > o.int("sectorsize") {
		return nil, o.refuse("sectorsize", fmt.Sprintf("the device has sectors of %d bytes", m.SectorSize))
	}
	argv := []string{"mkfs.btrfs", "-q", "-f", "-n", o.v["nodesize"], "-s", o.v["sectorsize"], "--csum", o.v["csum"],
		"-d", o.v["data"], "-m", o.v["metadata"]}
	if o.on("mixed") {
		argv = append(argv, "--mixed")
	}
	features := []string{}
	for _, p := range []struct{ prop, name string }{{"no_holes", "no-holes"}, {"extref", "extref"}} {
		if o.on(p.prop) {
			features = append(features, p.name)
		} else {
			features = append(features, "^"+p.name)
		}
	}
	argv = append(argv, "-O", strings.Join(features, ","))
	if o.on("free_space_tree") {
		argv = append(argv, "-R", "free-space-tree")
	} else {
		argv = append(argv, "-R", "^free-space-tree")
	}
	if !o.on("discard") {
		argv = append(argv, "-K")
	}
	if m.Label != "" {
		argv = append(argv, "-L", m.Label)
	}
	if m.UUID != "" {
		argv = append(argv, "-U", m.UUID)
	}
	return append(argv, device), nil
}
