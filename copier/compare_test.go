package copier

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"testing"

	"github.com/fsmigrate/fsmigrate/blockdev/blocktest"
	"golang.org/x/sys/unix"
)

// found runs a comparison and returns "path: field" of every difference, sorted.
func found(t testing.TB, a, b string, o CompareOptions) []string {
	t.Helper()
	var out []string
	if _, err := CompareTrees(t.Context(), a, b, o, func(path string, ds []Difference) {
		for _, d := range ds {
			out = append(out, path+": "+d.Field)
		}
	}); err != nil {
		t.Fatal(err)
	}
	sort.Strings(out)
	return out
}

// One error planted in each attribute is found: exactly it and nothing else.
// What had to be touched besides is put back: the mtime of what was written.
func TestCompareFindsEachPlantedError(t *testing.T) {
	top := testVolume(t, "xfs")
	makeBase(t, top+"/a")
	for _, c := range []struct {
		name, plant string
		want        []string
	}{
		{"nothing", ":", nil},
		{"data", "printf X | dd of=file bs=1 seek=3 conv=notrunc status=none; touch -r $REF file", []string{"file: data"}},
		{"last byte of a large file", "printf X | dd of=large bs=1 seek=6291455 conv=notrunc status=none; touch -r $REF large", []string{"large: data"}},
		{"size", "truncate -s 7 file; touch -r $REF file", []string{"file: size"}},
		{"owner", "chown 9 file", []string{"file: owner"}},
		{"group", "chgrp 9 dir", []string{"dir: owner"}},
		{"mode", "chmod 0601 file", []string{"file: mode"}},
		{"set-id", "chmod g+s dir", []string{"dir: mode"}},
		{"mtime by a nanosecond", "touch -m -d '2001-02-03 04:05:06.000000008 UTC' file", []string{"file: mtime"}},
		{"mtime of a link", "touch -hm -d 2001-02-03 link", []string{"link: mtime"}},
		{"atime", "touch -a -d 2001-01-01 file", []string{"file: atime"}},
		{"xattr value", "setfattr -n user.x -v other file", []string{"file: xattr user.x"}},
		{"xattr missing", "setfattr -x user.x file", []string{"file: xattr user.x"}},
		{"xattr extra", "setfattr -n trusted.y -v 1 dir", []string{"dir: xattr trusted.y"}},
		{"xattr of a link", "setfattr -h -x trusted.l link", []string{"link: xattr trusted.l"}},
		{"acl", "setfacl -m u:5:r acl", []string{"acl: acl"}},
		{"default acl", "setfacl -k dir", []string{"dir: default acl"}},
		{"capability", "setcap cap_kill+ep caps", []string{"caps: capability"}},
		{"capability dropped by a write", "setcap -r caps", []string{"caps: capability"}},
		{"flag", "chattr +d file", []string{"file: flags"}},
		{"flag of a directory", "chattr +A dir", []string{"dir: flags"}},
		{"project", "chattr -p 5 file", []string{"file: project"}},
		{"project inheritance", "chattr +P dir", []string{"dir: project inheritance"}},
		{"extent size hint", "xfs_io -c 'extsize 65536' dir", []string{"dir: extended flags"}},
		{"link target", "ln -sfn elsewhere link; setfattr -h -n trusted.l -v l link; touch -h -r $REF link; touch -r $REF .", []string{"link: target"}},
		{"type", "rm fifo; mknod fifo c 1 3; touch -r $REF fifo .", []string{"fifo: type"}},
		{"device number", "rm dev; mknod dev c 1 6; touch -r $REF dev .", []string{"dev: device"}},
		{"missing name", "rm fifo; touch -r $REF .", []string{"fifo: name"}},
		{"extra name", "touch -r $REF dir/extra; touch -r $REF dir", []string{"dir/extra: name"}},
		{"extra name that is not text", "touch -r $REF \"$(printf 'a\\nb\\377')\" .", []string{`"a\nb\xff": name`}},
		{"links regrouped", "ln -f l1 l3; ln -f l4 l2; touch -r $REF .", []string{"l2: hard links", "l3: hard links"}},
		{"a link less", "rm l2; cp -a l1 l2; touch -r $REF .", []string{"l1: links", "l2: hard links", "l2: links"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, b := top+"/a", top+"/b"
			makeBase(t, b)
			shell(t, b, "REF="+a+"/ref\n"+c.plant)
			got := found(t, a, b, CompareOptions{})
			sort.Strings(c.want)
			if fmt.Sprint(got) != fmt.Sprint(c.want) {
				t.Errorf("found %q, want %q", got, c.want)
			}
			blocktest.Run(t, "rm", "-rf", b)
		})
	}
}

