package copier

import (
	"fmt"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// resident is how many pages of a file's first size bytes are in memory, or being read into it.
func resident(t *testing.T, fd, size int) int {
	t.Helper()
	var st unix.Cachestat_t
	if err := unix.Cachestat(uint(fd), &unix.CachestatRange{Len: uint64(size)}, &st, 0); err != nil {
		t.Fatal("cachestat:", err)
	}
	return int(st.Cache)
}

// All files are under way when Start returns, and what is odd among them hinders none.
func TestAhead(t *testing.T) {
	for _, format := range []string{"ext4", "xfs", "btrfs"} {
		t.Run(format, func(t *testing.T) {
			dir := testVolume(t, format)
			root := openDir(t, dir)
			const size = 9000
			odd := []int{-1, root, 1 << 20} // none, a directory, and a descriptor that nobody has
			var files []int
			for i := range AheadFiles - len(odd) {
				path := filepath.Join(dir, fmt.Sprint(i))
				writeFile(t, path, make([]byte, size))
				fd, err := OpenBeneath(root, fmt.Sprint(i), unix.O_RDONLY|unix.O_NOATIME, 0)
				if err != nil {
					t.Fatal(err)
				}
				defer unix.Close(fd)
				files = append(files, fd)
			}
			if err := unix.Syncfs(root); err != nil {
				t.Fatal(err)
			}
			for _, fd := range files {
				if err := unix.Fadvise(fd, 0, 0, unix.FADV_DONTNEED); err != nil {
					t.Fatal(err)
				}
				if resident(t, fd, size) > 0 {
					t.Fatal("a file is in memory from the beginning: this proves nothing")
				}
			}
			a, err := NewAhead()
			if err != nil {
				t.Fatal(err)
			}
			defer a.Close()
			a.Start(append(odd, files...))
			for i, fd := range files {
				if resident(t, fd, size) == 0 {
					t.Fatalf("file %d is not being read", i)
				}
			}
			a.Start(append(odd, files...)) // a second time it is all there, or under way
			buf := make([]byte, size)
			for _, fd := range files {
				if n, err := preadFull(fd, buf, 0); n != size || err != nil {
					t.Fatal(n, err)
				}
			}
		})
	}
}
