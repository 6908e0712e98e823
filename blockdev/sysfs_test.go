package blockdev

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// fakeSysfs unpacks testdata/stacks.sysfs, with the links that sysfs has from
// device numbers and from the class.
func fakeSysfs(t *testing.T) sysfs {
	t.Helper()
	data, err := os.ReadFile("testdata/stacks.sysfs")
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir() + "/"
	put := func(path string, make func(path string) error) {
		if err := os.MkdirAll(filepath.Dir(root+path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := make(root + path); err != nil {
			t.Fatal(err)
		}
	}
	for line := range strings.Lines(string(data)) {
		line = strings.TrimSuffix(line, "\n")
		if strings.HasPrefix(line, "#") {
			continue
		}
		if path, target, ok := strings.Cut(line, " -> "); ok {
			put(path, func(p string) error { return os.Symlink(target, p) })
			continue
		}
		path, text, ok := strings.Cut(line, " = ")
		if !ok {
			t.Fatalf("line %q", line)
		}
		put(path, func(p string) error { return os.WriteFile(p, []byte(text+"\n"), 0o644) })
		if dir, ok := strings.CutSuffix(path, "/dev"); ok {
			put("sys/dev/block/"+text, func(p string) error { return os.Symlink(root+dir, p) })
			put("sys/class/block/"+filepath.Base(dir), func(p string) error { return os.Symlink(root+dir, p) })
		}
	}
	return sysfs{root: root, fileDevice: func(string) uint64 { return unix.Mkdev(253, 1) }}
}

func TestSysfsDevice(t *testing.T) {
	f := fakeSysfs(t)
	d, err := f.device(8, 1)
	if err != nil {
		t.Fatal(err)
	}
	want := Device{
		Name: "sda1", Major: 8, Minor: 1, Bytes: 512000000, LogicalSector: 512, PhysicalSector: 4096, MinIO: 4096,
		Rotational: true, Model: "ATA WDC WD10EZEX", WholeDisk: "sda",
		IDs:   []string{"partuuid:11111111-2222-3333-4444-555555555555", "wwn:naa.50014ee2b1c3d4e5-part1"},
		Stack: []Layer{{Kind: "partition", Name: "sda1"}, {Kind: "disk", Name: "sda"}},
	}
	if !reflect.DeepEqual(d, want) {
		t.Errorf("sda1 is\n%+v, want\n%+v", d, want)
	}
	d, err = f.device(259, 0)
	if err != nil {
		t.Fatal(err)
	}
	want = Device{
		Name: "nvme0n1", Major: 259, Bytes: 2048000, LogicalSector: 4096, PhysicalSector: 4096, MinIO: 4096,
		ReadOnly: true, Discard: true, DAX: true, Model: "Samsung SSD 970",
		IDs:   []string{"wwn:eui.0025388b710116a1", "serial:S4EWNX0M"},
		Stack: []Layer{{Kind: "disk", Name: "nvme0n1"}},
	}
	if !reflect.DeepEqual(d, want) {
		t.Errorf("nvme0n1 is\n%+v, want\n%+v", d, want)
	}
	if d, err := f.device(8, 0); err != nil || !reflect.DeepEqual(d.Partitions, []string{"sda1", "sda2"}) {
		t.Errorf("sda is %+v, %v", d, err)
	}
	if d, err := f.device(8, 2); err != nil || !reflect.DeepEqual(d.Holders, []string{"md0"}) {
		t.Errorf("sda2 is %+v, %v", d, err)
	}
	if _, err := f.device(1, 1); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no such device: %v", err)
	}
}

func TestSysfsStacks(t *testing.T) {
	crypt := []Layer{{Kind: "dm-crypt", Name: "luks", Encrypted: true}, {Kind: "partition", Name: "sda1"}, {Kind: "disk", Name: "sda"}}
	lv := append([]Layer{{Kind: "dm-linear", Name: "vg-data"}}, crypt...)
	mirror := []Layer{{Kind: "md-raid1", Name: "md0", Redundant: true}, {Kind: "partition", Name: "sda2"}, {Kind: "disk", Name: "sda"}, {Kind: "disk", Name: "sdb"}}
	tests := []struct {
		name         string
		major, minor uint32
		stack        []Layer
		ids          []string
	}{
		{"LV in LUKS", 253, 1, lv, []string{"lv:VGvgVGvgLVlvLVlv", "dmuuid:LVM-VGvgVGvgLVlvLVlv"}},
		{"LUKS", 253, 0, crypt, []string{"dmuuid:CRYPT-LUKS2-0123456789abcdef-luks"}},
		{"md mirror", 9, 0, mirror, []string{"mduuid:deadbeef0102030405060708090a0b0c"}},
		{"thin volume on it", 253, 3, append([]Layer{{Kind: "dm-thin", Name: "vg-thin", Thin: true}, {Kind: "dm-thin", Name: "vg-pool-tpool", Thin: true}}, mirror...),
			[]string{"lv:VGvgTHIN", "dmuuid:LVM-VGvgTHIN"}},
		{"multipath", 253, 2, []Layer{{Kind: "multipath", Name: "mpatha"}, {Kind: "disk", Name: "sdc"}, {Kind: "disk", Name: "sdd"}},
			[]string{"dmuuid:mpath-36001405", "wwn:naa.6001405"}},
		{"LVM raid1", 253, 5, []Layer{{Kind: "dm-raid", Name: "vg-r", Redundant: true}, {Kind: "dm-linear", Name: "vg-r_rimage_0"}, {Kind: "disk", Name: "vda"}, {Kind: "dm-linear", Name: "vg-r_rmeta_0"}},
			[]string{"lv:VGvgRAID", "dmuuid:LVM-VGvgRAID"}},
		{"loop", 7, 0, append([]Layer{{Kind: "loop", Name: "loop0"}}, lv...), []string{"loopfile:/images/a b"}},
		{"loop with an offset", 7, 1, append([]Layer{{Kind: "loop", Name: "loop1"}}, lv...), nil},
		{"partition known to udev", 8, 2, []Layer{{Kind: "partition", Name: "sda2"}, {Kind: "disk", Name: "sda"}}, []string{"partuuid:aaaa-02", "wwn:naa.50014ee2b1c3d4e5-part2"}},
		{"wwid with blanks", 8, 16, []Layer{{Kind: "disk", Name: "sdb"}}, []string{"wwn:t10.ATA_QEMU_HARDDISK_QM00002"}},
		{"virtio", 254, 0, []Layer{{Kind: "disk", Name: "vda"}}, []string{"serial:disk-0"}},
	}
	f := fakeSysfs(t)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d, err := f.device(tt.major, tt.minor)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(d.Stack, tt.stack) {
				t.Errorf("stack\n%+v, want\n%+v", d.Stack, tt.stack)
			}
			if !reflect.DeepEqual(d.IDs, tt.ids) {
				t.Errorf("ids %q, want %q", d.IDs, tt.ids)
			}
		})
	}
}

