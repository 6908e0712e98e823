package shadow

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/fsmigrate/fsmigrate/blockdev"
	"github.com/fsmigrate/fsmigrate/migrate"
)

func probed(t *testing.T, device, what string) string {
	t.Helper()
	out, err := exec.Command("blkid", "-p", "-o", "value", "-s", what, device).Output()
	must(t, err)
	return strings.TrimSpace(string(out))
}

// The spare is made once, kept when it is ours, and never overwritten unasked.
func TestPlaceMake(t *testing.T) {
	r := newPlaceRig(t, rigOptions{from: "ext4", to: "xfs", noSub: true})
	ctx := context.Background()

	// Somebody else's volume.
	r.sh("mkfs.ext4", "-q", "-F", "-L", "precious", r.spare)
	p := r.open()
	var problem *migrate.Problem
	if err := p.Make(ctx); !errors.As(err, &problem) || problem.Kind != migrate.IsRefused || !strings.Contains(problem.What, "precious") {
		t.Fatalf("make over a foreign volume: %v", err)
	}
	if got := probed(t, r.spare, "LABEL"); got != "precious" {
		t.Fatalf("the foreign volume is now %q", got)
	}
	must(t, p.Close())

	// Allowed, and killed before and after mkfs.
	r.o.Wipe = true
	for k := range 2 {
		p := r.open()
		dieAt(p, k)
		if err := p.Make(ctx); !errors.Is(err, errPlaceDied) {
			t.Fatal(err)
		}
		must(t, p.Close())
	}
	r.o.Wipe = false
	p = r.open()
	must(t, p.Make(ctx))
	uuid := probed(t, r.spare, "UUID")
	if got := probed(t, r.spare, "LABEL"); got != "fsm-rig" {
		t.Fatalf("label %q", got)
	}
	rec, err := p.loadRecord()
	must(t, err)
	if rec.UUID != uuid || !rec.Made {
		t.Fatalf("record %+v, volume %s", rec, uuid)
	}

	// What is there stays.
	tree, err := p.Open(ctx, migrate.Shadow, true)
	must(t, err)
	must(t, os.WriteFile(filepath.Join(tree.Path(), "kept"), nil, 0o600))
	must(t, p.Close())
	p = r.open()
	must(t, p.Make(ctx))
	tree, err = p.Open(ctx, migrate.Shadow, true)
	must(t, err)
	if _, err := os.Stat(filepath.Join(tree.Path(), "kept")); err != nil {
		t.Fatalf("the shadow was made again: %v", err)
	}

	// The mark changes with the fence, and back; the plan's label comes at the end.
	if _, err := p.Open(ctx, migrate.Source, false); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		do   func()
		want string
	}{
		{func() { r.fence(p, migrate.Source) }, "fsm+rig"},
		{func() { must(t, p.Settle(ctx, migrate.Source)) }, "fsm-rig"},
		{func() {
			r.fence(p, migrate.Source)
			must(t, p.SwapIn(ctx, migrate.Shadow))
			must(t, p.Settle(ctx, migrate.Shadow))
		}, "fsm+rig"},
		{func() { must(t, p.Name(ctx)) }, "new"},
	} {
		c.do()
		must(t, blockdev.Syncfs(tree.Fd()))
		if got := probed(t, r.spare, "LABEL"); got != c.want {
			t.Fatalf("label %q, want %q", got, c.want)
		}
	}

	// The spare replaced by another volume is not mounted.
	must(t, p.Release(ctx, migrate.Source))
	must(t, p.Close())
	r.sh("umount", r.o.Dir)
	r.soon("the spare stays in use", func() bool {
		f, err := blockdev.OpenExclusive(r.spare)
		if err == nil {
			f.Close()
		}
		return err == nil
	})
	r.sh("mkfs.xfs", "-q", "-f", r.spare)
	p = r.open()
	if err := p.Settle(ctx, migrate.Shadow); err == nil || !strings.Contains(err.Error(), uuid) {
		t.Fatalf("mounted another volume for the shadow: %v", err)
	}
}

// A spare that is a file is created, looped, found again, and let go.
func TestPlaceSpareFile(t *testing.T) {
	r := newPlaceRig(t, rigOptions{from: "ext4", to: "ext4"})
	ctx := context.Background()
	file := filepath.Join(t.TempDir(), "spare.img")
	r.o.Spare = migrate.DeviceSpec{File: file, Size: 128 << 20, Bytes: 128 << 20}
	p := r.prepared()
	t.Cleanup(func() {
		if l, err := blockdev.LoopOf(file); err != nil || l != nil {
			t.Errorf("%v is left, %v", l, err)
		}
	})
	l, err := blockdev.LoopOf(file)
	must(t, err)
	r.spare = l.Path
	r.fence(p, migrate.Source)
	must(t, p.SwapIn(ctx, migrate.Shadow))
	must(t, p.Settle(ctx, migrate.Shadow))
	r.settled(migrate.Shadow)
	must(t, p.Close())

	// The next process finds the same loop; going back lets it go.
	p = r.reopened(migrate.Shadow)
	r.fence(p, migrate.Shadow)
	must(t, p.SwapIn(ctx, migrate.Source))
	must(t, p.Settle(ctx, migrate.Source))
	r.settled(migrate.Source)
	must(t, p.Release(ctx, migrate.Shadow))
}