// makeBase makes a tree with something of everything, all stamps the same.
func makeBase(t testing.TB, dir string) {
	t.Helper()
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	shell(t, dir, `
printf 'some data' > file; setfattr -n user.x -v 1 file; head -c 6291456 /dev/zero > large
mkdir dir; setfacl -d -m u:3:rx dir; echo sub > dir/f; echo > acl; setfacl -m u:4:rwx acl
cp /bin/true caps; setcap cap_chown+ep caps; ln -s somewhere link; setfattr -h -n trusted.l -v l link
mkfifo fifo; mknod dev c 1 5; echo l > l1; ln l1 l2; echo l > l3; ln l3 l4; echo > ref
find . -print0 | xargs -0 touch -h -d '2001-02-03 04:05:06.000000007 UTC'`)
}

// Deeper than PATH_MAX, in both the walks, with a difference at the bottom.
func TestCompareAndSurveyBeyondPathMax(t *testing.T) {
	top := testVolume(t, "xfs")
	const depth = 1500
	name := strings.Repeat("d", 20) // 31,500 bytes of path
	for _, side := range []string{"a", "b"} {
		if err := os.Mkdir(filepath.Join(top, side), 0o755); err != nil {
			t.Fatal(err)
		}
		fd, err := unix.Open(filepath.Join(top, side), unix.O_RDONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		for range depth {
			if err := unix.Mkdirat(fd, name, 0o755); err != nil {
				t.Fatal(err)
			}
			next, err := OpenBeneath(fd, name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
			if err != nil {
				t.Fatal(err)
			}
			unix.Close(fd)
			fd = next
		}
		f, err := OpenBeneath(fd, "bottom", unix.O_CREAT|unix.O_WRONLY, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		if err := pwriteFull(f, []byte(side), 0); err != nil {
			t.Fatal(err)
		}
		unix.Close(f)
		unix.Close(fd)
	}
	var paths []string
	stats, err := CompareTrees(t.Context(), top+"/a", top+"/b", CompareOptions{Ignore: Ignore{Times: true}}, func(path string, d []Difference) {
		if len(d) != 1 || d[0].Field != "data" {
			t.Errorf("%d bytes of path: %v", len(path), d)
		}
		paths = append(paths, path)
	})
	if err != nil || stats.Objects != depth+2 || len(paths) != 1 || len(paths[0]) != depth*21+6 {
		t.Errorf("%+v, %d differences: %v", stats, len(paths), err)
	}
	st, err := SurveyTree(t.Context(), openDir(t, top+"/a"), SurveyOptions{}, nil)
	if err != nil || st.Dirs != depth+1 || st.Files != 1 {
		t.Errorf("survey: %+v: %v", st, err)
	}
}

// Submounts hide nothing, mounts are not entered, links are not followed.
func TestCompareStaysOnItsVolumes(t *testing.T) {
	top := testVolume(t, "ext4")
	shell(t, top, "mkdir -p a/m b/m; echo hidden > a/m/f; echo hiddeN > b/m/f; ln -s / a/l; ln -s / b/l; touch -hr a a/* b b/* a/m/f b/m/f")
	shell(t, top, "mount -t tmpfs none $PWD/a/m")
	t.Cleanup(func() { blocktest.Run(t, "umount", top+"/a/m") })
	if got := found(t, top+"/a", top+"/b", CompareOptions{Ignore: Ignore{Times: true}}); fmt.Sprint(got) != "[m/f: data]" {
		t.Errorf("below a submount: %q", got)
	}
	var got []string
	stats, err := CompareFds(t.Context(), openDir(t, top+"/a"), openDir(t, top+"/b"), CompareOptions{Ignore: Ignore{Times: true}}, func(path string, d []Difference) {
		got = append(got, path+" "+d[0].Field)
	})
	if err != nil || fmt.Sprint(got) != "[m mount point]" {
		t.Errorf("%+v %q: %v", stats, got, err)
	}
}

func TestCompareOptions(t *testing.T) {
	top := testVolume(t, "btrfs")
	makeBase(t, top+"/a")
	makeBase(t, top+"/b")
	shell(t, top, "echo x > b/file; chattr +d b/dir; rm b/fifo; mkdir -p b/lost+found/x; touch -a b/acl; ln b/l1 b/l5; truncate -s 8G a/large b/large; sync -f .; touch -r a/ref a/large b/large")
	o := CompareOptions{Sparse: true, LinksOutside: true,
		Ignore:    Ignore{Times: true, Flags: FlagNoDump, Size: true},
		IgnoreFor: nil, Skip: func(p string) bool { return SkipLostFound(p) || p == "fifo" || p == "l5" || p == "file" }}
	if got := found(t, top+"/a", top+"/b", o); got != nil {
		t.Errorf("found %q", got)
	}
	o.Skip = SkipLostFound
	o.IgnoreFor = func(path string, a Attr) Ignore { return Ignore{Times: true, Size: true, Flags: ^uint32(0)} }
	if got := found(t, top+"/a", top+"/b", o); fmt.Sprint(got) != "[fifo: name l5: name]" {
		t.Errorf("found %q", got)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := CompareTrees(ctx, top+"/a", top+"/b", o, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if _, err := CompareTrees(t.Context(), top+"/absent", top+"/b", o, nil); !errors.Is(err, unix.ENOENT) {
		t.Errorf("absent: %v", err)
	}
}

// A file that cannot be read is a difference that names it, and the rest is compared.
func TestCompareUnreadable(t *testing.T) {
	img := blocktest.MakeImage(t, 64<<20)
	dev := blocktest.Loop(t, img)
	blocktest.Mkfs(t, "btrfs", dev, "-m", "single", "-n", "4096", "-M")
	dir := blocktest.MountTemp(t, dev, "btrfs")
	good := testVolume(t, "xfs")
	content := bytes.Repeat([]byte("a block that is easily found on the disk"), 2000)
	for _, d := range []string{dir, good} {
		writeFile(t, d+"/bad", content)
		writeFile(t, d+"/other", []byte(d))
	}
	blocktest.Detach(t, dir)
	raw, err := os.ReadFile(img)
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.LastIndex(raw, content[:4096])
	if at < 0 {
		t.Fatal("the block is not on the disk")
	}
	f := openFile(t, dev, os.O_WRONLY)
	if _, err := f.WriteAt([]byte("damage"), int64(at)); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	dir = blocktest.MountTemp(t, dev, "btrfs")
	got := found(t, dir, good, CompareOptions{Ignore: Ignore{Times: true, Size: true}})
	if fmt.Sprint(got) != "[bad: unreadable other: data]" && fmt.Sprint(got) != "[bad: unreadable other: size]" {
		t.Errorf("found %q", got)
	}
	_, err = CopyData(t.Context(), openFile(t, dir+"/bad", os.O_RDONLY), openFile(t, good+"/new", os.O_RDWR|os.O_CREATE), int64(len(content)), CopyOptions{Fresh: true})
	var source *SourceError
	if !errors.As(err, &source) || !errors.Is(err, unix.EIO) {
		t.Errorf("copying it: %v", err)
	}
}

func TestSurveyTree(t *testing.T) {
	for _, format := range formatsTested {
		dir := testVolume(t, format)
		makeBase(t, dir+"/t")
		shell(t, dir+"/t", `chown 70000:80000 file; truncate -s 5G sparse; touch -d '1950-01-01 UTC' ref; ln -s $(printf '%0500d' 0) long; setfattr -n user.big -v $(printf '%0600d' 0) caps; sync -f .`)
		paths := map[string]bool{}
		st, err := SurveyTree(t.Context(), openDir(t, dir+"/t"), SurveyOptions{Extents: true}, func(path string, a Attr) error {
			paths[path] = true
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		count := strings.TrimSpace(blocktest.Run(t, "sh", "-c", "find "+dir+"/t | wc -l"))
		if want := fmt.Sprint(len(paths) + int(st.HardLinks)); want != count || !paths["dir/f"] || !paths["."] {
			t.Errorf("%s: %s objects, find says %s", format, want, count)
		}
		if st.Dirs != 2 || st.Symlinks != 2 || st.Specials != 2 || st.HardLinks != 2 || st.MaxLinks != 2 || st.MaxSymlink != 500 ||
			st.MaxFile != 5<<30 || st.MaxUID != 70000 || st.MaxGID != 80000 || st.MaxXattrValue != 600 || st.LargestDir < 13 ||
			st.Bytes > 20<<20 || st.Apparent < 5<<30 || st.SizeHistogram[33] != 1 || st.MinTime != -631152000 || st.Reflinked {
			t.Errorf("%s: %+v", format, st)
		}
		if format != "ext4" {
			shell(t, dir+"/t", "cp --reflink=always large again; sync -f .")
			st, err := SurveyTree(t.Context(), openDir(t, dir+"/t"), SurveyOptions{Extents: true, StatOnly: true}, nil)
			if err != nil || !st.Reflinked || st.SharedBytes != 2*6291456 {
				t.Errorf("%s: %+v: %v", format, st, err)
			}
		}
		stop := errors.New("stop")
		if _, err := SurveyTree(t.Context(), openDir(t, dir+"/t"), SurveyOptions{}, func(string, Attr) error { return stop }); !errors.Is(err, stop) {
			t.Errorf("the callback's error came back as %v", err)
		}
	}
}

// A tree that is torn down while it is walked is no error.
func TestSurveyOfABusyTree(t *testing.T) {
	dir := t.TempDir()
	done := make(chan struct{})
	churn := exec.Command("sh", "-c", "cd "+dir+`; for i in $(seq 60); do mkdir -p a/b/c; echo > a/b/c/f; ln -s x a/l; mv a z; rm -rf z; done`)
	if err := churn.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { _ = churn.Wait(); close(done) }()
	fd := openDir(t, dir)
	for n := 0; ; n++ {
		if _, err := SurveyTree(t.Context(), fd, SurveyOptions{}, nil); err != nil {
			t.Errorf("walk %d: %v", n, err)
			break
		}
		select {
		case <-done:
			return
		default:
		}
	}
	<-done
}
