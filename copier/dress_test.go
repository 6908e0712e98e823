package copier

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Dressing a dressed object changes nothing, not even ctime; dressing an object
// that has other things takes them away.
func TestDressIsExactAndIdempotent(t *testing.T) {
	for _, format := range formatsTested {
		dir := testVolume(t, format)
		shell(t, dir, `
echo x > want; chown 5:6 want; chmod 4750 want; setfacl -m u:7:rx want; setfattr -n user.a -v 1 want; setcap cap_chown+ep want
touch -d @981173106.789 want; chattr +i want
echo x > have; chown 1:2 have; setfacl -m u:99:rwx,g:98:x,m::rwx have; setfattr -n user.b -v 2 have; setfattr -n user.a -v 9 have; setcap cap_kill+p have; chattr +ad have`)
		t.Cleanup(func() { shell(t, dir, "chattr -ia want have") })
		want := attrOf(t, dir+"/want")
		dress(t, dir+"/have", want, DressFor(format))
		got := attrOf(t, dir+"/have")
		if d := EqualAttr(want, got, Ignore{}); d != nil {
			t.Errorf("%s: %v", format, d)
		}
		dress(t, dir+"/have", want, DressFor(format))
		if again := attrOf(t, dir+"/have"); again.Ctime != got.Ctime {
			t.Errorf("%s: the second time changed something", format)
		}
		tools := func(f string) string {
			return strings.ReplaceAll(shell(t, dir, "getfacl -n "+f+"; getcap "+f+"; getfattr -d -m - -e hex "+f+"; stat -c '%a %u %g %y' "+f), f, "F")
		}
		if a, b := tools("want"), tools("have"); a != b {
			t.Errorf("%s: the tools see\n%s\nand\n%s", format, a, b)
		}
	}
}

// chown clears set-id bits and capabilities, a mode written after an ACL changes
// its mask: each order but the one is wrong.
func TestDressOrder(t *testing.T) {
	for _, format := range formatsTested {
		dir := testVolume(t, format)
		shell(t, dir, `
echo > a; chown 5:6 a; chmod 6777 a; setcap cap_chown+ep a
cp -a a b; setcap cap_chown+ep b; chown 7:8 b; chmod 6777 b; setcap cap_chown+ep b
echo > m; setfacl -m u:1:rwx,m::r m; echo > n; setfacl -m u:1:rwx,m::rwx n; chmod 0777 n`)
		for _, p := range [][2]string{{"a", "b"}, {"m", "n"}, {"n", "m"}, {"b", "a"}} {
			want := attrOf(t, dir+"/"+p[0])
			dress(t, dir+"/"+p[1], want, DressFor(format))
			if d := EqualAttr(want, attrOf(t, dir+"/"+p[1]), Ignore{}); d != nil {
				t.Errorf("%s: %s like %s: %v", format, p[1], p[0], d)
			}
		}
	}
}

// An immutable, append-only or synchronous object can be worked on after
// Undress, and what is made in an undressed directory inherits nothing.
func TestUndress(t *testing.T) {
	for _, format := range formatsTested {
		dir := testVolume(t, format)
		shell(t, dir, `mkdir d; setfacl -d -m u:9:rwx d; chattr +iS d; echo > f; chattr +a f`)
		for _, name := range []string{"d", "f"} {
			fd := openPath(t, dir+"/"+name)
			have := attrOf(t, dir+"/"+name)
			for range 2 { // twice: it may be called again after a crash
				if err := Undress(fd, have); err != nil {
					t.Fatal(err)
				}
			}
			if now := attrOf(t, dir+"/"+name); now.Flags != 0 {
				t.Errorf("%s: %s keeps %s", format, name, FlagString(now.Flags))
			}
		}
		shell(t, dir, "mkdir d/new; echo > f; rm f")
		if got := attrOf(t, dir+"/d/new"); len(got.Xattrs) > 0 {
			t.Errorf("%s: a new directory inherited %v", format, got.Xattrs)
		}
	}
}

func TestDressRefusesAnotherType(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, dir+"/f", nil)
	err := Dress(openPath(t, dir+"/f"), Attr{Mode: unix.S_IFDIR | 0o755}, DressFor("ext4"))
	if !errorsIs(err, ErrType) || !isTarget(err) {
		t.Errorf("got %v", err)
	}
}

// What the fit waived is left out and is no error; what it did not is one, and
// the target's.
func TestDressLeavesOutWhatTheFitWaived(t *testing.T) {
	dir := testVolume(t, "ext4")
	writeFile(t, dir+"/f", nil)
	want := Attr{Mode: unix.S_IFREG | 0o600, Xattrs: []Xattr{{"user.big", make([]byte, 65000)}, {"user.small", []byte("x")}}}
	err := Dress(openPath(t, dir+"/f"), want, DressFor("ext4"))
	if !Full(err) {
		t.Errorf("a 65,000-byte attribute on ext4: %v", err)
	}
	o := DressFor("ext4")
	o.Xattr = func(name string, size int) bool { return size < 4000 }
	dress(t, dir+"/f", want, o)
	if got := attrOf(t, dir+"/f"); len(got.Xattrs) != 1 || got.Xattrs[0].Name != "user.small" {
		t.Errorf("got %v", got.Xattrs)
	}
}
