package formattest

import (
	"encoding/binary"
	"fmt"
	"io/fs"
	"path/filepath"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/fsmigrate/fsmigrate/formats"
)

// Handle types (linux/exportfs.h and the file systems' own).
const (
	fileidIno32Gen = 1
	fileidIno64Gen = 0x81
	fileidBtrfs    = 0x4d
)

// Record asks the kernel for what a scan should say: statx and the file handle.
func Record(dirfd int, path string, flags int) (formats.InodeRecord, error) {
	var st unix.Statx_t
	if err := unix.Statx(dirfd, path, flags|unix.AT_SYMLINK_NOFOLLOW|unix.AT_STATX_FORCE_SYNC, unix.STATX_BASIC_STATS, &st); err != nil {
		return formats.InodeRecord{}, fmt.Errorf("statx %s: %w", path, err)
	}
	h, _, err := unix.NameToHandleAt(dirfd, path, flags)
	if err != nil {
		return formats.InodeRecord{}, fmt.Errorf("name_to_handle_at %s: %w", path, err)
	}
	ino, gen, err := node(h)
	if err != nil {
		return formats.InodeRecord{}, err
	}
	if ino != st.Ino {
		return formats.InodeRecord{}, fmt.Errorf("handle of %s names inode %d, statx %d", path, ino, st.Ino)
	}
	return formats.InodeRecord{
		Ino: st.Ino, Size: st.Size, Gen: gen, Mode: uint32(st.Mode), Nlink: st.Nlink, UID: st.Uid, GID: st.Gid,
		CtimeSec: st.Ctime.Sec, CtimeNsec: st.Ctime.Nsec, MtimeSec: st.Mtime.Sec, MtimeNsec: st.Mtime.Nsec,
	}, nil
}

func node(h unix.FileHandle) (ino uint64, gen uint32, err error) {
	b := h.Bytes()
	switch {
	case h.Type() == fileidIno32Gen && len(b) >= 8:
		return uint64(binary.LittleEndian.Uint32(b)), binary.LittleEndian.Uint32(b[4:]), nil
	case h.Type() == fileidIno64Gen && len(b) >= 12:
		return binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint32(b[8:]), nil
	case h.Type() == fileidBtrfs && len(b) >= 20:
		return binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint32(b[16:]), nil
	}
	return 0, 0, fmt.Errorf("file handle of unknown type %#x", h.Type())
}

// Version is FS_IOC_GETVERSION, an independent word on the generation.
func Version(path string) (uint32, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	var gen int64
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), 0x80087601, uintptr(unsafe.Pointer(&gen))); errno != 0 {
		return 0, errno
	}
	return uint32(gen), nil
}

// Truth walks a mounted volume and returns the record of each inode by number.
func Truth(t testing.TB, dir string) map[uint64]formats.InodeRecord {
	t.Helper()
	out := map[uint64]formats.InodeRecord{}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rec, err := Record(unix.AT_FDCWD, path, 0)
		if err != nil {
			return err
		}
		if e.IsDir() || e.Type().IsRegular() {
			gen, err := Version(path)
			if err != nil {
				return fmt.Errorf("FS_IOC_GETVERSION %s: %w", path, err)
			}
			if gen != rec.Gen {
				return fmt.Errorf("%s: generation %d by handle, %d by ioctl", path, rec.Gen, gen)
			}
		}
		out[rec.Ino] = rec
		return nil
	})
	if err != nil {
		t.Fatalf("walk %s: %v", dir, err)
	}
	return out
}

// CompareScan scans v and demands exactly the records of want, each equal in
// every field.
func CompareScan(t testing.TB, v *Volume, want map[uint64]formats.InodeRecord) formats.ScanInfo {
	t.Helper()
	fd := v.Open()
	defer unix.Close(fd)
	seen := map[uint64]bool{}
	info, err := v.Format.Scan(t.Context(), formats.ScanTarget{Device: v.Device, MountFD: fd}, 0, func(got formats.InodeRecord) error {
		if seen[got.Ino] {
			t.Errorf("inode %d came twice", got.Ino)
		}
		seen[got.Ino] = true
		w, ok := want[got.Ino]
		switch {
		case !ok:
			t.Errorf("inode %d is not in the tree: %+v", got.Ino, got)
		case got != w:
			t.Errorf("inode %d:\n got %+v\nwant %+v", got.Ino, got, w)
		}
		return nil
	})
	if err != nil {
		t.Fatalf("scan: %v", err)
	}
	for ino, w := range want {
		if !seen[ino] {
			t.Errorf("inode %d was not found: %+v", ino, w)
		}
	}
	if info.Inodes != int64(len(seen)) || info.Kind == "" {
		t.Errorf("info %+v of %d inodes", info, len(seen))
	}
	return info
}
