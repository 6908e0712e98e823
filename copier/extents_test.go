package copier

import (
	"bytes"
	"context"
	"errors"
	"os"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

func unwritten(t testing.TB, fd int) (inside, beyond int64) {
	t.Helper()
	st, err := ReadStat(fd)
	if err != nil {
		t.Fatal(err)
	}
	if err := Extents(t.Context(), fd, func(e Extent) error {
		if e.Flags&ExtentUnwritten != 0 {
			in := max(0, min(e.Off+e.Len, st.Size)-e.Off)
			inside += in
			beyond += e.Len - in
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return inside, beyond
}

// Preallocation inside and beyond the size goes along, and its zeros stay zeros.
func TestPreallocate(t *testing.T) {
	for _, from := range formatsTested {
		src := testVolume(t, from)
		shell(t, src, `xfs_io -f -c 'pwrite -q 0 64k' -c 'falloc 1m 2m' -c 'falloc -k 8m 4m' -c 'pwrite -q 2m 64k' f; xfs_io -f -c 'pwrite -q 0 5000000' spec; sync -f .`)
		for _, to := range formatsTested {
			dst := testVolume(t, to)
			for _, name := range []string{"/f", "/spec"} {
				s, d := openFile(t, src+name, os.O_RDONLY), openFile(t, dst+name, os.O_RDWR|os.O_CREATE)
				a := attrOf(t, src+name)
				r, err := CopyData(t.Context(), s, d, a.Size, CopyOptions{Fresh: true, Sparse: true, Prealloc: true})
				if err != nil {
					t.Fatal(err)
				}
				if _, err := Preallocate(t.Context(), int(s.Fd()), int(d.Fd())); err != nil {
					t.Fatal(err)
				}
				if err := d.Sync(); err != nil {
					t.Fatal(err)
				}
				in, out := unwritten(t, int(s.Fd()))
				gotIn, gotOut := unwritten(t, int(d.Fd()))
				if name == "/spec" {
					if gotOut > 0 && to != "xfs" {
						t.Errorf("%s to %s: speculation of xfs was carried: %d bytes", from, to, gotOut)
					}
				} else if in == 0 || out == 0 || gotIn != in || gotOut != out {
					t.Errorf("%s to %s: %d and %d bytes became %d and %d", from, to, in, out, gotIn, gotOut)
				}
				if b := attrOf(t, dst+name); b.Size != a.Size {
					t.Errorf("%s to %s: size %d became %d", from, to, a.Size, b.Size)
				}
				if !bytes.Equal(readBack(t, src+name), readBack(t, dst+name)) {
					t.Errorf("%s to %s: content differs", from, to)
				}
				if dg, err := Digest(t.Context(), d, a.Size, DigestOptions{Sparse: true}); err != nil || dg != r.Digest {
					t.Errorf("%s to %s: digest differs: %v", from, to, err)
				}
			}
		}
	}
}

func TestExtentsMany(t *testing.T) {
	dir := testVolume(t, "xfs")
	f := openFile(t, dir+"/f", os.O_RDWR|os.O_CREATE)
	for i := range int64(3 * extentsBatch) {
		if _, err := f.WriteAt([]byte("x"), i*8192); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	n, last := 0, int64(-1)
	if err := Extents(t.Context(), int(f.Fd()), func(e Extent) error {
		if e.Off <= last {
			t.Errorf("extent at %d after %d", e.Off, last)
		}
		n, last = n+1, e.Off
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if n < 3*extentsBatch {
		t.Errorf("%d extents", n)
	}
	stop := errors.New("stop")
	if err := Extents(t.Context(), int(f.Fd()), func(Extent) error { return stop }); err != stop {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Extents(ctx, int(f.Fd()), nil); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// memIndex is the simplest index: a list.
type memIndex struct {
	mu   sync.Mutex
	all  []SharedExtent
	path string // of the file being copied
}

func (m *memIndex) Lookup(phys uint64, n int64) (SharedExtent, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var best SharedExtent
	found := false
	for _, e := range m.all {
		if e.Phys < phys+uint64(n) && phys < e.Phys+uint64(e.Len) && (!found || e.Phys < best.Phys) {
			best, found = e, true
		}
	}
	return best, found
}

func (m *memIndex) Record(phys uint64, n int64, off int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	path := m.path
	m.all = append(m.all, SharedExtent{Phys: phys, Len: n, Off: off, Open: func() (int, error) {
		return unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	}})
	return nil
}

func usedBytes(t testing.TB, dir string) int64 {
	t.Helper()
	shell(t, dir, "sync -f .")
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		t.Fatal(err)
	}
	return int64(fs.Blocks-fs.Bfree) * fs.Bsize
}

// What shares blocks on the source shares them on the target: whole copies, a
// copy of a part at another offset, and one that was changed in the middle.
func TestShareExtents(t *testing.T) {
	for _, p := range [][2]string{{"xfs", "xfs"}, {"xfs", "btrfs"}, {"btrfs", "xfs"}, {"btrfs", "btrfs"}} {
		t.Run(p[0]+"-"+p[1], func(t *testing.T) {
			src, dst := testVolume(t, p[0]), testVolume(t, p[1])
			writeFile(t, src+"/a", randomBytes(1, 24<<20+100))
			writeFile(t, src+"/alone", randomBytes(2, 1<<20))
			shell(t, src, `sync -f .; cp --reflink=always a b; cp --reflink=always a c; xfs_io -c 'pwrite -q 5m 64k' c
xfs_io -f -c 'reflink a 2m 1m 4m' part; sync -f .`)
			index := &memIndex{}
			var shared int64
			for _, name := range []string{"/a", "/alone", "/b", "/c", "/part"} {
				index.path = dst + name
				s, d := openFile(t, src+name, os.O_RDONLY), openFile(t, dst+name, os.O_RDWR|os.O_CREATE)
				size := attrOf(t, src+name).Size
				if _, err := CopyData(t.Context(), s, d, size, CopyOptions{Fresh: true, Sparse: true}); err != nil {
					t.Fatal(err)
				}
				if err := d.Sync(); err != nil {
					t.Fatal(err)
				}
				n, err := ShareExtents(t.Context(), int(s.Fd()), int(d.Fd()), index)
				if err != nil {
					t.Fatal(err)
				}
				shared += n
			}
			for _, name := range []string{"/a", "/alone", "/b", "/c", "/part"} {
				if !bytes.Equal(readBack(t, src+name), readBack(t, dst+name)) {
					t.Errorf("%s differs", name)
				}
			}
			if want := int64(24+23+4) << 20; shared < want {
				t.Errorf("shared %d bytes of about %d", shared, want)
			}
			if a, b := usedBytes(t, src), usedBytes(t, dst); b > 100<<20 && p[0] == p[1] || b-a > 80<<20 {
				t.Errorf("the target uses %d bytes, the source %d", b, a)
			}
			n, _, err := mapExtents(t.Context(), int(openFile(t, dst+"/b", os.O_RDONLY).Fd()))
			if err != nil || n < 24<<20 {
				t.Errorf("the kernel says %d bytes of b are shared: %v", n, err)
			}
			if out := shell(t, dst, "filefrag -v b"); !bytes.Contains([]byte(out), []byte("shared")) {
				t.Errorf("filefrag says %s", out)
			}
		})
	}
}

// A lying index shares nothing that differs, and a target that cannot share says so.
func TestShareExtentsNeverTrustsTheIndex(t *testing.T) {
	src, dst := testVolume(t, "xfs"), testVolume(t, "xfs")
	writeFile(t, src+"/a", randomBytes(1, 1<<20))
	shell(t, src, "cp --reflink=always a b; sync -f .")
	writeFile(t, dst+"/other", randomBytes(9, 1<<20))
	writeFile(t, dst+"/b", readBack(t, src+"/b"))
	shell(t, dst, "sync -f .")
	lie := &memIndex{path: dst + "/other"}
	if err := lie.Record(0, 1<<62, 0); err != nil {
		t.Fatal(err)
	}
	s, d := openFile(t, src+"/b", os.O_RDONLY), openFile(t, dst+"/b", os.O_RDWR)
	var phys uint64
	if err := Extents(t.Context(), int(s.Fd()), func(e Extent) error { phys = e.Phys; return nil }); err != nil {
		t.Fatal(err)
	}
	lie.all = nil
	if err := lie.Record(phys, 1<<20, 0); err != nil {
		t.Fatal(err)
	}
	n, err := ShareExtents(t.Context(), int(s.Fd()), int(d.Fd()), lie)
	if err != nil || n != 0 || !bytes.Equal(readBack(t, dst+"/b"), readBack(t, src+"/b")) {
		t.Errorf("shared %d: %v", n, err)
	}
	ext := testVolume(t, "ext4")
	writeFile(t, ext+"/b", readBack(t, src+"/b"))
	lie.all, lie.path = nil, ext+"/b"
	if err := lie.Record(phys, 1<<20, 0); err != nil {
		t.Fatal(err)
	}
	writeFile(t, ext+"/c", readBack(t, src+"/b"))
	e := openFile(t, ext+"/c", os.O_RDWR)
	if _, err := ShareExtents(t.Context(), int(s.Fd()), int(e.Fd()), lie); !errors.Is(err, ErrNoShare) {
		t.Errorf("ext4 shares: %v", err)
	}
}
