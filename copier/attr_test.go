package copier

import (
	"bytes"
	"strings"
	"testing"

	"github.com/fsmigrate/fsmigrate/blockdev/blocktest"
	"golang.org/x/sys/unix"
)

// Every attribute of every type of object, between every pair of formats, read
// back after a remount by tools that share no code with us.
func TestAttributesSurviveEveryPair(t *testing.T) {
	for _, from := range formatsTested {
		src := testVolume(t, from)
		plant(t, src)
		want := describe(t, src)
		for _, to := range formatsTested {
			t.Run(from+"-"+to, func(t *testing.T) {
				dev := blocktest.NewDevice(t, to, volumeBytes)
				dst := blocktest.MountTemp(t, dev, to, "noatime")
				func() {
					sfd, err := OpenTree(src)
					if err != nil {
						t.Fatal(err)
					}
					defer unix.Close(sfd)
					dfd, err := unix.Open(dst, unix.O_RDONLY|unix.O_CLOEXEC, 0)
					if err != nil {
						t.Fatal(err)
					}
					defer unix.Close(dfd)
					carry(t, sfd, dfd, DressFor(to))
				}()
				blocktest.Detach(t, dst)
				dst = blocktest.MountTemp(t, dev, to, "noatime")
				t.Cleanup(func() { blocktest.Run(t, "sh", "-c", "chattr -ia '"+dst+"'/* 2>/dev/null; true") })
				if d := diffLines(want, describe(t, dst)); len(d) > 0 {
					t.Errorf("the tools see differences:\n%s", strings.Join(d, "\n"))
				}
				stats, err := CompareTrees(t.Context(), src, dst, CompareOptions{Skip: SkipLostFound}, func(path string, d []Difference) {
					t.Errorf("compare: %s: %v", path, d)
				})
				if err != nil {
					t.Fatal(err)
				}
				if stats.Objects < 18 {
					t.Errorf("compared %d objects", stats.Objects)
				}
			})
		}
	}
}

// Reading through an O_PATH descriptor and through a real one is the same, for
// symbolic links and special files too, whose f*xattr calls refuse O_PATH.
func TestReadAttrByPathDescriptor(t *testing.T) {
	for _, format := range formatsTested {
		dir := testVolume(t, format)
		plant(t, dir)
		link := attrOf(t, dir+"/link")
		if v, ok := link.Xattr("trusted.l"); !ok || string(v) != "link" {
			t.Errorf("%s: trusted xattr of a symlink: %q", format, v)
		}
		if v, ok := link.Xattr("security.l"); !ok || string(v) != "link" {
			t.Errorf("%s: security xattr of a symlink: %q", format, v)
		}
		fifo := attrOf(t, dir+"/fifo")
		if _, ok := fifo.Xattr(XattrACLAccess); !ok {
			t.Errorf("%s: a FIFO's ACL was not read", format)
		}
		a := attrOf(t, dir+"/file")
		real, err := ReadAttr(openRead(t, dir+"/file"), NewBuffers())
		if err != nil {
			t.Fatal(err)
		}
		if d := EqualAttr(a, real, Ignore{}); d != nil {
			t.Errorf("%s: %v", format, d)
		}
		if a.Atime != (Time{-2, 1}) || a.Mtime != (Time{-2, 1}) {
			t.Errorf("%s: a stamp before 1970: %v", format, a.Mtime)
		}
		if a.Btime == (Time{}) {
			t.Errorf("%s: no birth time", format)
		}
	}
}

// xfs shows root each ACL a second time, under trusted.SGI_ACL_*. It is not
// carried, and a file that truly has such an attribute is not let near xfs,
// where it would become an ACL.
func TestXfsACLShadowNames(t *testing.T) {
	x, e := testVolume(t, "xfs"), testVolume(t, "ext4")
	shell(t, x, "echo > f; setfacl -m u:1:r f; echo > plain")
	for _, a := range attrOf(t, x+"/f").Xattrs {
		if strings.HasPrefix(a.Name, xfsACL) {
			t.Errorf("read %s", a.Name)
		}
	}
	shell(t, e, "echo > f; setfattr -n trusted.SGI_ACL_FILE -v x f")
	a := attrOf(t, e+"/f")
	if _, ok := a.Xattr("trusted.SGI_ACL_FILE"); !ok {
		t.Error("ext4's own attribute of that name was not read")
	}
	if err := Dress(openPath(t, x+"/plain"), a, DressFor("xfs")); !errorsIs(err, ErrReserved) {
		t.Errorf("dressing xfs with it: %v", err)
	}
}

func TestReadAttrLeavesAtime(t *testing.T) {
	dir := testVolume(t, "ext4")
	shell(t, dir, "mount -o remount,strictatime $PWD ; mkdir d; echo > d/f; touch -a -d 2001-01-01 d/f d")
	before := shell(t, dir, "stat -c %X d d/f")
	fd := openRead(t, dir)
	if _, err := SurveyTree(t.Context(), fd, SurveyOptions{}, nil); err != nil {
		t.Fatal(err)
	}
	f := openPath(t, dir+"/d/f")
	if _, err := ReadAttr(f, NewBuffers()); err != nil {
		t.Fatal(err)
	}
	if after := shell(t, dir, "stat -c %X d d/f"); after != before {
		t.Errorf("atime changed: %q, then %q", before, after)
	}
}

func openRead(t testing.TB, path string) int {
	t.Helper()
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NOATIME|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

func TestReadAttrAllocations(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, dir+"/f", []byte("x"))
	fd, b := openRead(t, dir+"/f"), NewBuffers()
	if n := testing.AllocsPerRun(100, func() {
		if _, err := ReadAttr(fd, b); err != nil {
			t.Fatal(err)
		}
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

// Values come back as they are: empty, binary, and as long as a value may be.
func TestXattrValues(t *testing.T) {
	dir := testVolume(t, "xfs")
	writeFile(t, dir+"/f", nil)
	want := Attr{Mode: unix.S_IFREG | 0o600, Mtime: Time{5, 6}, Xattrs: []Xattr{
		{"trusted.big", bytes.Repeat([]byte{0, 255, '\n'}, 65535/3)},
		{"user.empty", []byte{}},
		{"user.\xff\n", []byte{0}},
	}}
	if err := Dress(openPath(t, dir+"/f"), want, DressFor("xfs")); err != nil {
		t.Fatal(err)
	}
	got := attrOf(t, dir+"/f")
	got.Nlink, got.Size = want.Nlink, want.Size
	if d := EqualAttr(got, want, Ignore{}); d != nil {
		t.Error(d)
	}
}
