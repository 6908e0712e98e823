package shadow

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fsmigrate/fsmigrate/blockdev"
	"github.com/fsmigrate/fsmigrate/blockdev/blocktest"
	"github.com/fsmigrate/fsmigrate/formats"
)

// syncRig is a pair over two real volumes, with a watch on the first.
type syncRig struct {
	t        *testing.T
	src, dst string
	p        *pair
	w        *Watch
	store    *Store
}

func newSyncRig(t *testing.T, from, to string, mkfs ...string) *syncRig {
	t.Helper()
	return newSyncRigWith(t, from, to, mkfs, nil)
}

// newSyncRigWith is newSyncRig with options for both mkfs.
func newSyncRigWith(t *testing.T, from, to string, mkfs, mkfsTo []string) *syncRig {
	t.Helper()
	r := &syncRig{t: t}
	var sdev, ddev string
	r.src, sdev = blocktest.NewVolume(t, from, 1<<30, mkfs...)
	r.dst, ddev = blocktest.NewVolume(t, to, 1<<30, mkfsTo...)
	var err error
	r.store, err = OpenStore(filepath.Join(t.TempDir(), "journal"), StoreOptions{})
	must(t, err)
	t.Cleanup(func() { must(t, r.store.Close()) })
	boot, err := blockdev.BootID()
	must(t, err)
	r.p, err = newPair(pairOptions{From: r.volume(r.src, sdev, from), To: r.volume(r.dst, ddev, to), Store: r.store, Space: 'f',
		BootID: boot, Workers: 4, Limbo: ".fsmigrate-test"})
	must(t, err)
	t.Cleanup(r.p.shut)
	r.w, err = StartWatch(r.p.from.fd, r.p.from.codec, r.p.handle)
	must(t, err)
	t.Cleanup(func() { must(t, r.w.Close()) })
	must(t, r.p.begin())
	return r
}

func (r *syncRig) volume(dir, dev, name string) *volume {
	r.t.Helper()
	tree, err := blockdev.CloneTree(dir)
	must(r.t, err)
	defer tree.Close()
	f, ok := formats.Lookup(name)
	if !ok {
		r.t.Fatalf("no format %s", name)
	}
	info, err := probe(dev, f)
	must(r.t, err)
	fd, err := readable(tree.Fd())
	must(r.t, err)
	v, err := openVolume(fd, dev, f, info.Limits)
	must(r.t, err)
	return v
}

// settle runs passes until nothing is dirty, and the proof.
func (r *syncRig) settle() {
	r.t.Helper()
	must(r.t, r.w.Barrier(context.Background()))
	proof, err := r.p.drain(context.Background())
	must(r.t, err)
	r.p.fenced = false
	if proof.Different != 0 || proof.Verified+proof.Waived != proof.Objects {
		r.t.Fatalf("proof: %+v; blockers %v", proof, r.p.fails.list())
	}
}

// equal judges by tools that share nothing with us.
func (r *syncRig) equal() {
	r.t.Helper()
	out, err := exec.Command("rsync", "-naHAXc", "--delete", "--itemize-changes", "--exclude=/.fsmigrate-test", "--exclude=/lost+found",
		"--filter=-xr trusted.SGI_ACL_*", // how xfs shows the ACLs that -A compares
		r.src+"/", r.dst+"/").CombinedOutput()
	if err != nil || len(out) > 0 {
		r.t.Fatalf("rsync finds differences: %v\n%s", err, out)
	}
}

func (r *syncRig) sh(script string) {
	r.t.Helper()
	c := exec.Command("bash", "-euc", script)
	c.Dir = r.src
	if out, err := c.CombinedOutput(); err != nil {
		r.t.Fatalf("%s: %v\n%s", script, err, out)
	}
}

const someTree = `
mkdir -p a/b/c d "new
line" ; for i in $(seq 300); do echo "file $i" > a/f$i; done
head -c 3000000 /dev/urandom > d/big; truncate -s 5M d/hole; echo tail >> d/hole
ln a/f1 d/link1; ln a/f1 a/b/link2; ln -s ../a/f2 d/sym; mkfifo d/fifo; mknod d/null c 1 3
setfattr -n user.x -v hello a/f3; setfacl -m u:1234:rw a/f4; setcap cap_net_raw+ep a/f5
chmod 4755 a/f6; chown 1000:1000 a/f7; touch -d '2001-02-03 04:05:06.789' a/f8
setfacl -d -m u:55:rwx a/b; chmod 2775 a/b; touch -d '2005-01-01' a a/b; printf 'x' > "$(printf 'bad\377name')"
chattr +i a/f9; chattr +a a/f10; mkdir imm; touch imm/x; chattr +i imm`

