package shadow

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// What is hard to follow: each is done after the walk, with and without a pass in the middle.
func TestPairHardChanges(t *testing.T) {
	r := newSyncRig(t, "ext4", "xfs")
	ctx := context.Background()
	py := func(code string) string {
		return "python3 - <<'E'\nimport os,ctypes\nlibc=ctypes.CDLL(None)\n" + code + "\nE\n"
	}
	rig := []struct{ name, before, first, then string }{
		{"exchange", "mkdir -p x/a y/b; echo 1 > x/a/f; echo 2 > y/b/g",
			py("assert libc.renameat2(-100,b'x',-100,b'y',2)==0"), py("assert libc.renameat2(-100,b'x/b/g',-100,b'y/a/f',2)==0")},
		{"into a descendant", "mkdir -p p/q/r/s; echo deep > p/q/r/s/f; echo top > p/f", "mv p/q/r .; mv p r/s/", "mv r/s/p/q .; mv r q/; mv q/r/s s2"},
		{"there and back", "mkdir m; echo a > m/a", "mv m/a m/b; mv m/b m/a; mv m m9; mv m9 m", "mv m/a b; mv b m/a; ln m/a m/c; rm m/a; ln m/c m/a; rm m/c"},
		{"number used again", "mkdir nn; for i in 1 2 3 4; do echo old$i > nn/$i; done", "for i in 1 2 3 4; do rm nn/$i; echo new$i > nn/$i; done", "rm nn/*; for i in 1 2 3; do mkdir nn/$i; done; ln -s x nn/4"},
		{"links across", "mkdir l1 l2 l3; echo x > l1/f; ln l1/f l2/f", "ln l1/f l3/f; rm l1/f; mv l2/f l1/g", "rm l3/f; ln l1/g l2/h; ln l1/g l3/i; rm l1/g"},
		{"type changes", "mkfifo t1; echo f > t2; mkdir t3; ln -s a t4; echo in > t3/in", "rm t1 t2 t4; rm -r t3; echo x > t1; mkdir t2; echo y > t2/y; mkfifo t3; mknod t4 b 7 200", "rm t1 t3 t4; rm -r t2; ln -s q t1; mkdir t3; echo z > t3/z"},
		{"names", "mkdir \"$(printf 'd\\n\\377')\"; echo n > \"$(printf 'd\\n\\377/\\001x')\"", "mv \"$(printf 'd\\n\\377')\" \"$(printf '\\355\\240\\200')\"", "echo more >> \"$(printf '\\355\\240\\200/\\001x')\""},
		{"flags only", "echo f > fl; mkdir fd; echo in > fd/in", "chattr +i fl; chattr +a fd", "chattr -i fl; chattr -a fd; rm fd/in; chattr +i fd"},
		{"capability dropped", "cp /bin/true cap; setcap cap_net_raw+ep cap", "echo x >> cap", "setcap cap_net_admin+ep cap; chown 1 cap"},
		{"acl through mode", "echo a > acl; setfacl -m u:99:rwx,g:98:rw acl", "chmod 640 acl", "chmod 700 acl; setfacl -d -m u:5:rwx .; setfacl -k ."},
		{"times set back", "echo t > ti; mkdir td", "echo T > ti; touch -d '1985-01-01 01:01:01.123456789' ti td", "touch -d '1960-01-01' ti; touch -d '2040-01-01' td"},
		{"shrinks and grows", "head -c 9000000 /dev/urandom > sg; truncate -s 3000000 sp; echo e >> sp", "truncate -s 100 sg; truncate -s 9000000 sg; echo x | dd of=sg bs=1 seek=5000000 conv=notrunc status=none", "fallocate -p -o 4096 -l 8192 sp; fallocate -l 1M sg; truncate -s 12345 sp"},
	}
	t.Cleanup(func() { r.shQuiet("chattr -R -i -a .") })
	for _, c := range rig {
		r.sh(c.before)
	}
	must(t, r.p.walk(ctx))
	for _, c := range rig {
		t.Log(c.name)
		r.sh(c.first)
	}
	must(t, r.w.Barrier(ctx))
	_, err := r.p.pass(ctx, passMode{})
	must(t, err)
	for _, c := range rig {
		t.Log(c.name)
		r.sh(c.then)
	}
	// By what the watch heard alone: the scan of the proof would find what it missed.
	r.quiet()
	r.equal()
	r.settle()
	r.equal()
	for _, c := range []string{"fd", "fl", "cap", "acl"} {
		if a, b := r.lsattr(filepath.Join(r.src, c)), r.lsattr(filepath.Join(r.dst, c)); a != b {
			t.Errorf("%s: flags %s on the source, %s on the shadow", c, a, b)
		}
	}
	if b := r.p.fails.list(); len(b) > 0 {
		t.Errorf("blockers: %v", b)
	}
}

