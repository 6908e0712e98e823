package shadow

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fsmigrate/fsmigrate/migrate"
)

var placePairs = []rigOptions{
	{from: "ext4", to: "xfs"},
	{from: "xfs", to: "ext4"},
	{from: "ext4", to: "btrfs"},
	{from: "btrfs", to: "ext4", private: true},
}

// There and back again, with a write on each side that the other never sees.
func TestPlaceThereAndBack(t *testing.T) {
	for _, ro := range placePairs {
		t.Run(ro.from+"-"+ro.to, func(t *testing.T) {
			r := newPlaceRig(t, ro)
			ctx := context.Background()
			p := r.prepared()
			timed := func(name string, fn func() error) {
				t.Helper()
				begin := time.Now()
				if err := fn(); err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				t.Logf("%-28s %7.2f ms", name, float64(time.Since(begin).Microseconds())/1000)
			}
			timed("remount shadow", func() error { _, err := p.RemountOther(ctx, migrate.Shadow); return err })
			reader := newTenant(t, "")
			reader.do("open", filepath.Join(r.o.Dir, "file"))
			reader.do("map")
			stale := newTenant(t, "")
			stale.do("cd", filepath.Join(r.o.Dir, "sub"))

			timed("fence source", func() error { r.fence(p, migrate.Source); return nil })
			fenced := p.FencedAt()
			if fenced.IsZero() {
				t.Fatal("the time of the fence is not known")
			}
			if err := os.WriteFile(filepath.Join(r.o.Dir, "late"), nil, 0o600); !errors.Is(err, unix.EROFS) {
				t.Fatalf("a write behind the fence: %v", err)
			}
			if !slices.ContainsFunc(r.warns, func(w string) bool { return strings.Contains(w, fmt.Sprint(reader.pid())) }) {
				t.Fatalf("the reader was not told: %q", r.warns)
			}
			timed("swap in shadow", func() error { return p.SwapIn(ctx, migrate.Shadow) })
			if who, err := os.ReadFile(filepath.Join(r.o.Dir, "who")); err != nil || string(who) != "source" {
				t.Fatalf("before the record %s shows %q (%v)", r.o.Dir, who, err)
			}
			timed("settle on shadow", func() error { return p.Settle(ctx, migrate.Shadow) })
			t.Logf("%-28s %7.2f ms", "pause", float64(p.WritableAt().Sub(fenced).Microseconds())/1000)
			r.settled(migrate.Shadow)
			timed("seal source", func() error { return p.SealOld(ctx, migrate.Source) })
			timed("settle on shadow again", func() error { return p.Settle(ctx, migrate.Shadow) })
			r.settled(migrate.Shadow)

			// Reverse: our private mount writes, nobody else can.
			var root string
			timed("open source for writing", func() error {
				tree, err := p.Open(ctx, migrate.Source, true)
				if err == nil {
					root = fmt.Sprintf("/proc/self/fd/%d/", tree.Fd())
				}
				return err
			})
			must(t, os.WriteFile(root+"reversed", []byte("r"), 0o644))
			for _, road := range []struct {
				who *tenant
				req []string
			}{
				{stale, []string{"write", "here"}},
				{stale, []string{"write", "../file"}},
				{reader, []string{"reopen-write"}},
				{reader, []string{"chmod-fd"}},
			} {
				if err := road.who.try(road.req...); !errors.Is(err, unix.EROFS) {
					t.Fatalf("%v on the old volume: %v", road.req, err)
				}
			}
			stale.do("read", "../who", "source")
			reader.do("write", filepath.Join(r.o.Dir, "after"))
			r.settled(migrate.Shadow)
			if _, err := p.Open(ctx, migrate.Shadow, false); err != nil {
				t.Fatal(err)
			}
			r.settled(migrate.Shadow)

			// And back.
			must(t, os.WriteFile(root+"who", []byte("source"), 0o644))
			timed("fence shadow", func() error { r.fence(p, migrate.Shadow); return nil })
			timed("swap in source", func() error { return p.SwapIn(ctx, migrate.Source) })
			timed("settle on source", func() error { return p.Settle(ctx, migrate.Source) })
			r.settled(migrate.Source)
			if b, err := os.ReadFile(filepath.Join(r.o.Dir, "reversed")); err != nil || string(b) != "r" {
				t.Fatalf("what reverse wrote: %q, %v", b, err)
			}
			reader.end()
			timed("release shadow", func() error { return p.Release(ctx, migrate.Shadow) })
			r.settled(migrate.Source)
			stale.end()
		})
	}
}

