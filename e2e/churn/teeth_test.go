package churn_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fsmigrate/fsmigrate/e2e/churn"
	"github.com/fsmigrate/fsmigrate/e2e/vol"
	"golang.org/x/sys/unix"
)

// A model that cannot find a planted error proves nothing.
func TestCheckFindsEveryPlantedError(t *testing.T) {
	lab := vol.New(t)
	image := lab.Image(512)
	device0 := lab.Loop(image)
	vol.Mkfs(t, "xfs", device0)
	dir := lab.Mount(device0, "data")
	r := start(t, dir, lab.Path("log"), churn.Options{Seed: 3, Objects: 400, Ops: 3000, Without: []string{"chattr", "unlink"}})
	if err := r.Wait(); err != nil {
		t.Fatal(err)
	}
	requireEqual(t, "before", dir, r.Model)

	find := func(args ...string) string {
		out := vol.Run(t, "find", append([]string{dir}, append(args, "-print0", "-quit")...)...)
		path := strings.TrimRight(out, "\x00")
		if path == "" {
			t.Fatalf("nothing to plant an error in: %v", args)
		}
		return path
	}
	plain := find("-type", "f", "-size", "+1", "-links", "1", "-size", "-16")
	linked := find("-type", "f", "-links", "+1", "-size", "-64")
	folder := find("-mindepth", "1", "-type", "d")
	symlink := find("-type", "l", "-links", "1")
	device := find("-type", "c", "-links", "1")

	cases := []struct {
		name, field string
		plant       func(t *testing.T)
	}{
		{"one byte", "content", func(t *testing.T) { flipByte(t, plain) }},
		{"size", "size", func(t *testing.T) { quietly(t, plain, func() { run(t, "truncate", "-s", "+1", plain) }) }},
		{"mode", "mode", func(t *testing.T) { run(t, "chmod", "0111", plain) }},
		{"owner", "owner", func(t *testing.T) { run(t, "chown", "-h", "77777:3", plain) }},
		{"group of a symlink", "owner", func(t *testing.T) { run(t, "chown", "-h", ":88888", symlink) }},
		{"a nanosecond", "mtime", func(t *testing.T) { moveTime(t, plain) }},
		{"a nanosecond of a directory", "mtime", func(t *testing.T) { moveTime(t, folder) }},
		{"user xattr", "xattr user.planted", func(t *testing.T) { run(t, "setfattr", "-n", "user.planted", "-v", "x", plain) }},
		{"trusted xattr of a symlink", "xattr trusted.planted", func(t *testing.T) { run(t, "setfattr", "-h", "-n", "trusted.planted", symlink) }},
		{"capability", "xattr security.capability", func(t *testing.T) { run(t, "setcap", "cap_mknod+i", plain) }},
		{"access ACL", "xattr system.posix_acl_access", func(t *testing.T) { run(t, "setfacl", "-m", "u:4242:r", plain) }},
		{"default ACL", "xattr system.posix_acl_default", func(t *testing.T) { run(t, "setfacl", "-d", "-m", "u:4242:r", folder) }},
		{"no-dump flag", "flags", func(t *testing.T) { run(t, "chattr", "+d", plain); t.Cleanup(func() { run(t, "chattr", "-d", plain) }) }},
		{"immutable flag", "flags", func(t *testing.T) { run(t, "chattr", "+i", plain); t.Cleanup(func() { run(t, "chattr", "-i", plain) }) }},
		{"project", "project", func(t *testing.T) { run(t, "chattr", "-p", "999", plain) }},
		{"link target", "target", func(t *testing.T) { replace(t, symlink, func() error { return os.Symlink("elsewhere", symlink) }) }},
		{"device number", "rdev", func(t *testing.T) {
			replace(t, device, func() error { return unix.Mknod(device, unix.S_IFCHR|0o600, int(unix.Mkdev(1, 1))) })
		}},
		{"type", "type", func(t *testing.T) { replace(t, device, func() error { return unix.Mkfifo(device, 0o600) }) }},
		{"something extra", "entry", func(t *testing.T) { quietly(t, folder, func() { run(t, "touch", filepath.Join(folder, "extra")) }) }},
		{"something gone", "entry", func(t *testing.T) { quietly(t, filepath.Dir(plain), func() { run(t, "mv", plain, lab.Path("away")) }) }},
		{"a link broken", "link group", func(t *testing.T) {
			run(t, "cp", "-a", linked, linked+".copy")
			run(t, "mv", "-f", linked+".copy", linked)
		}},
		{"a link too many", "nlink", func(t *testing.T) { quietly(t, folder, func() { run(t, "ln", plain, filepath.Join(folder, "link")) }) }},
		{"renamed", "entry", func(t *testing.T) { run(t, "mv", plain, plain+".moved") }},
	}
	lab.Unmount(dir)
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			fresh := lab.Path("planted.img")
			run(t, "cp", "--sparse=always", image, fresh)
			device := lab.Loop(fresh)
			lab.Mount(device, "data")
			t.Cleanup(func() { lab.Unmount(dir); lab.Detach(device); _ = os.Remove(fresh) })
			c.plant(t)
			found, err := r.Model.Check(dir, churn.CheckOptions{Limit: 1000})
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range found {
				if d.Field == c.field {
					return
				}
			}
			t.Fatalf("not reported as %q, but: %s", c.field, churn.Summary(found))
		})
	}
}

func run(t *testing.T, name string, args ...string) { t.Helper(); vol.Run(t, name, args...) }

// quietly puts the times back that would betray what do did.
func quietly(t *testing.T, path string, do func()) {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		t.Fatal(err)
	}
	do()
	setTimes(t, path, st.Mtim)
}

func setTimes(t *testing.T, path string, mtime unix.Timespec) {
	t.Helper()
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{mtime, mtime}, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		t.Fatal(err)
	}
}

func moveTime(t *testing.T, path string) {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		t.Fatal(err)
	}
	st.Mtim.Nsec ^= 1
	setTimes(t, path, st.Mtim)
}

func flipByte(t *testing.T, path string) {
	t.Helper()
	quietly(t, path, func() {
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		b := make([]byte, 1)
		if _, err := f.ReadAt(b, 100); err != nil {
			t.Fatal(err)
		}
		b[0] ^= 0x40
		if _, err := f.WriteAt(b, 100); err != nil {
			t.Fatal(err)
		}
	})
}

// replace removes path and makes it anew.
func replace(t *testing.T, path string, again func() error) {
	t.Helper()
	quietly(t, filepath.Dir(path), func() {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		if err := again(); err != nil {
			t.Fatal(err)
		}
	})
}
