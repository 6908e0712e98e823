package formattest

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fsmigrate/fsmigrate/formats"
)

// Survey walks a tree the plain way and sums it up for Estimate.
func Survey(t testing.TB, dir string) formats.TreeStats {
	t.Helper()
	var s formats.TreeStats
	seen := map[uint64]bool{}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		if e.IsDir() {
			entries, err := os.ReadDir(path)
			if err != nil {
				return err
			}
			names := 0
			for _, x := range entries {
				names += len(x.Name())
			}
			s.ObserveDir(int64(len(entries)), int64(names))
		}
		s.MaxName = max(s.MaxName, len(filepath.Base(path)))
		if seen[st.Ino] {
			s.HardLinks++
			return nil
		}
		seen[st.Ino] = true
		o := formats.Sample{Mode: st.Mode, Size: st.Size, Allocated: st.Blocks * 512, Nlink: st.Nlink, UID: st.Uid, GID: st.Gid,
			Atime: st.Atim.Sec, Mtime: st.Mtim.Sec}
		if e.Type()&fs.ModeSymlink != 0 {
			o.Target = int(st.Size)
		}
		xattrs(path, &o)
		s.Observe(o)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func xattrs(path string, o *formats.Sample) {
	var list [65536]byte
	n, err := unix.Llistxattr(path, list[:])
	if err != nil {
		return
	}
	for start, i := 0, 0; i < n; i++ {
		if list[i] != 0 {
			continue
		}
		name := string(list[start:i])
		start = i + 1
		size, err := unix.Lgetxattr(path, name, nil)
		if err != nil {
			continue
		}
		o.Xattrs++
		o.XattrBytes += len(name) + size
		o.MaxXattrValue = max(o.MaxXattrValue, size)
	}
}
