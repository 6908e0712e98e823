package shadow

import (
	"context"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

const secretText = "of nobody's business"

// bystander is a directory on neither volume, which nobody has a reason to touch.
type bystander struct {
	t      *testing.T
	dir    string
	before map[string]string
}

func newBystander(t *testing.T) *bystander {
	t.Helper()
	b := &bystander{t: t, dir: t.TempDir()}
	must(t, os.MkdirAll(filepath.Join(b.dir, "d/e"), 0o700))
	for _, name := range []string{"victim", "d/f0", "d/f1", "d/e/f2"} {
		must(t, os.WriteFile(filepath.Join(b.dir, name), []byte(secretText), 0o640))
	}
	must(t, os.Chown(filepath.Join(b.dir, "victim"), 4711, 4711))
	b.before = b.look()
	return b
}

// look is all there is to know of it, but for the times of access.
func (b *bystander) look() map[string]string {
	b.t.Helper()
	out := map[string]string{}
	must(b.t, filepath.WalkDir(b.dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		text := ""
		if e.Type().IsRegular() {
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			text = string(data)
		}
		out[path] = fmt.Sprintf("%d %o %d:%d %d links %d mtime %v ctime %v %q", st.Ino, st.Mode, st.Uid, st.Gid, st.Size, st.Nlink, st.Mtim, st.Ctim, text)
		return nil
	}))
	return out
}

func (b *bystander) untouched(when string) {
	b.t.Helper()
	now := b.look()
	for path, was := range b.before {
		if now[path] != was {
			b.t.Fatalf("%s %s is %s, was %s", when, path, now[path], was)
		}
	}
	for path := range now {
		if b.before[path] == "" {
			b.t.Fatalf("%s there is a new %s", when, path)
		}
	}
}

// notIn says that nothing of it was copied.
func (b *bystander) notIn(dir string) {
	b.t.Helper()
	out, err := exec.Command("grep", "-rl", "--devices=skip", secretText, dir).CombinedOutput()
	if exit, ok := err.(*exec.ExitError); !ok || exit.ExitCode() != 1 { // 1: nothing found
		b.t.Fatalf("what lies outside the source was copied, or grep failed: %v\n%s", err, out)
	}
}

// planter is an application that replaces files and directories of root by links that lead
// outside, by mounts, and by what was there before, as fast as it can.
type planter struct {
	root, outside string
	rnd           *rand.Rand
	ops           atomic.Int64
}

func (p *planter) one() {
	defer p.ops.Add(1)
	dir := fmt.Sprintf("%s/d%d", p.root, p.rnd.IntN(4))
	name := fmt.Sprintf("%s/f%d", dir, p.rnd.IntN(3))
	targets := []string{p.outside + "/d", "../../../../../../../../../.." + p.outside + "/d", "../..", p.outside + "/d/.."}
	target := targets[p.rnd.IntN(len(targets))]
	// Errors are part of the game: what an operation wants may not be there.
	switch p.rnd.IntN(8) {
	case 0: // a directory becomes a link
		if unix.Renameat2(unix.AT_FDCWD, dir, unix.AT_FDCWD, dir+".aside", unix.RENAME_NOREPLACE) == nil {
			_ = os.Symlink(target, dir)
		}
	case 1: // and a directory again
		if unix.Unlink(dir) == nil {
			_ = os.Rename(dir+".aside", dir)
		}
	case 2: // both in one instant
		_ = os.Symlink(target, dir+".link")
		_ = unix.Renameat2(unix.AT_FDCWD, dir, unix.AT_FDCWD, dir+".link", unix.RENAME_EXCHANGE)
	case 3: // a file becomes a link to a file
		if p.inside(dir) && unix.Unlink(name) == nil {
			_ = os.Symlink(p.outside+"/victim", name)
		}
	case 4: // and a file again, with another owner and mode
		if p.inside(dir) && unix.Unlink(name) == nil {
			_ = os.WriteFile(name, []byte("the application's"), 0o600)
			_ = os.Lchown(name, p.rnd.IntN(1000), p.rnd.IntN(1000))
		}
	case 5: // a mount of what lies outside
		if p.inside(dir) {
			_ = unix.Mount(p.outside+"/d", dir, "", unix.MS_BIND, "")
		}
	case 6:
		_ = unix.Unmount(dir, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	case 7: // a directory among its own entries
		if p.inside(dir) {
			_ = os.Mkdir(name+".d", 0o755)
			_ = os.Symlink(target, name+".d/link")
			_ = os.RemoveAll(name + ".d")
		}
	}
}

// inside reports whether dir is the application's own directory now: it does not itself write, or mount, outside.
// Only this goroutine changes that.
func (p *planter) inside(dir string) bool {
	var st, root unix.Stat_t
	return unix.Lstat(dir, &st) == nil && unix.Lstat(p.root, &root) == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR && st.Dev == root.Dev
}

// An application that plants links, "..", and mounts while it is copied makes us neither
// write outside the shadow nor copy what lies outside the source.
func TestPairPlantedWhileItIsCopied(t *testing.T) {
	r := newSyncRig(t, "ext4", "xfs")
	b := newBystander(t)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r.sh("for d in 0 1 2 3; do mkdir d$d; for f in 0 1 2; do echo $d$f > d$d/f$f; done; done")
	p := &planter{root: r.src, outside: b.dir, rnd: rand.New(rand.NewPCG(seed, 1))}
	stop := make(chan struct{})
	var app sync.WaitGroup
	app.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				p.one()
			}
		}
	})
	ctx := context.Background()
	err := r.p.walk(ctx)
	passes := 0
	for ; err == nil && (passes < 40 || p.ops.Load() < 2000) && passes < 4000; passes++ {
		_, err = r.p.pass(ctx, passMode{verify: passes%8 == 7})
	}
	close(stop)
	app.Wait()
	for i := range 4 {
		for unix.Unmount(fmt.Sprintf("%s/d%d", r.src, i), unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW) == nil {
			continue
		}
	}
	must(t, err)
	if p.ops.Load() < 2000 {
		t.Fatalf("only %d changes in %d passes: no race", p.ops.Load(), passes)
	}
	b.untouched("after the race")
	b.notIn(r.dst)
	r.settle()
	r.equal()
	b.untouched("at the end")
	b.notIn(r.dst)
}

// The shadow is mounted where only we are, but if somebody plants links there
// we still write through descriptors of its own objects only.
func TestPairPlantedOnTheShadow(t *testing.T) {
	r := newSyncRig(t, "ext4", "ext4")
	b := newBystander(t)
	ctx := context.Background()
	r.sh("mkdir d e; for f in 0 1 2; do echo $f > d/f$f; echo $f > e/f$f; done")
	must(t, r.w.Barrier(ctx))
	must(t, r.p.walk(ctx))
	in := func(name string) string { return filepath.Join(r.dst, name) }
	must(t, os.Rename(in("d"), in("d.aside")))
	must(t, os.Symlink(b.dir+"/d", in("d")))
	must(t, os.Remove(in("e/f0")))
	must(t, os.Symlink(b.dir+"/victim", in("e/f0")))
	must(t, os.Symlink(b.dir+"/d/new", in("e/new")))
	r.sh("echo changed > d/f0; echo new > d/f9; rm d/f1; chmod 600 d d/f2; echo changed > e/f0; chown 1:1 e/f0; echo new > e/new; rm e/f2")
	must(t, r.w.Barrier(ctx))
	for range 4 {
		_, _ = r.p.pass(ctx, passMode{verify: true}) // it may well refuse to go on
		b.untouched("after a pass")
	}
	b.notIn(r.dst)
}
