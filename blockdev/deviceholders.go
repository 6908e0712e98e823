package blockdev

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// DeviceHolders lists who uses a block device, or a partition of it: mounts in
// any namespace, a superblock that only detached mounts keep, swap, device mapper, md and
// loop devices above it, and processes that have the device itself open.
// OpenExclusive is the proof that none of the kernel's is left; this says which.
func DeviceHolders(path string, opts ...HolderOption) ([]Holder, error) {
	o := newHolderOptions(opts)
	d, err := Identify(path)
	if err != nil {
		return nil, err
	}
	parts := []Device{d}
	for _, name := range d.Partitions {
		p, err := Identify(hostSysfs.devicePath(name))
		if errors.Is(err, os.ErrNotExist) {
			continue // no node for it: nobody opens it by one
		}
		if err != nil {
			return nil, err
		}
		parts = append(parts, p)
	}
	all, err := AllMounts()
	if err != nil {
		return nil, err
	}
	var list []Holder
	for _, p := range parts {
		list = append(list, p.kernelHolders(all)...)
	}
	s := scan{ignore: o.ignore, denied: o.denied, remote: remotePoints(all), fd: func(st *unix.Statx_t, _ string) bool {
		return st.Mode&unix.S_IFMT == unix.S_IFBLK && slices.ContainsFunc(parts, func(p Device) bool {
			return st.Rdev_major == p.Major && st.Rdev_minor == p.Minor
		})
	}}
	uses, err := s.run()
	if err != nil {
		return nil, fmt.Errorf("holders of %s: %w", path, err)
	}
	for _, u := range uses {
		list = append(list, u.Holder)
	}
	sortHolders(list)
	return list, nil
}

// kernelHolders lists what the kernel does with the device.
func (d Device) kernelHolders(all []Mount) []Holder {
	var list []Holder
	mounted := false
	supers := superblocks(d.Name)
	for _, m := range all {
		if m.Dev != d.Number() && !(m.FSType == "btrfs" && len(supers) > 0 && btrfsUses(m, d)) {
			continue
		}
		mounted = true
		h := Holder{PID: m.PID, Path: m.Point, Kind: "mount", Writes: !m.ReadOnly() && !IsSuperReadOnly(m)}
		if m.PID != 0 {
			h.Command = commandOf(m.PID)
		}
		list = append(list, h)
	}
	if !mounted {
		for _, fs := range supers {
			list = append(list, Holder{Path: d.Name, Kind: "mount", Command: fs + " on a detached mount", Writes: true})
		}
	}
	for _, name := range d.Holders {
		list = append(list, Holder{Path: hostSysfs.devicePath(name), Kind: "device", Command: name, Writes: true})
	}
	for _, s := range swaps() {
		if !s.file && sameDevice(s.path, d.Number()) {
			list = append(list, Holder{Path: s.path, Kind: "swap", Command: "swap", Writes: true})
		}
	}
	for _, l := range loopDevices() {
		if sameDevice(l.file, d.Number()) {
			list = append(list, Holder{Path: "/dev/" + l.name, Kind: "loop", Command: l.name, Writes: !l.readOnly})
		}
	}
	return list
}

// superblocks names the file systems that are alive on a device, mounted
// anywhere or not: they have a directory in sysfs.
func superblocks(name string) []string {
	var list []string
	for _, fs := range []string{"ext4", "xfs", "f2fs"} {
		if exists("/sys/fs/" + fs + "/" + name) {
			list = append(list, fs)
		}
	}
	if found, _ := filepath.Glob("/sys/fs/btrfs/*/devices/" + name); len(found) > 0 {
		list = append(list, "btrfs")
	}
	return list
}

// btrfsUses reports whether m is of the btrfs that d is part of.
func btrfsUses(m Mount, d Device) bool {
	if sameDevice(m.Source, d.Number()) {
		return true
	}
	found, _ := filepath.Glob("/sys/fs/btrfs/*/devices/" + filepath.Base(m.Source))
	for _, f := range found {
		if exists(filepath.Dir(f) + "/" + d.Name) {
			return true
		}
	}
	return false
}

func sameDevice(path string, number uint64) bool {
	var st unix.Stat_t
	return unix.Stat(path, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFBLK && st.Rdev == number
}

type swap struct {
	path string
	file bool // a file; else a partition
}

func swaps() []swap {
	data, err := os.ReadFile("/proc/swaps")
	if err != nil {
		return nil // a kernel without swap
	}
	return parseSwaps(string(data))
}

// parseSwaps reads /proc/swaps: a header, then "path type size used priority".
func parseSwaps(text string) []swap {
	var list []swap
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) < 2 || fields[0] == "Filename" {
			continue
		}
		list = append(list, swap{path: unescapeOctal(fields[0]), file: fields[1] == "file"})
	}
	return list
}

// unescapeOctal undoes \040 and the like of the kernel's tables.
func unescapeOctal(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