// A writer keeps the truth from being fenced, by each of the roads that the
// kernel counts. It is named, and the truth stays as it was.
func TestPlaceBusyWriter(t *testing.T) {
	r := newPlaceRig(t, rigOptions{from: "ext4", to: "xfs"})
	ctx := context.Background()
	p := r.prepared()
	file := filepath.Join(r.o.Dir, "file")
	for _, road := range []struct {
		name     string
		hold     [][]string
		letGo    [][]string
		wantPath string
	}{
		{"descriptor", [][]string{{"open-write", file}}, [][]string{{"close"}}, file},
		{"mapping", [][]string{{"open-write", file}, {"map-write"}, {"close"}}, [][]string{{"unmap"}}, file},
		{"unlinked", [][]string{{"write", file + ".gone"}, {"open", file + ".gone"}, {"unlink", file + ".gone"}}, [][]string{{"close"}}, file + ".gone (deleted)"},
	} {
		t.Run(road.name, func(t *testing.T) {
			w := newTenant(t, "")
			for _, req := range road.hold {
				w.do(req...)
			}
			err := p.Fence(ctx, migrate.Source)
			var busy *migrate.Busy
			if !errors.As(err, &busy) {
				t.Fatalf("fence: %v", err)
			}
			if !slices.ContainsFunc(busy.Holders, func(h migrate.Holder) bool { return h.PID == w.pid() && h.Path == road.wantPath }) {
				t.Fatalf("pid %d with %s is not among %+v", w.pid(), road.wantPath, busy.Holders)
			}
			r.settled(migrate.Source)
			if !p.FencedAt().IsZero() {
				t.Fatal("a refused fence has a time")
			}
			for _, req := range road.letGo {
				w.do(req...)
			}
			w.end()
		})
	}
	r.fence(p, migrate.Source)
	must(t, p.Settle(ctx, migrate.Source))
	r.settled(migrate.Source)
}

