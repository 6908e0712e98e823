// Package blockdev is the edge to the kernel's storage: block devices and the
// stack below them, loop devices, mounts held by descriptor, who keeps a volume
// busy, and in-memory devices that lose or refuse writes for tests. It knows
// nothing of files, formats or migrations, and it decides nothing.
//
// Mounts are handled through descriptors only (fsopen, open_tree, move_mount,
// mount_setattr, fspick). mount(2) with MS_REMOUNT is never used: it drops
// nosuid, nodev and noexec from the mount that it names.
//
// What it keeps for the engine:
//
//   - I7: nothing here opens a device for writing but OpenExclusive, Loop and
//     the superblock and mount flags that the caller asked for by name.
//   - I8: unreadable evidence is an error, never an empty answer. Processes that
//     end during a walk of /proc are no error.
//   - I10: MountsOf, DetachedMountsOf, Seal, FileHolders, DeviceHolders and
//     OpenExclusive are together the proof that nobody but the caller can write
//     a volume.
//
// A superblock is named by the major:minor that mountinfo shows for its mounts
// (MountDev). For btrfs that isn't the st_dev of its files, of which every
// subvolume has its own.
package blockdev
