package oracle_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fsmigrate/fsmigrate/e2e/churn"
	"github.com/fsmigrate/fsmigrate/e2e/oracle"
	"github.com/fsmigrate/fsmigrate/e2e/vol"
)

// twins makes two equal volumes with a churned tree: the second is a copy of the
// first one's image.
func twins(t *testing.T, spec string) (a, b string) {
	t.Helper()
	lab := vol.New(t)
	image := lab.Image(512)
	device := lab.Loop(image)
	vol.Mkfs(t, spec, device)
	a = lab.Mount(device, "a")
	r, err := churn.Start(context.Background(), a, lab.Path("log"), churn.Options{Seed: 17, Objects: 400, Ops: 2500, Without: []string{"chattr", "project"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Wait(); err != nil {
		t.Fatal(err)
	}
	for _, command := range [][]string{
		{"dd", "if=/dev/urandom", "of=" + a + "/plain", "bs=5000", "count=1", "status=none"},
		{"mkdir", a + "/folder"},
		{"ln", "-s", "target", a + "/symlink"},
		{"mknod", a + "/device", "c", "1", "3"},
		{"mkfifo", a + "/fifo"},
		{"cp", "/etc/hostname", a + "/hard1"},
	} {
		vol.Run(t, command[0], command[1:]...)
	}
	vol.Run(t, "ln", a+"/hard1", a+"/folder/hard2")
	lab.Unmount(a)
	copied := lab.Path("copy")
	vol.Run(t, "cp", "--sparse=always", image, copied)
	if err := oracle.Fsck(spec, device); err != nil {
		t.Fatal(err)
	}
	lab.Mount(device, "a")
	options := []string{}
	if spec == "xfs" {
		options = []string{"nouuid"}
	}
	return a, lab.Mount(lab.Loop(copied), "b", options...)
}

// One error planted in each attribute is found by the facet that is for it, and
// none is found before.
func TestFindsEveryPlantedError(t *testing.T) {
	a, b := twins(t, "xfs")
	in := func(name string) string { return filepath.Join(b, name) }
	same := []string{"cp", a + "/plain", in("plain")}
	cases := []struct {
		name, facet string
		plant, undo []string
	}{
		{"a byte", "sha256", []string{"bash", "-c", `printf xyz | dd of="$0" bs=1 seek=900 conv=notrunc status=none`, in("plain")}, same},
		{"size", "stat", []string{"truncate", "-s", "+1", in("plain")}, same},
		{"mode", "stat", []string{"chmod", "0751", in("folder")}, []string{"chmod", "0755", in("folder")}},
		{"owner of a symlink", "stat", []string{"chown", "-h", "5:6", in("symlink")}, []string{"chown", "-h", "0:0", in("symlink")}},
		{"mtime", "stat", []string{"touch", "-h", "-d", "2001-02-03 04:05:06.000000007", in("fifo")}, []string{"touch", "-h", "-r", a + "/fifo", in("fifo")}},
		{"symlink target", "symlinks", []string{"ln", "-sfn", "elsewhere", in("symlink")}, []string{"ln", "-sfn", "target", in("symlink")}},
		{"device number", "stat", []string{"bash", "-c", `rm "$0"; mknod "$0" c 1 5`, in("device")}, []string{"bash", "-c", `rm "$0"; mknod "$0" c 1 3`, in("device")}},
		{"flag", "lsattr", []string{"chattr", "+d", in("plain")}, []string{"chattr", "-d", in("plain")}},
		{"project", "lsattr", []string{"chattr", "-p", "77", in("plain")}, []string{"chattr", "-p", "0", in("plain")}},
		{"xattr", "getfattr", []string{"setfattr", "-n", "user.planted", "-v", "1", in("plain")}, []string{"setfattr", "-x", "user.planted", in("plain")}},
		{"trusted xattr of a symlink", "getfattr", []string{"setfattr", "-h", "-n", "trusted.planted", "-v", "1", in("symlink")}, []string{"setfattr", "-h", "-x", "trusted.planted", in("symlink")}},
		{"capability", "getcap", []string{"setcap", "cap_mknod+i", in("plain")}, []string{"setcap", "-r", in("plain")}},
		{"ACL", "getfacl", []string{"setfacl", "-m", "u:4711:r", in("hard1")}, []string{"setfacl", "-b", in("hard1")}},
		{"default ACL", "getfacl", []string{"setfacl", "-d", "-m", "u:4711:r", in("folder")}, []string{"setfacl", "-k", in("folder")}},
		{"something extra", "rsync", []string{"touch", in("extra")}, []string{"rm", in("extra")}},
		{"something gone", "rsync", []string{"rm", in("fifo")}, []string{"mkfifo", in("fifo")}},
		{"a link broken", "links", []string{"bash", "-c", `cp -a "$0" "$0.x"; mv -f "$0.x" "$0"`, in("hard1")}, []string{"ln", "-f", in("folder/hard2"), in("hard1")}},
	}
	requireFacets(t, a, b)
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			vol.Run(t, c.plant[0], c.plant[1:]...)
			requireFacets(t, a, b, c.facet)
			vol.Run(t, c.undo[0], c.undo[1:]...)
			for _, name := range []string{"plain", "symlink", "device", "fifo", "hard1", "folder", "."} {
				vol.Run(t, "touch", "-h", "-r", filepath.Join(a, name), in(name))
			}
			requireFacets(t, a, b)
		})
	}
}

// requireFacets requires that a difference is shown by each facet, and that there
// is none when no facet is named.
func requireFacets(t *testing.T, a, b string, facets ...string) {
	t.Helper()
	found, err := oracle.Compare(a, b, oracle.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if len(facets) == 0 && len(found) > 0 {
		t.Fatalf("equal trees differ:\n%s", strings.Join(found, "\n"))
	}
	for _, f := range facets {
		if !strings.Contains("\n"+strings.Join(found, "\n"), "\n"+f+": ") {
			t.Errorf("not found by %s, but: %q", f, found)
		}
	}
}

func TestFsckFindsDamage(t *testing.T) {
	for spec, offset := range map[string]int64{"ext4": 1024 + 0x0C, "xfs": 144, "btrfs": 64<<10 + 0x70} {
		t.Run(spec, func(t *testing.T) {
			lab := vol.New(t)
			image := lab.Image(512)
			device := lab.Loop(image)
			vol.Mkfs(t, spec, device)
			if err := oracle.Fsck(spec, device); err != nil {
				t.Fatal(err)
			}
			lab.Detach(device)
			f, err := os.OpenFile(image, os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if _, err := f.WriteAt([]byte{0x5a, 0x5a, 0x5a}, offset); err != nil {
				t.Fatal(err)
			}
			if oracle.Fsck(spec, lab.Loop(image)) == nil {
				t.Error("damage was not found")
			}
		})
	}
}

func TestSnapshotSeesAChange(t *testing.T) {
	a, _ := twins(t, "ext4")
	before, err := oracle.Take(a, oracle.Options{})
	if err != nil {
		t.Fatal(err)
	}
	vol.Run(t, "chmod", "0700", filepath.Join(a, "plain"))
	after, err := oracle.Take(a, oracle.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if d := before.Compare(after); len(d) == 0 {
		t.Error("a changed mode was not seen")
	}
	if d := after.Compare(after); len(d) != 0 {
		t.Errorf("nothing changed, but: %q", d)
	}
}
