package shadow

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fsmigrate/fsmigrate/migrate"
)

// dieAt makes the process die at the k-th step. The name of that step is in died.
func dieAt(p *Place, k int) (died *string) {
	died = new(string)
	p.step = func(name string) error {
		if *died != "" {
			return errPlaceDied
		}
		if k--; k < 0 {
			*died = name
			return errPlaceDied
		}
		return nil
	}
	return died
}

// cutover is what the engine does, with the record between SwapIn and Settle. Without
// the record it ends there.
func cutover(p *Place, from migrate.Side, record bool) error {
	ctx := context.Background()
	if err := p.Fence(ctx, from); err != nil {
		return err
	}
	if err := p.SwapIn(ctx, from.Other()); err != nil || !record {
		return err
	}
	return p.Settle(ctx, from.Other())
}

// Die at every step of a cutover; whoever comes next settles on either side.
func TestPlaceDieAtEveryStep(t *testing.T) {
	for _, v := range []struct {
		name      string
		private   bool
		noBeneath bool
		pair      rigOptions
	}{
		{"shared", false, false, rigOptions{from: "ext4", to: "xfs"}},
		{"private", true, false, rigOptions{from: "xfs", to: "ext4"}},
		{"shared without beneath", false, true, rigOptions{from: "ext4", to: "btrfs"}},
		{"private without beneath", true, true, rigOptions{from: "ext4", to: "xfs"}},
	} {
		t.Run(v.name, func(t *testing.T) {
			v.pair.private = v.private
			r := newPlaceRig(t, v.pair)
			must(t, r.prepared().Close())
			if !v.private {
				r.follower = newTenant(t, "slave")
			}
			seen := map[string]bool{}
			for _, truth := range []migrate.Side{migrate.Source, migrate.Shadow} {
				for k, done := 0, false; !done; k++ {
					done = r.dieAndSettle(k, truth, v.noBeneath, seen)
				}
			}
			for _, step := range []string{"fence-superblock", "fence-seal", "seal", "swap-attach", "swap-submounts", "settle-detach", "settle-writable", "settle-mount", "settle-followers"} {
				if !seen[step] {
					t.Errorf("never died at %s", step)
				}
			}
		})
	}
}

// dieAndSettle cuts over to the shadow and dies at step k, settles on truth, and
// goes back to where it began. It reports whether the cutover got through.
func (r *placeRig) dieAndSettle(k int, truth migrate.Side, noBeneath bool, seen map[string]bool) bool {
	t := r.t
	t.Helper()
	p := r.reopened(migrate.Source)
	p.noBeneath = noBeneath
	died := dieAt(p, k)
	err := cutover(p, migrate.Source, truth == migrate.Shadow)
	must(t, p.Close())
	if err != nil && !errors.Is(err, errPlaceDied) {
		var busy *migrate.Busy
		if errors.As(err, &busy) { // another test's mount namespace: the same step again
			t.Logf("step %d: %+v", k, busy.Holders)
		}
		t.Fatalf("cutover: %v", err)
	}
	seen[*died] = true
	ended := err == nil
	// The recovery dies too, at each of its steps, before it gets through.
	r.context = fmt.Sprintf("died at %q", *died)
	for j := 0; ; j++ {
		if k%3 != 0 {
			j = 1000 // two deaths in a row from every third step on: all pairs take minutes
		}
		p := r.open()
		p.noBeneath = noBeneath
		again := dieAt(p, j)
		err := p.Settle(context.Background(), truth)
		must(t, p.Close())
		if err == nil {
			break
		}
		if !errors.Is(err, errPlaceDied) {
			t.Fatalf("%s, then settle on the %s: %v", r.context, truth, err)
		}
		seen[*again] = true
		r.context += fmt.Sprintf(", %q", *again)
	}
	r.settled(truth)
	if r.follower != nil {
		r.follower.do("read", filepath.Join(r.o.Dir, "who"), string(truth))
		r.follower.do("write", filepath.Join(r.o.Dir, "follower"))
	}
	if truth == migrate.Shadow {
		r.goBack(noBeneath)
	}
	return ended
}

func (r *placeRig) goBack(noBeneath bool) bool {
	r.t.Helper()
	p := r.reopened(migrate.Shadow)
	p.noBeneath = noBeneath
	must(r.t, cutover(p, migrate.Shadow, true))
	r.settled(migrate.Source)
	must(r.t, p.Close())
	return true
}