// A spare file that somebody removed: its loop is let go of, and the room on the disk with it. Until
// then it is no spare any more, since no boot would find it.
func TestPlaceReleaseOfARemovedFile(t *testing.T) {
	r := newPlaceRig(t, rigOptions{from: "ext4", to: "ext4"})
	file := filepath.Join(t.TempDir(), "spare.img")
	r.o.Spare = migrate.DeviceSpec{File: file, Size: 128 << 20, Bytes: 128 << 20}
	must(t, r.prepared().Close())
	must(t, os.Remove(file))
	l, err := blockdev.LoopOfRemoved(file)
	if err != nil || l == nil {
		t.Fatalf("no loop keeps the file: %v", err)
	}
	t.Cleanup(func() { _ = l.Detach() }) // it is, unless the test fails
	p := r.open()
	if _, err := p.Open(context.Background(), migrate.Shadow, true); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it is opened: %v", err)
	}
	must(t, p.Release(context.Background(), migrate.Shadow))
	r.soon("the loop stays", func() bool {
		l, err := blockdev.LoopOfRemoved(file)
		return err == nil && l == nil
	})
}

// What was taken away is released: a migration whose spare is gone could never be aborted by a
// process that had not opened it before.
func TestPlaceReleaseOfWhatIsGone(t *testing.T) {
	r := newPlaceRig(t, rigOptions{from: "ext4", to: "ext4"})
	must(t, r.prepared().Close())
	image := filepath.Join(filepath.Dir(r.o.StateDir), "spare.img")
	must(t, os.Rename(image, image+".renamed"))
	p := r.open()
	if err := p.Release(context.Background(), migrate.Shadow); !errors.Is(err, blockdev.ErrNoDevice) {
		t.Errorf("what has another id, and is there, is released: %v", err)
	}
	must(t, p.Close())
	must(t, os.Rename(image+".renamed", image))
	r.sh("losetup", "-d", r.spare)
	p = r.open()
	var said []any
	p.o.Audit = func(event string, fields map[string]any) error {
		said = append(said, event, fields["gone"] != nil)
		return nil
	}
	must(t, p.Release(context.Background(), migrate.Shadow))
	if !slices.Equal(said, []any{"released", true}) {
		t.Errorf("the audit log says %v", said)
	}
	if _, err := p.Open(context.Background(), migrate.Shadow, true); !errors.Is(err, blockdev.ErrNoDevice) {
		t.Errorf("it is opened: %v", err)
	}
}

// --old keep: the old volume is never written after the fence.
func TestPlaceKeepOld(t *testing.T) {
	r := newPlaceRig(t, rigOptions{from: "ext4", to: "xfs"})
	ctx := context.Background()
	r.o.KeepOld = true
	p := r.prepared()
	r.fence(p, migrate.Source)
	must(t, p.SwapIn(ctx, migrate.Shadow))
	must(t, p.Settle(ctx, migrate.Shadow))
	must(t, p.SealOld(ctx, migrate.Source))
	if _, err := p.Open(ctx, migrate.Source, true); err == nil {
		t.Fatal("the old volume was opened for writing")
	}
	before, err := exec.Command("dumpe2fs", "-h", r.source).Output()
	must(t, err)
	must(t, p.Release(ctx, migrate.Source))
	after, err := exec.Command("dumpe2fs", "-h", r.source).Output()
	must(t, err)
	if string(before) != string(after) {
		t.Errorf("the old superblock changed:\n%s\n%s", before, after)
	}
	r.settled(migrate.Shadow)
}

// The volume's entry goes to the migration and comes back for whichever side it ends on.
func TestPlaceFstab(t *testing.T) {
	r := newPlaceRig(t, rigOptions{from: "ext4", to: "xfs", noSub: true})
	native := "LABEL=x " + r.o.Dir + " ext4 nosuid,data=ordered 0 2"
	r.o.Fstab = filepath.Join(t.TempDir(), "fstab")
	p := r.open()
	must(t, p.Make(context.Background()))
	uuid := probed(t, r.spare, "UUID")
	for truth, want := range map[migrate.Side]string{
		migrate.Source: native,
		migrate.Shadow: "UUID=" + uuid + " " + r.o.Dir + " xfs nosuid 0 0",
	} {
		must(t, os.WriteFile(r.o.Fstab, []byte(native+"\n"), 0o644))
		must(t, p.Enlist())
		if b, err := os.ReadFile(r.o.Fstab); err != nil || string(b) != "rig "+r.o.Dir+" fsmigrate nosuid,data=ordered 0 0\n" {
			t.Fatalf("%q, %v", b, err)
		}
		_, err := p.NativeEntry(truth, native)
		must(t, err)
		if b, err := os.ReadFile(r.o.Fstab); err != nil || string(b) != want+"\n" {
			t.Fatalf("%q, want %q, %v", b, want, err)
		}
	}
}
