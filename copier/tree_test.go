package copier

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"testing"

	"github.com/fsmigrate/fsmigrate/blockdev/blocktest"
	"golang.org/x/sys/unix"
)

// formatsTested are the file systems that objects are carried between.
var formatsTested = []string{"ext4", "xfs", "btrfs"}

const volumeBytes = 400 << 20

// testVolume is a mounted file system of the named format.
func testVolume(t testing.TB, format string) string {
	t.Helper()
	// noatime: the tools that judge read what they judge
	return blocktest.MountTemp(t, blocktest.NewDevice(t, format, volumeBytes), format, "noatime")
}

func openDir(t testing.TB, path string) int {
	t.Helper()
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

func openPath(t testing.TB, path string) int {
	t.Helper()
	fd, err := unix.Open(path, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

func attrOf(t testing.TB, path string) Attr {
	t.Helper()
	fd, err := unix.Open(path, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	a, err := ReadAttr(fd, NewBuffers())
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// shell runs a script in dir: the tests plant with tools, not with our own code.
func shell(t testing.TB, dir, script string) string {
	t.Helper()
	return blocktest.Run(t, "sh", "-euc", "cd '"+dir+"'\n"+script)
}

// plant makes one object of every type, with everything that an object can have.
// Immutable and append-only are set last, and freed before the volume goes.
func plant(t testing.TB, dir string) {
	t.Helper()
	shell(t, dir, `
echo plain > file; chmod 0640 file; chown 70000:80000 file
setfattr -n user.one -v 1 file; setfattr -n user.empty file; setfattr -n trusted.t -v 0x00ff00 file; setfattr -n security.s -v sec file
echo x > acl; setfacl -m u:1001:rwx,u:70001:r,g:2002:rx,m::rw acl
echo x > suid; chown 5:6 suid; chmod 6755 suid; setfacl -m u:1001:rx suid
cp /bin/true caps; chown 12:13 caps; setcap cap_net_raw,cap_sys_admin+ep caps
echo x > immutable; chattr +iA immutable
echo x > append; chattr +ad append
mkdir dir; chown 7:8 dir; chmod 3775 dir; setfacl -m u:9:rwx dir; setfacl -d -m u:10:rx,g:11:rwx dir; setfattr -n user.d -v dir dir
mkdir dir/sub; echo y > dir/sub/inherits
mkdir sticky; chmod 1777 sticky; setfattr -n trusted.d -v x sticky
ln -s 'target of a link' link; chown -h 14:15 link; setfattr -h -n trusted.l -v link link; setfattr -h -n security.l -v link link
mkfifo -m 0604 fifo; chown 1:2 fifo; setfacl -m u:77:rw fifo; setfattr -h -n trusted.f -v fifo fifo
mknod -m 0600 char c 300 70000; mknod -m 0660 block b 7 262143; setfattr -n trusted.b -v b block
echo z > one; ln one dir/two; ln one 'three
lines'
head -c 200 /dev/zero > "$(printf 'bad\377name')"
chmod 4711 one
touch -d '1969-12-31 23:59:58.000000001 UTC' file
touch -d '2030-01-02 03:04:05.999999999 UTC' -h link
touch -d '2005-06-07 08:09:10.123456789 UTC' dir
`)
	sock, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, "sock"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	sock.SetUnlinkOnClose(false)
	sock.Close()
	t.Cleanup(func() { blocktest.Run(t, "sh", "-c", "chattr -ia '"+dir+"'/* 2>/dev/null; true") })
}

// describe is what the tools of others say of every object below dir.
func describe(t testing.TB, dir string) []string {
	t.Helper()
	out := shell(t, dir, `
find . -print0 | sort -z | grep -zv lost+found > /tmp/describe.$$
xargs -0 -n 1 stat --printf '%n|%F|%a|%u:%g|%t:%T|%X|%.Y|%.X|\n' < /tmp/describe.$$ | sed 's/^/stat /'
find . ! -type d -printf 'links %p %n %l\n' | sort
xargs -0 getfattr -h -d -m - -e hex < /tmp/describe.$$ 2>&1
xargs -0 getfacl -P -n -p < /tmp/describe.$$ 2>/dev/null
xargs -0 getcap < /tmp/describe.$$ 2>/dev/null
find . \( -type f -o -type d \) -print0 | sort -z | grep -zv lost+found | xargs -0 lsattr -d -p
find . -type f -print0 | sort -z | xargs -0 sha256sum
rm /tmp/describe.$$
`)
	var lines []string
	section := ""
	for _, l := range strings.Split(out, "\n") {
		if strings.HasPrefix(l, "# file:") {
			section = l
		}
		if strings.HasPrefix(l, "trusted.SGI_ACL_") {
			continue // xfs shows its ACLs twice
		}
		if f := strings.Fields(l); len(f) == 3 && len(f[1]) == 22 && strings.Trim(f[1], flagChars) == "" {
			l = f[0] + " " + strings.NewReplacer("e", "-", "I", "-").Replace(f[1]) + " " + f[2]
		}
		if strings.HasPrefix(l, "stat ./char") || strings.HasPrefix(l, "stat .|") {
			l = strings.TrimSpace(l)
		}
		if strings.Contains(l, "=0x") || strings.HasPrefix(l, "system.") {
			l = section + " " + l // the tool lists attributes in the order of the disk
		}
		lines = append(lines, l)
	}
	sort.Strings(lines)
	return lines
}

const flagChars = "suSDiadAcEjItTeCxFNPVm-"

// diffLines says in what two descriptions differ.
func diffLines(a, b []string) []string {
	seen := make(map[string]int)
	for _, l := range a {
		seen[l]++
	}
	var out []string
	for _, l := range b {
		if seen[l]--; seen[l] < 0 {
			out = append(out, "+ "+l)
		}
	}
	for l, n := range seen {
		for ; n > 0; n-- {
			out = append(out, "- "+l)
		}
	}
	sort.Strings(out)
	return out
}

// carry copies a tree with nothing but this package, as plainly as possible.
func carry(t testing.TB, src, dst int, o DressOptions) {
	t.Helper()
	c := carrier{t: t, o: o, links: map[uint64]string{}, root: dst, b: NewBuffers()}
	c.dir(src, dst, ".")
}

type carrier struct {
	t     testing.TB
	o     DressOptions
	links map[uint64]string
	root  int
	b     *Buffers
}

func (c *carrier) check(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

func (c *carrier) dir(src, dst int, path string) {
	c.t.Helper()
	want, err := ReadAttr(src, c.b)
	c.check(err)
	c.check(Prime(dst, want, c.o))
	entries, err := listSorted(src, c.b)
	c.check(err)
	for _, e := range entries {
		if path == "." && e.name == "lost+found" {
			continue
		}
		c.entry(src, dst, e, path+"/"+e.name)
	}
	c.check(Dress(dst, want, c.o))
}

func (c *carrier) entry(src, dst int, e listed, path string) {
	c.t.Helper()
	sfd, err := openEntry(src, e.name, e.typ)
	c.check(err)
	defer unix.Close(sfd)
	want, err := ReadAttr(sfd, c.b)
	c.check(err)
	if first, ok := c.links[want.Ino]; ok {
		c.check(unix.Linkat(c.root, first, dst, e.name, 0))
		return
	}
	flags := unix.O_PATH | unix.O_NOFOLLOW
	switch want.Type() {
	case unix.S_IFDIR:
		flags = unix.O_RDONLY | unix.O_DIRECTORY
		c.check(unix.Mkdirat(dst, e.name, 0o700))
	case unix.S_IFREG:
		flags = unix.O_RDWR
		c.check(unix.Mknodat(dst, e.name, unix.S_IFREG|0o600, 0))
	case unix.S_IFLNK:
		target, err := ReadLink(sfd, c.b)
		c.check(err)
		c.check(unix.Symlinkat(target, dst, e.name))
	default:
		c.check(unix.Mknodat(dst, e.name, want.Type()|0o600, int(want.Rdev)))
	}
	dfd, err := OpenBeneath(dst, e.name, flags, 0)
	c.check(err)
	defer unix.Close(dfd)
	switch want.Type() {
	case unix.S_IFDIR:
		c.dir(sfd, dfd, path)
		return
	case unix.S_IFREG:
		c.check(Prime(dfd, want, c.o))
		_, err = CopyFd(context.Background(), sfd, dfd, want.Size, CopyOptions{Fresh: true, Buffers: c.b})
		c.check(err)
	}
	if want.Nlink > 1 {
		c.links[want.Ino] = path
	}
	c.check(Dress(dfd, want, c.o))
}

func writeFile(t testing.TB, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
}

func isErrno(err error, want unix.Errno) bool { return errors.Is(err, want) }

func errorsIs(err, target error) bool { return errors.Is(err, target) }
