package e2e

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fsmigrate/fsmigrate/e2e/vol"
)

// attempt is a run that should be refused.
type attempt struct {
	source, spare, state, to string
	env                      []string
	plan                     string // a plan file instead of the rest
}

func (r *rig) attempt(a attempt) (int, string) {
	r.t.Helper()
	def := func(s *string, d string) {
		if *s == "" {
			*s = d
		}
	}
	def(&a.source, r.dir)
	def(&a.spare, r.spare)
	def(&a.state, r.state)
	def(&a.to, "xfs")
	args := []string{"run", a.source, "--to", a.to, "--spare", a.spare, "--id", id, "--yes", "--no-supervisor", "--accept-erofs"}
	if a.plan != "" {
		args = []string{"run", a.plan, "--yes"}
	}
	cmd := exec.Command(programs.fsmigrate, append(args, "--state", a.state, "--fstab", r.fstab)...)
	cmd.Env = append(r.env(), a.env...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	var exit *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
		r.t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String()
}

// picture is all that a refused run must leave as it was: the source's objects with their
// times, mounts, loops, fstab, the spare's beginning, the state directory.
func (r *rig) picture() string {
	r.t.Helper()
	return vol.Run(r.t, "bash", "-c", `
		find "$1" -xdev -printf '%P %i %s %m %U %G %T@ %C@\n' | sort
		find "$1" -xdev -type f -print0 | sort -z | xargs -0 -r cat 2>/dev/null | sha256sum
		grep "$2" /proc/self/mountinfo | cut -d' ' -f3-; losetup -ln -O NAME,BACK-FILE | grep "$2"
		cat "$3"; head -c 4M "$4" | sha256sum; ls -A "$5"`, "-", r.dir, r.Dir, r.fstab, r.spare, r.state)
}

// What is wrong before anything is begun is refused, with nothing changed and
// nothing left behind.
func TestBadDaysRefused(t *testing.T) {
	r := newRig(t, pairs[0], 400)
	vol.Run(t, "bash", "-c", `mkdir "$0"/dir; for i in $(seq 50); do echo $i > "$0"/dir/f$i; done; dd if=/dev/urandom of="$0"/big bs=1M count=30 status=none`, r.dir)
	sub := func(condition string, try func(t *testing.T) attempt) {
		t.Run(strings.ReplaceAll(condition, "/", "root"), func(t *testing.T) {
			outer := r.t
			r.t, r.Lab.T = t, t
			defer func() { r.t, r.Lab.T = outer, outer }()
			d := dayOf(t, condition)
			a := try(t)
			before := r.picture()
			code, out := r.attempt(a)
			d.judge(t, code, out)
			if after := r.picture(); after != before {
				t.Errorf("%s: the refused run changed something:\n%s\n--- now:\n%s", condition, before, after)
			}
			for _, p := range r.processes() {
				t.Errorf("%s: process %d is left: %v", condition, p.PID, p.Args)
			}
		})
	}
	run := func(name string, args ...string) { r.t.Helper(); vol.Run(r.t, name, args...) }
	scratch := func(spec string, mib int64, name string) (string, string) {
		dev, dir := r.Volume(spec, mib, name)
		r.t.Cleanup(func() { _ = exec.Command("umount", "-l", dir).Run(); r.Detach(dev) })
		return dev, dir
	}
	plain := r.Path("plain")
	run("mkdir", plain)
	undo := func(t *testing.T, name string, args ...string) {
		t.Cleanup(func() { _ = exec.Command(name, args...).Run() })
	}

	sub("SOURCE is not a mount point", func(*testing.T) attempt { return attempt{source: plain} })
	sub("SOURCE is `/`", func(*testing.T) attempt { return attempt{source: "/"} })
	sub("SOURCE is a bind mount of a directory", func(t *testing.T) attempt {
		run("mount", "--bind", filepath.Join(r.dir, "dir"), plain)
		undo(t, "umount", plain)
		return attempt{source: plain}
	})
	sub("SOURCE is a subvolume", func(t *testing.T) attempt {
		dev, dir := scratch("btrfs", 256, "btrfs1")
		run("btrfs", "subvolume", "create", dir+"/inner")
		run("umount", dir)
		run("mount", "-o", "subvol=inner", dev, dir)
		return attempt{source: dir}
	})
	sub("SOURCE has subvolumes below it", func(t *testing.T) attempt {
		_, dir := scratch("btrfs", 256, "btrfs2")
		run("btrfs", "subvolume", "create", dir+"/inner")
		return attempt{source: dir}
	})
	sub("SOURCE is read-only", func(t *testing.T) attempt {
		_, dir := scratch("ext4", 64, "ro")
		run("mount", "-o", "remount,ro", dir)
		return attempt{source: dir}
	})
	sub("SOURCE has errors recorded", func(t *testing.T) attempt {
		dev, dir := scratch("ext4", 64, "errors")
		if err := os.WriteFile("/sys/fs/ext4/"+filepath.Base(dev)+"/trigger_fs_error", []byte("1"), 0); err != nil {
			t.Fatal(err)
		}
		run("sync", "-f", dir)
		return attempt{source: dir}
	})
	sub("SOURCE is mounted a second time", func(t *testing.T) attempt {
		run("mount", "--bind", r.dir, plain)
		undo(t, "umount", plain)
		return attempt{}
	})
	sub("a loop device over a file on SOURCE", func(t *testing.T) attempt {
		loop := r.Loop(filepath.Join(r.dir, "big"))
		undo(t, "losetup", "-d", loop)
		return attempt{}
	})
	sub("SPARE is mounted", func(t *testing.T) attempt { dev, _ := scratch("ext4", 400, "used"); return attempt{spare: dev} })
	sub("SPARE is SOURCE's device", func(*testing.T) attempt { return attempt{spare: r.source} })
	sub("SPARE is held by a process", func(t *testing.T) attempt {
		fd, err := unix.Open(r.spare, unix.O_RDWR|unix.O_EXCL|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(fd) })
		return attempt{}
	})
	sub("SPARE is too small", func(t *testing.T) attempt {
		dev := r.Device(16)
		t.Cleanup(func() { r.Detach(dev) })
		return attempt{spare: dev}
	})
	sub("SPARE bears a signature", func(t *testing.T) attempt {
		dev, dir := scratch("ext4", 400, "old")
		run("umount", dir)
		return attempt{spare: dev}
	})
	sub("SPARE is a loop over a file on SOURCE", func(t *testing.T) attempt {
		file := filepath.Join(r.dir, "image")
		run("truncate", "-s", "400M", file)
		dev := r.Loop(file)
		undo(t, "rm", file)
		undo(t, "losetup", "-d", dev)
		return attempt{spare: dev}
	})
	sub("SPARE is neither a device nor file:PATH,size=SIZE", func(*testing.T) attempt { return attempt{spare: "file:" + r.Path("new")} })
	sub("state directory on SOURCE", func(*testing.T) attempt { return attempt{state: filepath.Join(r.dir, "state")} })
	sub("state directory on SPARE", func(t *testing.T) attempt {
		dev, dir := scratch("ext4", 400, "statespare")
		return attempt{spare: dev, state: filepath.Join(dir, "state")}
	})
	sub("state directory in memory", func(t *testing.T) attempt {
		run("mount", "-t", "tmpfs", "none", plain)
		undo(t, "umount", plain)
		return attempt{state: filepath.Join(plain, "state")}
	})
	sub("state directory unwritable", func(t *testing.T) attempt {
		_, dir := scratch("ext4", 200, "statero")
		run("mount", "-o", "remount,ro", dir)
		return attempt{state: dir}
	})
	sub("state directory too small", func(t *testing.T) attempt { _, dir := scratch("ext4", 32, "statesmall"); return attempt{state: dir} })
	sub("SOURCE has more in it than the target can ever hold", func(t *testing.T) attempt {
		// Two files of 2.5 TiB, in storage that nobody has written yet; blocks of 1 KiB are counted in 32 bits.
		dev, dir := r.Device(6<<20), r.Path("vast")
		run("mkfs.xfs", "-q", "-l", "size=64m", dev)
		run("mkdir", dir)
		run("mount", dev, dir)
		t.Cleanup(func() { _ = exec.Command("umount", "-l", dir).Run(); r.Detach(dev) })
		run("fallocate", "-l", "2500G", dir+"/a")
		run("fallocate", "-l", "2500G", dir+"/b")
		return attempt{source: dir, to: "ext4:block_size=1024,64bit=0"}
	})
	sub("unknown format", func(*testing.T) attempt { return attempt{to: "zfs"} })
	sub("unknown format option", func(*testing.T) attempt { return attempt{to: "xfs:speed=1"} })
	fakes := func(name string, tools map[string]string) []string {
		dir := r.Path(name)
		run("mkdir", dir)
		for tool, script := range tools {
			if err := os.WriteFile(filepath.Join(dir, tool), []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
				r.t.Fatal(err)
			}
		}
		return []string{"PATH=" + dir}
	}
	const path = "/usr/sbin:/usr/bin:/sbin:/bin"
	sub("a tool is missing", func(*testing.T) attempt {
		return attempt{env: fakes("missing", map[string]string{"wipefs": `PATH=` + path + ` exec wipefs "$@"`})}
	})
	sub("a tool is too old", func(*testing.T) attempt {
		env := fakes("old-tools", map[string]string{"mkfs.xfs": "echo mkfs.xfs version 3.2.1"})
		return attempt{env: []string{env[0] + ":" + path}}
	})
	sub("the kernel cannot mount the result", func(*testing.T) attempt {
		env := fakes("future", map[string]string{"mke2fs": `PATH=` + path + `
case "$1" in -V) exec mke2fs -V;; esac
mke2fs "$@" || exit 1
for last; do :; done
exec debugfs -w -R "feature FEATURE_I30" "$last"`})
		return attempt{to: "ext4", env: []string{env[0] + ":" + path}}
	})
	sub("the plan drifted", func(t *testing.T) attempt {
		plan := r.Path("plan.yaml")
		r.must([]string{"plan", r.dir, "--to", "xfs", "--spare", r.spare, "--accept-erofs", "-o", plan})
		run("e2label", r.source, "drifted")
		undo(t, "e2label", r.source, "")
		return attempt{plan: plan}
	})
}
