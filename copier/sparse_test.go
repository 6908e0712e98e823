package copier

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fsmigrate/fsmigrate/blockdev/blocktest"
)

// Many small holes stay holes on xfs, which allocates ahead of writes that extend a
// file: a copy took twice the space.
func TestSmallHolesOnXFS(t *testing.T) {
	dir, _ := blocktest.NewVolume(t, "xfs", 320<<20)
	src, err := os.Create(filepath.Join(t.TempDir(), "src"))
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	const n = 2000
	for i := range int64(n) {
		if _, err := src.WriteAt([]byte("block"), i*8192); err != nil {
			t.Fatal(err)
		}
	}
	if err := src.Sync(); err != nil {
		t.Fatal(err)
	}
	dst, err := os.Create(filepath.Join(dir, "dst"))
	if err != nil {
		t.Fatal(err)
	}
	defer dst.Close()
	if _, err := CopyFd(t.Context(), int(src.Fd()), int(dst.Fd()), (n-1)*8192+5, CopyOptions{Sparse: true, Fresh: true, Buffers: NewBuffers()}); err != nil {
		t.Fatal(err)
	}
	if err := dst.Sync(); err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(dst.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	if data := int64(n * 8); st.Blocks > data*5/4 {
		t.Errorf("%d blocks for %d of data", st.Blocks, data)
	}
}
