package preflight

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// journalPerObject is the disk space that the journal takes for an object, bytes
// (measured: 110 to 140 at 1,000,000 objects), and what its log and tables need in any case.
const (
	journalPerObject = 400
	journalBase      = 128 << 20
)

// remoteTypes are file systems of other machines, and those that a process serves.
var remoteTypes = map[int64]bool{unix.NFS_SUPER_MAGIC: true, unix.FUSE_SUPER_MAGIC: true, unix.CIFS_SUPER_MAGIC: true,
	unix.SMB_SUPER_MAGIC: true, unix.SMB2_SUPER_MAGIC: true, unix.CEPH_SUPER_MAGIC: true, unix.AFS_SUPER_MAGIC: true,
	unix.V9FS_MAGIC: true}

// checkState looks at the state directory: local, persistent, ours, with room, on neither volume.
func checkState(_ context.Context, l *list, t *target, o *Options) error {
	dir := existing(o.State)
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return fmt.Errorf("look at %s: %w", dir, err)
	}
	const name, need = "state-directory", "a local, persistent directory of root's, on neither volume"
	below := strings.HasPrefix(o.State+"/", strings.TrimSuffix(t.mount.Point, "/")+"/")
	kind := int64(st.Type)
	switch {
	case onVolume(o.State, t.mount.Dev):
		l.refuse(name, catState, o.State+" is on the source", need, "use --state with a directory on another volume")
	case below:
		l.refuse(name, catState, o.State+" is below the source's mount point", need, "use --state with a directory elsewhere: it must be there before the volume is mounted")
	case t.spare.Path != "" && onVolume(o.State, t.spare.Number()):
		l.refuse(name, catState, o.State+" is on the spare, which will be overwritten", need, "use --state with a directory on another volume")
	case kind == unix.TMPFS_MAGIC || kind == unix.RAMFS_MAGIC:
		l.refuse(name, catState, o.State+" is in memory", need, "use --state with a directory on a disk: after a reboot it says who is the truth")
	case remoteTypes[kind]:
		l.refuse(name, catState, o.State+" is remote, or served by a process", need, "use --state with a directory on a local disk")
	default: // only now: trying writes
		switch err := usable(dir); {
		case err != nil:
			l.refuse(name, catState, err.Error(), need, "mend that, or use --state with another directory")
		case kind == unix.OVERLAYFS_SUPER_MAGIC:
			l.warn(name, catState, o.State+" is on an overlay, as in a container", need, "make sure that it is there after a reboot, before the volume is mounted")
		default:
			l.ok(name, catState, o.State, need)
		}
	}
	want := int64(journalBase)
	if t.census != nil {
		want += t.census.stats.Objects() * journalPerObject
	}
	if free := int64(st.Bavail) * st.Bsize; free < want {
		l.refuse("journal-space", catState, bytes(free)+" free in "+dir, bytes(want), "free space there, or use --state")
	} else {
		l.ok("journal-space", catState, bytes(free)+" free", bytes(want))
	}
	return nil
}

// usable tries what the state directory is for: only root's to write, and a
// file in it can be written, locked and synced.
func usable(dir string) error {
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return fmt.Errorf("look at %s: %w", dir, err)
	}
	switch {
	case st.Uid != 0 && int(st.Uid) != os.Geteuid():
		return fmt.Errorf("%s belongs to user %d", dir, st.Uid)
	case st.Mode&0o022 != 0 && st.Mode&unix.S_ISVTX == 0:
		return fmt.Errorf("%s can be written by others (mode %o)", dir, st.Mode&0o7777)
	}
	f, err := os.CreateTemp(dir, ".fsmigrate-try-*")
	if err != nil {
		return fmt.Errorf("write in %s: %w", dir, err)
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return fmt.Errorf("lock a file in %s: %w", dir, err)
	}
	if _, err := f.Write(make([]byte, 4096)); err != nil {
		return fmt.Errorf("write in %s: %w", dir, err)
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("sync a file in %s: %w", dir, err)
	}
	return nil
}

// existing is dir, or its nearest parent that exists.
func existing(dir string) string {
	for {
		if _, err := os.Stat(dir); err == nil || dir == "/" || dir == "." {
			return dir
		}
		dir = filepath.Dir(dir)
	}
}
