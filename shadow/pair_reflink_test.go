package shadow

import (
	"context"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fsmigrate/fsmigrate/copier"
)

// Files that share extents share them on the other side too, and the space with it.
func TestPairKeepsReflinks(t *testing.T) {
	for _, c := range [][2]string{{"xfs", "btrfs"}, {"btrfs", "xfs"}} {
		t.Run(c[0]+"-"+c[1], func(t *testing.T) {
			r := newSyncRig(t, c[0], c[1])
			r.sh("head -c 8M /dev/urandom > a; for i in 1 2 3 4; do cp --reflink=always a clone$i; done; head -c 64K /dev/urandom | dd of=clone2 bs=64K seek=5 conv=notrunc status=none; sync .")
			must(t, r.p.walk(context.Background()))
			r.settle()
			r.equal()
			for _, name := range []string{"a", "clone1", "clone2"} {
				fd, err := unix.Open(filepath.Join(r.dst, name), unix.O_RDONLY, 0)
				must(t, err)
				var shared, own int64
				must(t, copier.Extents(context.Background(), fd, func(e copier.Extent) error {
					if e.Flags&copier.ExtentShared != 0 {
						shared += e.Len
					} else {
						own += e.Len
					}
					return nil
				}))
				unix.Close(fd)
				if shared < 7<<20 {
					t.Errorf("%s shares %d bytes and has %d of its own", name, shared, own)
				}
			}
		})
	}
}