// reopened is a new process with its private mounts, while truth is in place.
func (r *placeRig) reopened(truth migrate.Side) *Place {
	r.t.Helper()
	p := r.open()
	_, err := p.Open(context.Background(), truth, false)
	must(r.t, err)
	_, err = p.Open(context.Background(), truth.Other(), true)
	must(r.t, err)
	return p
}

// A reader and a shell in the volume keep what they have when a cutover is undone by
// the process that began it.
func TestPlaceUndoKeepsHolders(t *testing.T) {
	for _, private := range []bool{false, true} {
		t.Run(fmt.Sprintf("private=%v", private), func(t *testing.T) {
			r := newPlaceRig(t, rigOptions{from: "ext4", to: "xfs", private: private})
			ctx := context.Background()
			p := r.prepared()
			shell := newTenant(t, "")
			shell.do("cd", filepath.Join(r.o.Dir, "sub"))
			slave := newTenant(t, "slave")
			before := r.topmost().ID
			for range 3 {
				if private {
					slave.end() // its copy is not reached by any swap
				}
				r.fence(p, migrate.Source)
				must(t, p.SwapIn(ctx, migrate.Shadow))
				must(t, p.Settle(ctx, migrate.Source))
				r.settled(migrate.Source)
				shell.do("write", "here")
				shell.do("read", "deep/in-submount", "x")
				if !private {
					slave.do("read", filepath.Join(r.o.Dir, "who"), "source")
					slave.do("write", filepath.Join(r.o.Dir, "slave"))
				}
			}
			if after := r.topmost().ID; after != before {
				t.Errorf("mount %d became %d", before, after)
			}
			if _, err := os.Stat(p.scratch()); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("the scratch place is left: %v", err)
			}
			must(t, p.Release(ctx, migrate.Shadow))
		})
	}
}

// At boot nothing is mounted at Dir, and only the record's side may be.
func TestPlaceBoot(t *testing.T) {
	r := newPlaceRig(t, rigOptions{from: "ext4", to: "xfs", noSub: true})
	ctx := context.Background()
	must(t, r.prepared().Close())
	for _, truth := range []migrate.Side{migrate.Source, migrate.Shadow} {
		r.sh("umount", r.o.Dir)
		must(t, Boot(ctx, r.o, "rw,"+r.o.MountOptions, func() (migrate.Side, error) { return truth, nil }))
		r.settledAlone(truth)
		// A second mount -a.
		must(t, Boot(ctx, r.o, "", func() (migrate.Side, error) { return truth, nil }))
		r.settledAlone(truth)
	}
	r.sh("umount", r.o.Dir)
	must(t, Boot(ctx, r.o, "ro,nodev", func() (migrate.Side, error) { return migrate.Shadow, nil }))
	if err := os.WriteFile(filepath.Join(r.o.Dir, "x"), nil, 0o600); !errors.Is(err, unix.EROFS) {
		t.Fatalf("a write to a volume mounted with -o ro: %v", err)
	}
	r.sh("umount", r.o.Dir)

	for _, unreadable := range []func() (migrate.Side, error){
		func() (migrate.Side, error) { return "", unix.EIO },
		func() (migrate.Side, error) { return "neither", nil },
		func() (migrate.Side, error) { return "", &migrate.Ambiguous{Exact: "two records"} },
	} {
		err := Boot(ctx, r.o, "", unreadable)
		var ambiguous *migrate.Ambiguous
		if !errors.As(err, &ambiguous) {
			t.Fatalf("boot with an unreadable record: %v", err)
		}
		if _, err := os.Stat(filepath.Join(r.o.Dir, "who")); !errors.Is(err, os.ErrNotExist) {
			t.Fatal("something was mounted although the record is ambiguous")
		}
	}

	// The old volume mounted natively past the record: sealed when nobody writes, refused when
	// somebody does.
	r.sh("mount", "-o", r.o.MountOptions, r.source, r.o.Dir)
	w := newTenant(t, "")
	w.do("open-write", filepath.Join(r.o.Dir, "file"))
	var busy *migrate.Busy
	if err := Boot(ctx, r.o, "", func() (migrate.Side, error) { return migrate.Shadow, nil }); !errors.As(err, &busy) {
		t.Fatalf("boot over a writer on the wrong volume: %v", err)
	}
	w.end()
	must(t, Boot(ctx, r.o, "", func() (migrate.Side, error) { return migrate.Shadow, nil }))
	r.settledAlone(migrate.Shadow)
}
