package blockdev

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// sysfs reads what the kernel says about block devices below root, "/" on a
// real machine. It only reads files: a recorded tree does as well.
type sysfs struct {
	root       string
	fileDevice func(file string) uint64 // the device below a loop's file
}

// device describes the device major:minor.
func (f sysfs) device(major, minor uint32) (Device, error) {
	link := fmt.Sprintf("%ssys/dev/block/%d:%d", f.root, major, minor)
	dir, err := filepath.EvalSymlinks(link)
	if err != nil {
		return Device{}, fmt.Errorf("block device %d:%d: %w", major, minor, err)
	}
	d := Device{Name: filepath.Base(dir), Major: major, Minor: minor}
	queue := dir + "/queue/"
	if f.isPartition(dir) {
		d.WholeDisk = filepath.Base(filepath.Dir(dir))
		queue = filepath.Dir(dir) + "/queue/"
	}
	sectors, err := strconv.ParseInt(readLine(dir+"/size"), 10, 64)
	if err != nil {
		return Device{}, fmt.Errorf("block device %s: size: %w", d.Name, err)
	}
	d.Bytes = sectors * 512 // sysfs counts in 512 whatever the sector size
	d.LogicalSector = number(queue+"logical_block_size", 512)
	d.PhysicalSector = number(queue+"physical_block_size", d.LogicalSector)
	d.MinIO = number(queue+"minimum_io_size", d.PhysicalSector)
	d.Rotational = readLine(queue+"rotational") == "1"
	d.Discard = number(queue+"discard_max_bytes", 0) > 0
	d.DAX = readLine(queue+"dax") == "1"
	d.ReadOnly = readLine(dir+"/ro") == "1"
	d.LoopFile = strings.TrimSuffix(readLine(dir+"/loop/backing_file"), " (deleted)")
	d.Partitions, d.Holders, d.slaveList = f.partitions(dir), names(dir+"/holders"), names(dir+"/slaves")
	disk := dir
	if d.WholeDisk != "" {
		disk = filepath.Dir(dir)
	}
	d.Model = strings.Join(strings.Fields(readLine(disk+"/device/vendor")+" "+readLine(disk+"/device/model")), " ")
	d.IDs = f.ids(dir, d)
	d.Stack = f.stack(dir, nil)
	return d, nil
}

// ids are the names that the device keeps over reboots, the best first.
func (f sysfs) ids(dir string, d Device) []string {
	var ids []string
	add := func(kind, value string) {
		if value = strings.Join(strings.Fields(value), "_"); value != "" && !slices.Contains(ids, kind+":"+value) {
			ids = append(ids, kind+":"+value)
		}
	}
	uevent, udev := properties(dir+"/uevent", ""), f.udev(d)
	if d.WholeDisk != "" {
		add("partuuid", uevent["PARTUUID"])
		add("partuuid", udev["ID_PART_ENTRY_UUID"])
		for _, id := range f.ids(filepath.Dir(dir), Device{}) {
			if kind, value, _ := strings.Cut(id, ":"); kind == "wwn" || kind == "serial" {
				add(kind, value+"-part"+readLine(dir+"/partition"))
			}
		}
		return ids
	}
	if uuid := readLine(dir + "/dm/uuid"); uuid != "" {
		if lv, ok := strings.CutPrefix(uuid, "LVM-"); ok {
			add("lv", lv)
		}
		add("dmuuid", uuid)
	}
	add("mduuid", readLine(dir+"/md/uuid"))
	add("mduuid", strings.ReplaceAll(udev["MD_UUID"], ":", ""))
	add("wwn", readLine(dir+"/wwid"))
	add("wwn", readLine(dir+"/device/wwid"))
	add("serial", readLine(dir+"/serial"))
	add("serial", readLine(dir+"/device/serial"))
	if page, err := os.ReadFile(dir + "/device/vpd_pg80"); err == nil && len(page) > 4 {
		add("serial", strings.Trim(string(page[4:]), " \x00"))
	}
	if d.LoopFile != "" {
		// A loop over a part of a file is not what the file's name stands for.
		if o := readLine(dir + "/loop/offset"); o == "0" || o == "" {
			ids = append(ids, "loopfile:"+d.LoopFile)
		}
	}
	return ids
}

// udev is what udev noted about the device; empty on a machine without it.
func (f sysfs) udev(d Device) map[string]string {
	if d.Major == 0 {
		return nil
	}
	return properties(fmt.Sprintf("%srun/udev/data/b%d:%d", f.root, d.Major, d.Minor), "E:")
}

// stack lists the layers from the device at dir down, each once.
func (f sysfs) stack(dir string, have []Layer) []Layer {
	l := f.layer(dir)
	if slices.Contains(have, l) {
		return have
	}
	have = append(have, l)
	switch {
	case l.Kind == "partition":
		return f.stack(filepath.Dir(dir), have)
	case l.Kind == "loop":
		file := strings.TrimSuffix(readLine(dir+"/loop/backing_file"), " (deleted)")
		if file == "" || f.fileDevice == nil {
			return have
		}
		dev := f.fileDevice(file)
		if dev == 0 {
			return have
		}
		if below, err := filepath.EvalSymlinks(fmt.Sprintf("%ssys/dev/block/%d:%d", f.root, unix.Major(dev), unix.Minor(dev))); err == nil {
			return f.stack(below, have)
		}
		return have
	}
	for _, s := range names(dir + "/slaves") {
		if below, err := filepath.EvalSymlinks(dir + "/slaves/" + s); err == nil {
			have = f.stack(below, have)
		}
	}
	return have
}