// Other mounts of the truth: what a swap does not reach is refused and named, what follows
// is swapped along.
func TestPlaceOtherMounts(t *testing.T) {
	r := newPlaceRig(t, rigOptions{from: "ext4", to: "xfs"})
	ctx := context.Background()
	p := r.prepared()
	elsewhere := filepath.Join(r.parent, "elsewhere")
	must(t, os.MkdirAll(elsewhere, 0o755))
	refused := func(name string, pid int, kind string) {
		t.Helper()
		err := p.Fence(ctx, migrate.Source)
		var busy *migrate.Busy
		if !errors.As(err, &busy) {
			t.Fatalf("%s: fence: %v", name, err)
		}
		if !slices.ContainsFunc(busy.Holders, func(h migrate.Holder) bool { return h.PID == pid && h.Kind == kind }) {
			t.Fatalf("%s: pid %d is not among %+v", name, pid, busy.Holders)
		}
		r.settled(migrate.Source)
	}
	private := newTenant(t, "private")
	refused("private namespace", private.pid(), "mount")
	private.end()

	bind := newTenant(t, "")
	bind.do("bind", r.o.Dir, elsewhere)
	refused("bind", 0, "mount")
	bind.do("umount", elsewhere)

	detached := newTenant(t, "")
	detached.do("clone", r.o.Dir)
	refused("detached clone", detached.pid(), "read")
	detached.end()

	lazy := newTenant(t, "")
	lazy.do("bind", r.o.Dir, elsewhere)
	lazy.do("cd", elsewhere)
	lazy.do("umount", elsewhere)
	refused("lazily unmounted", lazy.pid(), "cwd")
	lazy.do("cd", "/")

	// A namespace that only a file keeps alive.
	pin := filepath.Join(t.TempDir(), "ns")
	must(t, os.WriteFile(pin, nil, 0o600))
	for try := 0; ; try++ {
		// Linux 6.18 numbers namespaces by processor, and binds one only where the number is lower
		// (EINVAL else). One of the processors numbers higher than the one that this namespace is of.
		cpu := strconv.Itoa(try % runtime.NumCPU())
		out, err := exec.Command("taskset", "-c", cpu, "unshare", "--mount="+pin, "--propagation", "private", "true").CombinedOutput()
		if err == nil {
			break
		}
		if try == runtime.NumCPU() {
			t.Fatalf("unshare: %v: %s", err, out)
		}
	}
	refused("namespace without a process", 0, "mount")
	r.sh("umount", pin)

	slave, shared := newTenant(t, "slave"), newTenant(t, "unchanged")
	readonly := newTenant(t, "slave")
	readonly.do("bind-ro", r.o.Dir)
	r.fence(p, migrate.Source)
	late := newTenant(t, "private") // a container started behind the fence
	must(t, p.SwapIn(ctx, migrate.Shadow))
	file := filepath.Join(r.o.Dir, "tenant")
	for _, w := range []*tenant{slave, shared, readonly, late} {
		if err := w.try("write", file); !errors.Is(err, unix.EROFS) {
			t.Fatalf("a write before the record: %v", err)
		}
	}
	must(t, p.Settle(ctx, migrate.Shadow))
	r.settled(migrate.Shadow)
	for _, w := range []*tenant{slave, shared} {
		w.do("read", filepath.Join(r.o.Dir, "who"), "shadow")
		w.do("read", filepath.Join(r.o.Dir, "sub/deep/in-submount"), "x")
		w.do("write", file)
	}
	readonly.do("read", filepath.Join(r.o.Dir, "who"), "shadow")
	late.do("read", filepath.Join(r.o.Dir, "who"), "source")
	_, err := p.Open(ctx, migrate.Source, true)
	must(t, err)
	for _, w := range []*tenant{readonly, late} {
		if err := w.try("write", file); !errors.Is(err, unix.EROFS) {
			t.Fatalf("a write of one who may only read: %v", err)
		}
	}
	var busy *migrate.Busy
	if err := p.Release(ctx, migrate.Source); !errors.As(err, &busy) || busy.Holders[0].PID != late.pid() {
		t.Fatalf("release while a namespace keeps it: %v %+v", err, busy)
	}
	late.end()
	must(t, p.Release(ctx, migrate.Source))
	r.settled(migrate.Shadow)
}

// Somebody who could write to the old volume closes the way back, is named, and cannot
// write to it; the new volume does not notice.
func TestPlaceUnsealed(t *testing.T) {
	r := newPlaceRig(t, rigOptions{from: "ext4", to: "xfs"})
	ctx := context.Background()
	p := r.prepared()
	r.fence(p, migrate.Source)
	w := newTenant(t, "")
	w.do("clone", r.o.Dir)
	w.do("unseal")
	must(t, p.SwapIn(ctx, migrate.Shadow))
	must(t, p.Settle(ctx, migrate.Shadow))
	for range 2 {
		for name, fn := range map[string]func() error{
			"seal": func() error { return p.SealOld(ctx, migrate.Source) },
			"open": func() error { _, err := p.Open(ctx, migrate.Source, true); return err },
		} {
			var busy *migrate.Busy
			if err := fn(); !errors.As(err, &busy) || !slices.ContainsFunc(busy.Holders, func(h migrate.Holder) bool { return h.PID == w.pid() }) {
				t.Fatalf("%s with an unsealed mount around: %v", name, err)
			}
			if err := w.try("write-clone"); !errors.Is(err, unix.EROFS) {
				t.Fatalf("%s: a write through the unsealed mount: %v", name, err)
			}
		}
		r.settled(migrate.Shadow)
	}
	w.end()
	r.soon("the way back stays closed", func() bool { _, err := p.Open(ctx, migrate.Source, true); return err == nil })
	r.settled(migrate.Shadow)
}
