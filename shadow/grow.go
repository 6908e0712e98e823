package shadow

import (
	"fmt"
	"os"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/fsmigrate/fsmigrate/blockdev"
	"github.com/fsmigrate/fsmigrate/formats"
	"github.com/fsmigrate/fsmigrate/migrate"
)

// The ioctls that resize2fs, xfs_growfs and btrfs use. These programs need a path at
// which the volume is mounted, and the shadow has none.
const (
	ext4IocResizeFS   = 0x40086610
	xfsIocGrowData    = 0x4010586e
	btrfsIocResize    = 0x50009403
	btrfsVolArgsBytes = 4096
)

// grow enlarges the shadow's file system to its device, after it was full: the
// operator may have enlarged the device meanwhile.
func (t *Tree) grow(p *pair) error {
	if p != t.there || !t.full.Load() {
		return nil
	}
	d, err := t.place.device(migrate.Shadow)
	if err == nil {
		d, err = blockdev.Identify(d.Path)
	}
	if err != nil {
		return err
	}
	v, err := probe(d.Path, p.to.format)
	if err != nil {
		return fmt.Errorf("read superblock of %s: %w", d.Path, err)
	}
	if d.Bytes-v.Bytes >= 16<<20 {
		if err := growFS(p.to.fd, v, d.Bytes); err != nil {
			return fmt.Errorf("grow %s on %s to %d bytes: %w", v.Format, d.Path, d.Bytes, err)
		}
		if err := t.o.Audit("spare-grown", map[string]any{"device": d.Path, "from": v.Bytes, "to": d.Bytes}); err != nil {
			return err
		}
	}
	t.full.Store(false)
	return nil
}

// growFS enlarges the mounted volume v to bytes.
func growFS(fd int, v formats.Volume, bytes int64) error {
	var request uintptr
	var arg unsafe.Pointer
	switch v.Format {
	case "ext4", "ext3", "ext2":
		blocks := uint64(bytes / v.BlockSize)
		request, arg = ext4IocResizeFS, unsafe.Pointer(&blocks)
	case "xfs":
		percent, err := strconv.ParseUint(v.Props["imaxpct"], 10, 32)
		if err != nil {
			return fmt.Errorf("imaxpct: %w", err)
		}
		data := struct {
			blocks  uint64
			imaxpct uint32
			_       uint32
		}{uint64(bytes / v.BlockSize), uint32(percent), 0}
		request, arg = xfsIocGrowData, unsafe.Pointer(&data)
	case "btrfs":
		var args [btrfsVolArgsBytes]byte
		copy(args[8:], "max")
		request, arg = btrfsIocResize, unsafe.Pointer(&args)
	default:
		return nil
	}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(arg)); errno != 0 {
		return os.NewSyscallError("ioctl", errno)
	}
	return nil
}
