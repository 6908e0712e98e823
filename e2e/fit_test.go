package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fsmigrate/fsmigrate/e2e/vol"
)

// What the target cannot hold is said before anything is begun, by path.
func TestMisfitsAreNamedBeforeTheStart(t *testing.T) {
	cases := []struct {
		name string
		pair pair
		make func(t *testing.T, dir string)
	}{
		{"device number", pair{spec: "ext4", to: "xfs"}, func(t *testing.T, dir string) {
			vol.Run(t, "mknod", filepath.Join(dir, "misfit"), "c", "4000", "5") // xfs: majors to 511
		}},
		{"symlink", pair{spec: "ext4", to: "xfs"}, func(t *testing.T, dir string) {
			if err := os.Symlink(strings.Repeat("x", 2000), filepath.Join(dir, "misfit")); err != nil {
				t.Fatal(err)
			}
		}},
		{"xattr", pair{spec: "xfs", to: "ext4"}, func(t *testing.T, dir string) {
			path := filepath.Join(dir, "misfit")
			vol.Run(t, "touch", path)
			vol.Run(t, "setfattr", "-n", "user.big", "-v", strings.Repeat("x", 60000), path)
		}},
		{"time", pair{spec: "ext4", to: "ext4:inode_size=128"}, func(t *testing.T, dir string) {
			vol.Run(t, "touch", "-d", "2100-01-01", filepath.Join(dir, "misfit"))
		}},
		{"project id", pair{spec: "xfs", to: "btrfs"}, func(t *testing.T, dir string) {
			path := filepath.Join(dir, "misfit")
			vol.Run(t, "touch", path)
			vol.Run(t, "chattr", "-p", "42", path)
		}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, c.pair, 400)
			c.make(t, r.dir)
			before, err := os.ReadFile(r.fstab)
			if err != nil {
				t.Fatal(err)
			}
			for _, args := range [][]string{{"check", r.dir, "--to", c.pair.to, "--spare", r.spare, "--accept-erofs"}, r.runArgs()} {
				code, out := r.cmd(args...)
				if code != 3 && code != 4 {
					t.Errorf("%s: exit %d, want 3 or 4", args[0], code)
				}
				// A table may break a long path into lines.
				if !strings.Contains(strings.Join(strings.Fields(out), ""), "misfit") {
					t.Errorf("%s does not name the path:\n%s", args[0], out)
				}
			}
			if after, err := os.ReadFile(r.fstab); err != nil || string(after) != string(before) {
				t.Errorf("a refused run changed fstab: %v\n%s", err, after)
			}
		})
	}
}
