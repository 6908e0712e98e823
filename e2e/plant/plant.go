// Package plant puts one error of each kind into a copy of a tree: whatever
// claims to compare trees has to find every one of them.
package plant

import (
	"path/filepath"
	"testing"

	"github.com/fsmigrate/fsmigrate/e2e/vol"
)

// Case is one planted error.
type Case struct {
	Name        string
	Facet       string // the facet of the oracle that is for it
	plant, undo []string
	a, b        string
}

// Objects makes the objects that Cases plants errors in.
func Objects(t testing.TB, a string) {
	t.Helper()
	for _, command := range [][]string{
		{"setfacl", "-b", "-k", a}, // or what is made here, and again by Undo, would inherit
		{"chmod", "0755", a},
		{"dd", "if=/dev/urandom", "of=" + a + "/plain", "bs=5000", "count=1", "status=none"},
		{"mkdir", a + "/folder"},
		{"ln", "-s", "target", a + "/symlink"},
		{"mknod", a + "/device", "c", "1", "3"},
		{"mkfifo", a + "/fifo"},
		{"cp", "/etc/passwd", a + "/hard1"},
	} {
		vol.Run(t, command[0], command[1:]...)
	}
	vol.Run(t, "ln", a+"/hard1", a+"/folder/hard2")
}

// Cases are the errors for b, a copy of a that holds Objects.
func Cases(a, b string) []Case {
	in := func(name string) string { return filepath.Join(b, name) }
	same := []string{"cp", a + "/plain", in("plain")}
	cases := []Case{
		{Name: "a byte", Facet: "sha256", plant: []string{"bash", "-c", `printf xyz | dd of="$0" bs=1 seek=900 conv=notrunc status=none`, in("plain")}, undo: same},
		{Name: "size", Facet: "stat", plant: []string{"truncate", "-s", "+1", in("plain")}, undo: same},
		{Name: "mode", Facet: "stat", plant: []string{"chmod", "0751", in("folder")}, undo: []string{"chmod", "0755", in("folder")}},
		{Name: "owner of a symlink", Facet: "stat", plant: []string{"chown", "-h", "5:6", in("symlink")}, undo: []string{"chown", "-h", "0:0", in("symlink")}},
		{Name: "mtime", Facet: "stat", plant: []string{"touch", "-h", "-d", "2001-02-03 04:05:06.000000007", in("fifo")}, undo: []string{"touch", "-h", "-r", a + "/fifo", in("fifo")}},
		{Name: "symlink target", Facet: "symlinks", plant: []string{"ln", "-sfn", "elsewhere", in("symlink")}, undo: []string{"ln", "-sfn", "target", in("symlink")}},
		{Name: "device number", Facet: "stat", plant: []string{"bash", "-c", `rm "$0"; mknod "$0" c 1 5`, in("device")}, undo: []string{"bash", "-c", `rm "$0"; mknod "$0" c 1 3`, in("device")}},
		{Name: "flag", Facet: "lsattr", plant: []string{"chattr", "+d", in("plain")}, undo: []string{"chattr", "-d", in("plain")}},
		{Name: "project", Facet: "lsattr", plant: []string{"chattr", "-p", "77", in("plain")}, undo: []string{"chattr", "-p", "0", in("plain")}},
		{Name: "xattr", Facet: "getfattr", plant: []string{"setfattr", "-n", "user.planted", "-v", "1", in("plain")}, undo: []string{"setfattr", "-x", "user.planted", in("plain")}},
		{Name: "trusted xattr of a symlink", Facet: "getfattr", plant: []string{"setfattr", "-h", "-n", "trusted.planted", "-v", "1", in("symlink")}, undo: []string{"setfattr", "-h", "-x", "trusted.planted", in("symlink")}},
		{Name: "capability", Facet: "getcap", plant: []string{"setcap", "cap_mknod+i", in("plain")}, undo: []string{"setcap", "-r", in("plain")}},
		{Name: "ACL", Facet: "getfacl", plant: []string{"setfacl", "-m", "u:4711:r", in("hard1")}, undo: []string{"setfacl", "-b", in("hard1")}},
		{Name: "default ACL", Facet: "getfacl", plant: []string{"setfacl", "-d", "-m", "u:4711:r", in("folder")}, undo: []string{"setfacl", "-k", in("folder")}},
		{Name: "something extra", Facet: "rsync", plant: []string{"touch", in("extra")}, undo: []string{"rm", in("extra")}},
		{Name: "something gone", Facet: "rsync", plant: []string{"rm", in("fifo")}, undo: []string{"mkfifo", in("fifo")}},
		{Name: "a link broken", Facet: "links", plant: []string{"bash", "-c", `cp -a "$0" "$0.x"; mv -f "$0.x" "$0"`, in("hard1")}, undo: []string{"ln", "-f", in("folder/hard2"), in("hard1")}},
	}
	for i := range cases {
		cases[i].a, cases[i].b = a, b
	}
	return cases
}

// Do plants the error.
func (c Case) Do(t testing.TB) {
	t.Helper()
	vol.Run(t, c.plant[0], c.plant[1:]...)
}

// Undo makes b equal a again.
func (c Case) Undo(t testing.TB) {
	t.Helper()
	vol.Run(t, c.undo[0], c.undo[1:]...)
	for _, name := range []string{"plain", "symlink", "device", "fifo", "hard1", "folder", "."} {
		vol.Run(t, "touch", "-h", "-r", filepath.Join(c.a, name), filepath.Join(c.b, name))
	}
}
