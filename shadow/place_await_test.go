package shadow

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/fsmigrate/fsmigrate/blockdev"
	"github.com/fsmigrate/fsmigrate/migrate"
)

// A boot mounts what fstab says while disks are still being found and volumes put together:
// in a machine whose volumes were on LVM, md and LUKS it was too early, and
// mounted nothing. It waits for the truth's device, and not for ever.
func TestBootAwaitsTheDevice(t *testing.T) {
	r := newPlaceRig(t, rigOptions{from: "ext4", to: "xfs", noSub: true})
	ctx := context.Background()
	r.sh("umount", r.o.Dir)
	base := filepath.Dir(r.o.StateDir)
	late := filepath.Join(base, "late.img") // the same file under a name that has no loop yet
	must(t, os.Link(filepath.Join(base, "source.img"), late))
	r.o.Source.Path, r.o.Source.IDs = "/dev/not-there", []string{"loopfile:" + late}
	source := func() (migrate.Side, error) { return migrate.Source, nil }

	r.o.Patience = 2 * awaitEvery
	if err := Boot(ctx, r.o, "", source); !errors.Is(err, blockdev.ErrNoDevice) {
		t.Fatalf("boot without the device: %v", err)
	}
	stopped, cancel := context.WithCancelCause(ctx)
	time.AfterFunc(awaitEvery, func() { cancel(os.ErrClosed) })
	r.o.Patience = time.Hour
	if err := Boot(stopped, r.o, "", source); !errors.Is(err, os.ErrClosed) {
		t.Fatalf("boot that was stopped while it waited: %v", err)
	}

	appeared := make(chan *blockdev.Loop, 1)
	time.AfterFunc(2*awaitEvery, func() {
		l, err := blockdev.AttachLoop(late, blockdev.LoopOptions{})
		if err != nil {
			t.Error(err)
		}
		appeared <- l
	})
	r.o.Patience = time.Minute
	err := Boot(ctx, r.o, "", source)
	l := <-appeared
	if l == nil {
		return
	}
	t.Cleanup(func() {
		r.unmountAll()
		r.soon("the loop of "+late+" cannot be detached", func() bool { return l.Detach() == nil })
	})
	must(t, err)
	if b, err := os.ReadFile(filepath.Join(r.o.Dir, "who")); err != nil || string(b) != "source" {
		t.Fatalf("in place after the device appeared: %q, %v", b, err)
	}
}
