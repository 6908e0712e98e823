package blockdev

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// The ways in which Resolve finds no device that it could stand for.
var (
	ErrNoDevice  = errors.New("no such device is attached")
	ErrWrongSize = errors.New("device has another size than it had")
	ErrAmbiguous = errors.New("more than one device answers to it")
)

// Resolve finds the device that carries any of ids, as Identify gave them, and
// is of the given size (bytes; 0: any). Of several that share an id, as the paths
// below a multipath device do, it is the topmost. hint is where the device was:
// it decides between equals, and names the device when there are no ids; it is
// never taken for a device that carries none of them.
//
// ErrNoDevice, ErrWrongSize and ErrAmbiguous mean what they say. A loopfile id
// is found only while the file is looped.
func Resolve(ids []string, hint string, bytes int64) (Device, error) {
	if len(ids) == 0 {
		d, err := Identify(hint)
		if err != nil {
			return Device{}, err
		}
		return sized(d, bytes)
	}
	var hinted string
	if d, err := Identify(hint); err == nil && carries(d, ids) {
		hinted = d.Name
	}
	d, err := hostSysfs.find(ids, hinted, bytes)
	if err != nil {
		return Device{}, fmt.Errorf("find device %s: %w", strings.Join(ids, " "), err)
	}
	if d.Name == hinted {
		return Identify(hint)
	}
	return Identify(hostSysfs.devicePath(d.Name))
}

// find looks for ids among all devices that the kernel has.
func (f sysfs) find(ids []string, hinted string, bytes int64) (Device, error) {
	var found []Device
	for _, name := range names(f.root + "sys/class/block") {
		var major, minor uint32
		if _, err := fmt.Sscanf(f.line("sys/class/block/"+name+"/dev"), "%d:%d", &major, &minor); err != nil {
			continue
		}
		d, err := f.device(major, minor)
		if err != nil {
			continue // going away this moment
		}
		if d.WholeDisk != "" && !hasID(d.IDs, "partuuid:") && hasID(ids, "partuuid:") {
			if id := probedPartUUID(f.devicePath(name)); id != "" {
				d.IDs = append(d.IDs, "partuuid:"+id)
			}
		}
		if carries(d, ids) {
			found = append(found, d)
		}
	}
	if len(found) == 0 {
		return Device{}, ErrNoDevice
	}
	// What lies below another one that was found is only a path to it.
	top := slices.DeleteFunc(slices.Clone(found), func(d Device) bool {
		return slices.ContainsFunc(found, func(o Device) bool { return slices.Contains(o.slaveList, d.Name) })
	})
	if len(top) > 1 && hinted != "" {
		if at := slices.IndexFunc(top, func(d Device) bool { return d.Name == hinted }); at >= 0 {
			top = top[at : at+1]
		}
	}
	if len(top) != 1 {
		var list []string
		for _, d := range top {
			list = append(list, d.Name)
		}
		return Device{}, fmt.Errorf("%w: %s", ErrAmbiguous, strings.Join(list, ", "))
	}
	return sized(top[0], bytes)
}

func sized(d Device, bytes int64) (Device, error) {
	if bytes != 0 && d.Bytes != bytes {
		return Device{}, fmt.Errorf("%s has %d bytes, not %d: %w", d.Name, d.Bytes, bytes, ErrWrongSize)
	}
	return d, nil
}

func carries(d Device, ids []string) bool {
	return slices.ContainsFunc(d.IDs, func(id string) bool { return slices.Contains(ids, id) })
}