// Files without a name: unlinked and still open, and made with O_TMPFILE and linked later.
func TestPairFilesWithoutNames(t *testing.T) {
	r := newSyncRig(t, "ext4", "xfs")
	ctx := context.Background()
	r.sh("mkdir d e; echo one > d/open; echo two > d/two")
	open, err := os.OpenFile(filepath.Join(r.src, "d/open"), os.O_RDWR, 0)
	must(t, err)
	defer open.Close()
	fd, err := unix.Open(filepath.Join(r.src, "d"), unix.O_TMPFILE|unix.O_RDWR, 0o640)
	must(t, err)
	tmp := os.NewFile(uintptr(fd), "tmp")
	defer tmp.Close()
	must(t, r.p.walk(ctx))
	r.sh("rm d/open")
	_, err = open.WriteAt([]byte("three"), 0)
	must(t, err)
	_, err = tmp.WriteString("anonymous")
	must(t, err)
	r.quietOpen()
	must(t, unix.Linkat(fd, "", unix.AT_FDCWD, filepath.Join(r.src, "e/named"), unix.AT_EMPTY_PATH))
	r.quietOpen()
	must(t, open.Close())
	must(t, tmp.Close())
	r.quiet()
	r.equal()
	r.settle()
	r.equal()
}

func (r *syncRig) quietOpen() {
	r.t.Helper()
	must(r.t, r.w.Barrier(context.Background()))
	_, err := r.p.pass(context.Background(), passMode{})
	must(r.t, err)
}

// Directories that move while the walk reads them, in every order that the walk allows.
func TestPairMovesDuringTheWalk(t *testing.T) {
	r := newSyncRig(t, "ext4", "xfs")
	r.sh("for d in a b c d e f; do mkdir -p $d/sub/deep; for i in $(seq 40); do echo $d$i > $d/sub/f$i; echo $i > $d/sub/deep/g$i; done; done")
	n := 0
	moves := []string{"mv a/sub b/sub/deep/asub", "mv b c/sub/b", "mv c/sub/b/sub/deep .", "mv d/sub/deep d/deep; mv d/deep e/", "ln e/sub/f1 f/l1; rm e/sub/f1; mv f/sub/f2 e/sub/f1",
		"mv e/sub x; mkdir e/sub; mv x/f3 e/sub/", "rm -r f/sub/deep; mkdir f/sub/deep; echo n > f/sub/deep/g1"}
	mu := make(chan struct{}, 1)
	r.p.step = func(op string) error {
		mu <- struct{}{}
		defer func() { <-mu }()
		if n++; n%60 == 0 && len(moves) > 0 {
			r.sh(moves[0])
			moves = moves[1:]
		}
		return nil
	}
	must(t, r.p.walk(context.Background()))
	r.p.step = nil
	if len(moves) > 0 {
		t.Fatalf("%d moves were not made in %d steps", len(moves), n)
	}
	r.quiet() // without the scan
	r.equal()
	r.settle()
	r.equal()
}

// Deeper than a path can say.
func TestPairDepthBeyondPathMax(t *testing.T) {
	r := newSyncRig(t, "ext4", "xfs")
	ctx := context.Background()
	dig := func(n int, leaf string) {
		fd, err := unix.Open(r.src, unix.O_RDONLY|unix.O_DIRECTORY, 0)
		must(t, err)
		name := fmt.Sprintf("%0200d", 7)
		for range n {
			if err := unix.Mkdirat(fd, name, 0o755); err != nil && err != unix.EEXIST {
				t.Fatal(err)
			}
			next, err := unix.Openat(fd, name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
			must(t, err)
			unix.Close(fd)
			fd = next
		}
		f, err := unix.Openat(fd, leaf, unix.O_CREAT|unix.O_RDWR, 0o600)
		must(t, err)
		_, err = unix.Write(f, []byte(leaf))
		must(t, err)
		unix.Close(f)
		unix.Close(fd)
	}
	dig(30, "leaf")
	must(t, r.p.walk(ctx))
	dig(40, "later")
	dig(30, "leaf2")
	r.settle()
	proof, err := r.p.verifyAll(ctx)
	must(t, err)
	if want := int64(1 + 40 + 3 + 1); proof.Different != 0 || proof.Verified != proof.Objects || proof.Objects < want-1 {
		t.Errorf("proof %+v, want %d objects", proof, want)
	}
	r.shQuiet("rm -rf 0*")
}

// FACTS, "Times as a second witness": an unflushed file of ext4 shows holes over data.
func TestPairHolesOverUnflushedData(t *testing.T) {
	r := newSyncRig(t, "ext4", "xfs")
	const pieces = 4_000
	path := filepath.Join(r.src, "holes")
	f, err := os.Create(path)
	must(t, err)
	for i := range int64(pieces) {
		_, err := f.WriteAt([]byte{byte(i), 1}, i*8192+i%4000)
		must(t, err)
		if i%50 == 0 {
			must(t, unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, i*8192, 8192))
			_, err = f.WriteAt([]byte{7}, i*8192+100)
			must(t, err)
		}
	}
	must(t, f.Truncate(pieces*8192+1<<20))
	must(t, f.Close())
	must(t, r.p.walk(context.Background()))
	r.settle()
	a, err := os.ReadFile(path)
	must(t, err)
	b, err := os.ReadFile(filepath.Join(r.dst, "holes"))
	must(t, err)
	if !bytes.Equal(a, b) {
		t.Error("the content differs")
	}
}