func (f sysfs) layer(dir string) Layer {
	name := filepath.Base(dir)
	switch {
	case f.isPartition(dir):
		return Layer{Kind: "partition", Name: name}
	case exists(dir + "/dm"):
		return dmLayer(readLine(dir+"/dm/name"), readLine(dir+"/dm/uuid"), f.slaveNames(dir))
	case exists(dir + "/md"):
		return mdLayer(name, readLine(dir+"/md/level"))
	case strings.HasPrefix(name, "loop"):
		return Layer{Kind: "loop", Name: name}
	case strings.HasPrefix(name, "drbd"):
		return Layer{Kind: "drbd", Name: name, Redundant: true}
	case exists(dir + "/bcache"):
		return Layer{Kind: "bcache", Name: name}
	case strings.HasPrefix(name, "zram"):
		return Layer{Kind: "zram", Name: name}
	case strings.HasPrefix(name, "rbd"), strings.HasPrefix(name, "nbd"):
		return Layer{Kind: strings.TrimRight(name, "0123456789"), Name: name}
	default:
		return Layer{Kind: "disk", Name: name}
	}
}

// slaveNames are the names below, device mapper's own where it has one.
func (f sysfs) slaveNames(dir string) []string {
	var list []string
	for _, s := range names(dir + "/slaves") {
		name := readLine(dir + "/slaves/" + s + "/dm/uuid")
		list = append(list, name+" "+readLine(dir+"/slaves/"+s+"/dm/name"))
	}
	return list
}

// dmLayer tells what a device mapper device is from its uuid, which the tool
// that made it prefixes, and for LVM from the hidden volumes below it: the
// table's target isn't in sysfs.
func dmLayer(name, uuid string, slaves []string) Layer {
	l := Layer{Kind: "dm", Name: name}
	prefix, _, _ := strings.Cut(uuid, "-")
	below := func(parts ...string) bool {
		for _, s := range slaves {
			for _, part := range parts {
				if strings.Contains(s, part) {
					return true
				}
			}
		}
		return false
	}
	switch {
	case strings.HasPrefix(uuid, "CRYPT-VERITY-"):
		l.Kind = "dm-verity"
	case strings.HasPrefix(uuid, "CRYPT-INTEGRITY-"):
		l.Kind = "dm-integrity"
	case prefix == "CRYPT":
		l.Kind, l.Encrypted = "dm-crypt", true
	case prefix == "mpath":
		l.Kind = "multipath"
	case strings.HasPrefix(prefix, "part"):
		l.Kind = "partition" // kpartx, of a multipath or image
	case prefix == "DMRAID":
		l.Kind = "dm-raid"
	case prefix == "VDO", below("_vdata "), below("_vdata"):
		l.Kind, l.Thin = "dm-vdo", true
	case prefix != "LVM":
	case strings.HasSuffix(uuid, "-tpool"), strings.HasSuffix(uuid, "-pool"), below("-tpool", "-pool "):
		l.Kind, l.Thin = "dm-thin", true
	case below("_rimage_"):
		// A raid0 has images without metadata volumes.
		l.Kind, l.Redundant = "dm-raid", below("_rmeta_")
	case below("_mimage_"):
		l.Kind, l.Redundant = "dm-mirror", true
	case below("-cow"):
		l.Kind = "dm-snapshot"
	case below("-real"):
		l.Kind = "dm-linear" // the origin of a snapshot
	default:
		l.Kind = "dm-linear"
	}
	return l
}

func mdLayer(name, level string) Layer {
	l := Layer{Kind: "md-" + level, Name: name}
	if level == "" {
		l.Kind = "md"
	}
	switch level {
	case "raid1", "raid10", "raid4", "raid5", "raid6":
		l.Redundant = true
	}
	return l
}

func (f sysfs) isPartition(dir string) bool { return exists(dir + "/partition") }

// partitions are the partitions in dir, a disk.
func (f sysfs) partitions(dir string) []string {
	var list []string
	for _, name := range names(dir) {
		if exists(dir + "/" + name + "/partition") {
			list = append(list, name)
		}
	}
	return list
}

// line reads one line below the root.
func (f sysfs) line(path string) string { return readLine(f.root + path) }

func exists(path string) bool { _, err := os.Lstat(path); return err == nil }

// names lists a directory; nothing where there is none.
func names(dir string) []string {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	list := make([]string, 0, len(entries))
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return list
}

func number(path string, otherwise int) int {
	n, err := strconv.Atoi(readLine(path))
	if err != nil {
		return otherwise
	}
	return n
}

// properties reads lines of KEY=value, those with the prefix only.
func properties(path, prefix string) map[string]string {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	found := map[string]string{}
	for line := range strings.Lines(string(data)) {
		rest, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), prefix)
		if key, value, has := strings.Cut(rest, "="); ok && has {
			found[key] = value
		}
	}
	return found
}
