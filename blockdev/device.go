package blockdev

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Device is a block device as it is now. Sizes are bytes.
type Device struct {
	Path                           string // as asked for
	Name                           string // the kernel's: sda1, dm-3, loop0
	Major, Minor                   uint32
	Bytes                          int64
	LogicalSector, PhysicalSector  int // what it takes; what it writes as one
	MinIO                          int // smallest transfer that isn't slow: a RAID's chunk
	ReadOnly, Rotational           bool
	Discard, DAX                   bool
	Model                          string
	IDs                            []string // stable names: "wwn:…", "partuuid:…", "lv:…", "dmuuid:…", "mduuid:…", "serial:…", "loopfile:/abs/path"
	Stack                          []Layer  // from the device down to the disks, a loop's file included
	LoopFile                       string   // canonical path of the backing file, of a loop device
	WholeDisk                      string   // of a partition: the kernel's name of its disk
	Partitions, Holders, slaveList []string // kernel names of what is in it, on it, below it
}

// Layer is one storage layer. What a migration may lose between two stacks is
// in the three flags; a network or multipath shows in Kind.
type Layer struct {
	Kind      string // disk, partition, loop, dm-crypt, dm-linear, dm-thin, dm-mirror, dm-raid, dm-snapshot, dm-verity, dm-integrity, dm-vdo, multipath, dm, md-raid1 …, drbd, bcache, zram
	Name      string // the kernel's name, or device mapper's
	Redundant bool   // survives the loss of a disk
	Encrypted bool
	Thin      bool // may run out of space below
}

// Number is the device's number as st_rdev has it.
func (d Device) Number() uint64 { return unix.Mkdev(d.Major, d.Minor) }

// Identify describes the block device at path.
func Identify(path string) (Device, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return Device{}, &os.PathError{Op: "identify", Path: path, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFBLK {
		return Device{}, &os.PathError{Op: "identify", Path: path, Err: unix.ENOTBLK}
	}
	d, err := hostSysfs.device(unix.Major(st.Rdev), unix.Minor(st.Rdev))
	if err != nil {
		return Device{}, fmt.Errorf("identify %s: %w", path, err)
	}
	d.Path = path
	if d.WholeDisk != "" && !hasID(d.IDs, "partuuid:") {
		// An older kernel doesn't tell; ask the partition table.
		if id := probedPartUUID(path); id != "" {
			d.IDs = append([]string{"partuuid:" + id}, d.IDs...)
		}
	}
	return d, nil
}

var hostSysfs = sysfs{root: "/", fileDevice: fileDevice}

// fileDevice is the device of the file system that holds file, for the layers
// below a loop. 0: not known, or not on a device.
func fileDevice(file string) uint64 {
	fd, err := openPath(file)
	if err != nil {
		return 0
	}
	defer unix.Close(fd)
	dev, err := MountDev(fd)
	if err != nil {
		return 0
	}
	if unix.Major(dev) != 0 {
		return dev
	}
	// btrfs: by what it was mounted from.
	m, err := mountHolding(fd)
	if err != nil {
		return 0
	}
	var st unix.Stat_t
	if unix.Stat(m.Source, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFBLK {
		return 0
	}
	return st.Rdev
}

// mountHolding is the mount of our namespace that fd is on.
func mountHolding(fd int) (Mount, error) {
	st, err := statMount(fd)
	if err != nil {
		return Mount{}, err
	}
	mounts, err := ownMounts()
	if err != nil {
		return Mount{}, err
	}
	for _, m := range mounts {
		if m.ID == int(st.Mnt_id) {
			return m, nil
		}
	}
	return Mount{}, ErrNotMountPoint
}

// probeLimit bounds a tool that only reads a few blocks.
const probeLimit = 30 * time.Second

// probedPartUUID asks blkid's low-level probe; "" if there is no blkid or no answer.
func probedPartUUID(path string) string {
	ctx, cancel := context.WithTimeout(context.Background(), probeLimit)
	defer cancel()
	out, err := exec.CommandContext(ctx, "blkid", "-p", "-s", "PART_ENTRY_UUID", "-o", "value", path).Output()
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(out))
}

func hasID(ids []string, prefix string) bool {
	for _, id := range ids {
		if strings.HasPrefix(id, prefix) {
			return true
		}
	}
	return false
}

// devicePath is where the device node of a kernel name is.
func (f sysfs) devicePath(name string) string {
	if dm := f.line("sys/class/block/" + name + "/dm/name"); dm != "" {
		return "/dev/mapper/" + dm
	}
	return "/dev/" + strings.ReplaceAll(filepath.Base(name), "!", "/")
}