const someChanges = `
mv a e; mv e/b/c d/; mv d/c d/cc; rm e/f20; echo more >> e/f21; echo over > e/f22; rm e/f23; mkdir e/f23; echo in > e/f23/in
mv e/f24 d/f24; ln d/f24 e/again; chmod 600 e/f25; setfattr -x user.x e/f3; setfattr -n user.y -v 1 e/f26
chattr -i imm; rm imm/x; touch imm/y; chattr +i imm; rm d/fifo; echo file > d/fifo; truncate -s 100 d/big
mkdir -p swap1/x swap2/y; touch -d '1999-01-01' d`

func TestPairCopiesAndFollows(t *testing.T) {
	for _, c := range [][]string{{"ext4", "xfs", "-I", "128"}, {"ext4", "btrfs"}, {"xfs", "ext4"}, {"btrfs", "xfs"}, {"xfs", "btrfs"}} {
		t.Run(c[0]+strings.Join(c[2:], "")+"-"+c[1], func(t *testing.T) {
			r := newSyncRig(t, c[0], c[1], c[2:]...)
			r.sh(someTree)
			t.Cleanup(func() { r.shQuiet("chattr -R -i -a . ") })
			ctx := context.Background()
			must(t, r.p.walk(ctx))
			r.settle()
			r.equal()
			r.sh(someChanges)
			r.quiet() // by events alone, without the scan
			r.equal()
			r.settle()
			r.equal()
			proof, err := r.p.verifyAll(ctx)
			must(t, err)
			if proof.Different != 0 || r.p.verifiedCount() != r.p.nodes.Count() {
				t.Fatalf("verified %d of %d, different %d: %v; blockers %v", r.p.verifiedCount(), r.p.nodes.Count(),
					proof.Different, proof.Examples, r.p.fails.list())
			}
			if b := r.p.fails.list(); len(b) > 0 {
				t.Fatalf("blockers: %v", b)
			}
		})
	}
}

func (r *syncRig) shQuiet(script string) {
	c := exec.Command("bash", "-c", script)
	c.Dir = r.src
	_ = c.Run() // clean-up of flags that are not there any more
}

// A directory that is renamed with all that is below it costs one rename: the
// objects below it are the same ones on the shadow.
func TestPairRenameOfATreeIsOneRename(t *testing.T) {
	r := newSyncRig(t, "ext4", "xfs")
	must(t, os.MkdirAll(filepath.Join(r.src, "x", "tree"), 0o755))
	for i := range 2000 {
		must(t, os.WriteFile(filepath.Join(r.src, "x", "tree", fmt.Sprint(i)), []byte("data"), 0o644))
	}
	must(t, os.Mkdir(filepath.Join(r.src, "y"), 0o755))
	ctx := context.Background()
	must(t, r.p.walk(ctx))
	r.settle()
	before := r.p.objects.Load()
	inode := func(path string) uint64 {
		var st unix.Stat_t
		must(t, unix.Stat(path, &st))
		return st.Ino
	}
	was := inode(filepath.Join(r.dst, "x/tree/77"))
	must(t, os.Rename(filepath.Join(r.src, "x", "tree"), filepath.Join(r.src, "y", "moved")))
	r.settle()
	r.equal()
	if n := r.p.objects.Load() - before; n != 0 {
		t.Errorf("%d objects were copied for one rename", n)
	}
	if got := inode(filepath.Join(r.dst, "y/moved/77")); got != was {
		t.Errorf("the file below is another one: inode %d, was %d", got, was)
	}
}

// A store through a mapping makes no event (FACTS, fanotify). The scan finds it.
func TestPairFindsMmapStores(t *testing.T) {
	for _, from := range [][]string{{"ext4", "-I", "128"}, {"ext4"}, {"xfs"}, {"btrfs"}} {
		t.Run(strings.Join(from, ""), func(t *testing.T) {
			r := newSyncRig(t, from[0], "xfs", from[1:]...)
			path := filepath.Join(r.src, "mapped")
			must(t, os.WriteFile(path, make([]byte, 8192), 0o644))
			f, err := os.OpenFile(path, os.O_RDWR, 0)
			must(t, err)
			defer f.Close()
			m, err := unix.Mmap(int(f.Fd()), 0, 8192, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
			must(t, err)
			m[0] = 1 // the page is dirty before the copy
			ctx := context.Background()
			must(t, r.p.walk(ctx))
			_, err = r.p.pass(ctx, passMode{})
			must(t, err)
			deadline := time.Now().Add(10 * time.Second)
			for r.p.racyLen() > 0 && time.Now().Before(deadline) {
				_, err = r.p.pass(ctx, passMode{})
				must(t, err)
			}
			m[1] = 2
			m[4097] = 3
			must(t, unix.Munmap(m))
			r.settle()
			r.equal()
		})
	}
}