func TestLayerKinds(t *testing.T) {
	tests := []struct {
		name, uuid string
		slaves     []string
		want       Layer
	}{
		{"swap", "CRYPT-PLAIN-swap", nil, Layer{Kind: "dm-crypt", Encrypted: true}},
		{"usr", "CRYPT-VERITY-1234-usr", nil, Layer{Kind: "dm-verity"}},
		{"i", "CRYPT-INTEGRITY-1234-i", nil, Layer{Kind: "dm-integrity"}},
		{"vg-m", "LVM-M", []string{"LVM-A vg-m_mimage_0", "LVM-B vg-m_mimage_1"}, Layer{Kind: "dm-mirror", Redundant: true}},
		{"vg-stripe", "LVM-S", []string{"LVM-A vg-s_rimage_0"}, Layer{Kind: "dm-raid"}},
		{"vg-snap", "LVM-S", []string{"LVM-A-real vg-o-real", "LVM-B-cow vg-snap-cow"}, Layer{Kind: "dm-snapshot"}},
		{"vg-o", "LVM-O", []string{"LVM-A-real vg-o-real"}, Layer{Kind: "dm-linear"}},
		{"vdo", "VDO-1234", nil, Layer{Kind: "dm-vdo", Thin: true}},
		{"mpatha1", "part1-mpath-3600", nil, Layer{Kind: "partition"}},
		{"isw", "DMRAID-isw_1", nil, Layer{Kind: "dm-raid"}},
		{"raw", "", nil, Layer{Kind: "dm"}},
	}
	for _, tt := range tests {
		tt.want.Name = tt.name
		if got := dmLayer(tt.name, tt.uuid, tt.slaves); got != tt.want {
			t.Errorf("%s: %+v, want %+v", tt.name, got, tt.want)
		}
	}
	for level, redundant := range map[string]bool{"raid0": false, "linear": false, "raid1": true, "raid10": true, "raid5": true, "raid6": true} {
		if got := mdLayer("md1", level); got.Redundant != redundant || got.Kind != "md-"+level {
			t.Errorf("%s: %+v", level, got)
		}
	}
}

func TestSysfsFind(t *testing.T) {
	f := fakeSysfs(t)
	tests := []struct {
		name, id, hinted string
		bytes            int64
		want             string
		err              error
	}{
		{"by serial", "serial:disk-0", "", 8000 * 512, "vda", nil},
		{"any size", "serial:disk-0", "", 0, "vda", nil},
		{"wrong size", "serial:disk-0", "", 512, "", ErrWrongSize},
		{"the multipath, not its paths", "wwn:naa.6001405", "", 7000 * 512, "dm-2", nil},
		{"a path as hint", "wwn:naa.6001405", "sdc", 7000 * 512, "dm-2", nil},
		{"two that claim it", "wwn:clone", "", 0, "", ErrAmbiguous},
		{"two, one of them where it was", "wwn:clone", "sdf", 0, "sdf", nil},
		{"none", "wwn:nobody", "", 0, "", ErrNoDevice},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d, err := f.find([]string{"lv:gone", tt.id}, tt.hinted, tt.bytes)
			if !errors.Is(err, tt.err) || d.Name != tt.want {
				t.Errorf("found %q, %v; want %q, %v", d.Name, err, tt.want, tt.err)
			}
		})
	}
	if got := f.devicePath("dm-1"); got != "/dev/mapper/vg-data" {
		t.Errorf("path of dm-1: %s", got)
	}
}
