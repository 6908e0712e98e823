package shadow

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fsmigrate/fsmigrate/migrate"
)

// Stamps of one second (ext3, and ext4 with inodes of 128 bytes): a store through a mapping in the
// second of the copy makes no event and moves no stamp. That the stamp is too young to be
// believed is all that finds it.
func TestPairStoreInTheSecondOfTheCopy(t *testing.T) {
	for _, from := range [][]string{{"ext4", "-I", "128"}, {"ext3", "-I", "128"}} {
		t.Run(from[0], func(t *testing.T) {
			r := newSyncRig(t, from[0], "xfs", from[1:]...)
			ctx := context.Background()
			m := r.mapped("f", 8192)
			must(t, r.p.walk(ctx))
			r.quiet()
			path := filepath.Join(r.src, "f")
			stamp := func() unix.StatxTimestamp {
				var st unix.Statx_t
				must(t, unix.Statx(unix.AT_FDCWD, path, 0, unix.STATX_CTIME, &st))
				return st.Ctime
			}
			for try := 0; ; try++ {
				<-time.After(time.Until(time.Now().Truncate(time.Second).Add(time.Second)))
				m[0]++ // the page is dirty; the pass cleans it, so that the next store faults
				r.sh("chmod 600 f; chmod 644 f")
				must(t, r.w.Barrier(ctx))
				_, err := r.p.pass(ctx, passMode{})
				must(t, err)
				before := stamp()
				m[1]++
				if stamp() == before {
					break // copied and stored to in one second
				}
				if try == 20 {
					t.Fatal("a pass over one file never took less than a second")
				}
				r.quiet()
			}
			r.settle()
			r.equal()
		})
	}
}

// On XFS nothing is renamed into a directory that gives its project to what is made in it
// (EXDEV), and nowhere in or out of an immutable one (EPERM). The names of the shadow follow all the same.
func TestPairRenamesIntoProjectsAndImmutables(t *testing.T) {
	r := newSyncRig(t, "xfs", "xfs")
	ctx := context.Background()
	t.Cleanup(func() { r.shQuiet("chattr -R -i . ; cd " + r.dst + " && chattr -R -i .") })
	r.sh(`mkdir plain prj imm; for i in 1 2 3; do echo $i > plain/f$i; mkdir plain/d$i; echo in > plain/d$i/x; done
xfs_io -c 'chproj 42' -c 'chattr +P' prj; chattr +i imm`)
	must(t, r.p.walk(ctx))
	r.quiet()
	for _, side := range []string{r.src, r.dst} {
		if err := os.Rename(filepath.Join(side, "plain/f1"), filepath.Join(side, "prj/f1")); err == nil || !strings.Contains(err.Error(), unix.EXDEV.Error()) {
			t.Errorf("a rename into a project of %s: %v", side, err)
		}
		if err := os.Rename(filepath.Join(side, "plain/f1"), filepath.Join(side, "imm/f1")); err == nil || !strings.Contains(err.Error(), unix.EPERM.Error()) {
			t.Errorf("a rename into an immutable directory of %s: %v", side, err)
		}
	}
	number := func(name string) uint64 {
		var st unix.Stat_t
		must(t, unix.Lstat(filepath.Join(r.dst, name), &st))
		return st.Ino
	}
	f, d := number("plain/f1"), number("plain/d1")
	r.sh(`xfs_io -c 'chattr -P' prj; mv plain/f1 plain/d1 prj/; xfs_io -c 'chattr +P' prj
chattr -i imm; mv plain/f2 plain/d2 imm/; chattr +i imm`)
	r.settle()
	r.equal()
	if number("prj/f1") != f || number("prj/d1") != d {
		t.Error("what was renamed was copied again")
	}
	for _, name := range []string{"prj", "prj/f1", "imm"} {
		if a, b := r.lsattr(filepath.Join(r.src, name)), r.lsattr(filepath.Join(r.dst, name)); a != b {
			t.Errorf("%s: flags %s on the source, %s on the shadow", name, a, b)
		}
	}
}

// A file system that met an error since the start is not fenced: what it lost would be taken for
// the truth.
func TestPlaceNewErrorsForbidTheFence(t *testing.T) {
	r := newPlaceRig(t, rigOptions{from: "ext4", to: "xfs"})
	p := r.prepared()
	knob := filepath.Join("/sys/fs/ext4", filepath.Base(r.source), "trigger_fs_error")
	must(t, os.WriteFile(knob, []byte("1"), 0))
	err := p.Fence(context.Background(), migrate.Source)
	if err == nil || !strings.Contains(err.Error(), "1 new errors") || migrate.KindOf(err) != migrate.IsRefused {
		t.Fatalf("fence: %v", err)
	}
	if !p.FencedAt().IsZero() {
		t.Error("a refused fence has a time")
	}
	r.settled(migrate.Source)
}
