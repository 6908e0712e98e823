package vm_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fsmigrate/fsmigrate/e2e/vm"
	"github.com/fsmigrate/fsmigrate/e2e/vol"
)

// tiny is a machine without a distribution: an initramfs with the program under test, the
// file systems' own tools and busybox. Its disks are vda, which holds /etc and
// /var/lib as a root file system would, vdb and vdc for the volumes, and vdd for what was acknowledged.
type tiny struct {
	*vol.Lab
	t        *testing.T
	disks    *vm.Disks
	acksFile string
	initrd   string
	*vm.Machine
}

// bootLimit is for a machine that is emulated on a host that has other things to do.
const bootLimit = 3 * time.Minute

// boot is what runs first: it mounts what the kernel has, loads the drivers, and puts
// the first disk in its place.
const boot = `#!/bin/sh
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /tmp
while read -r m; do insmod "$m"; done </modules.list
for disk in vda vdb vdc vdd; do
	while [ ! -b /dev/$disk ]; do usleep 20000; done
done
mount -t ext4 /dev/vda /var && mount --bind /var/etc /etc && touch /run/root
mkdir -p /data
`

// newInitrd writes the initramfs.
func newInitrd(file string) error {
	a := &vm.Archive{}
	for _, d := range []string{"proc", "sys", "dev", "run", "tmp", "var", "etc", "data", "usr/bin", "sbin"} {
		a.Dir(d)
	}
	a.File("init", 0o755, []byte("#!/usr/bin/busybox sh\n/usr/bin/busybox --install -s /usr/bin\nexec /usr/bin/busybox init\n"))
	a.File("boot", 0o755, []byte(boot))
	a.File("etc/inittab", 0o644, []byte("::sysinit:/boot\n::respawn:/usr/bin/vmagent\n"))
	a.Link("bin", "usr/bin")
	a.Link("usr/sbin", "../sbin")
	a.Link("sbin/mount.fsmigrate", "fsmigrate")
	for from, to := range map[string]string{programs.fsmigrate: "sbin/fsmigrate", programs.pledge: "usr/bin/pledge", programs.agent: "usr/bin/vmagent"} {
		if err := a.Program(from, to); err != nil {
			return err
		}
	}
	for _, name := range []string{
		"busybox", "mount", "umount", "findmnt", "blkid", "wipefs", "losetup", "mkfs.xfs", "xfs_repair", "mke2fs", "mkfs.ext4", "e2fsck", "mkfs.btrfs", "btrfs",
	} {
		path, err := exec.LookPath(name)
		if err != nil {
			return err
		}
		to := "sbin/" + name // the first in the path of init: before what busybox has
		if name == "busybox" {
			to = "usr/bin/busybox"
		}
		if path, err = filepath.EvalSymlinks(path); err != nil {
			return err
		}
		if err := a.Program(path, to); err != nil {
			return err
		}
	}
	if err := kernel.AddModules(a, "virtio_pci", "virtio_blk", "virtio_console", "loop", "xfs", "btrfs", "libcrc32c", "crc32c_generic"); err != nil {
		return err
	}
	return a.Write(file)
}

// newTiny makes the disks: a source of the kind with some files on it, room for the other
// format, and the root disk with fstab.
func newTiny(t *testing.T, spec string) *tiny {
	t.Helper()
	g := &tiny{Lab: vol.New(t), t: t}
	g.initrd, g.acksFile = g.Path("initrd"), g.Path("acks")
	if err := newInitrd(g.initrd); err != nil {
		t.Fatal(err)
	}
	source := g.source(spec)
	uuid := strings.TrimSpace(vol.Run(t, "blkid", "-p", "-s", "UUID", "-o", "value", source))
	kind, _, _ := strings.Cut(spec, "-")
	root := g.root(fmt.Sprintf("UUID=%s /data %s defaults 0 2\n", uuid, kind))
	if err := errors.Join(os.WriteFile(g.acksFile, nil, 0o600), os.Truncate(g.acksFile, 1<<20)); err != nil {
		t.Fatal(err)
	}
	g.disks = vm.NewDisks(t, programs.recorder, g.Path("machine"), "root=192M", "source=384M", "spare=448M")
	g.disks.Fill("root", root)
	g.disks.Fill("source", source)
	return g
}

// baseFiles is how many files lie on the source before everything begins.
const baseFiles = 1500

// source makes an image with files, and remembers their digests in /var/base.sha256.
func (g *tiny) source(spec string) string {
	t := g.t
	t.Helper()
	image := g.Image(384)
	dev := g.Loop(image)
	vol.Mkfs(t, spec, dev)
	dir := g.Mount(dev, "filled")
	vol.Run(t, "bash", "-c", `set -e; mkdir -p "$0"/base/{0..9}; cd "$0/base"
		for n in $(seq `+fmt.Sprint(baseFiles)+`); do head -c $((n * 7919 % 9000)) /dev/urandom >$((n % 10))/f$n; done
		find . -type f | sort | xargs sha256sum >"$1"`, dir, g.Path("base.sha256"))
	g.Unmount(dir)
	vol.Run(t, "losetup", "-d", dev)
	return image
}

// root makes the root disk.
func (g *tiny) root(fstab string) string {
	t := g.t
	t.Helper()
	tree := g.Path("tree")
	put := func(name, text string) {
		path := filepath.Join(tree, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o755)); err != nil {
			t.Fatal(err)
		}
	}
	digests, err := os.ReadFile(g.Path("base.sha256"))
	if err != nil {
		t.Fatal(err)
	}
	put("base.sha256", string(digests))
	put("etc/fstab", fstab)
	put("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n")
	put("etc/group", "root:x:0:\n")
	put("etc/inittab", "::sysinit:/boot\n::respawn:/usr/bin/vmagent\n")
	put("etc/app", "#!/bin/sh\nexec pledge \"$1\" --dir /data --log /run/pledge.log --marks /dev/vdd --pidfile /run/pledge.pid $(cat /run/pledge.args)\n")
	if b, err := os.ReadFile("/etc/mke2fs.conf"); err == nil {
		put("etc/mke2fs.conf", string(b))
	}
	vol.Run(t, "ln", "-s", "../proc/self/mounts", filepath.Join(tree, "etc/mtab"))
	vol.Run(t, "mkdir", "-p", filepath.Join(tree, "lib"))
	image := g.Image(192)
	vol.Run(t, "mkfs.ext4", "-q", "-F", "-d", tree, image)
	return image
}

// on turns the machine on and waits until it answers.
func (g *tiny) on() {
	g.t.Helper()
	disk := func(name string) vm.Disk { return vm.Disk{File: g.disks.File(name), Serial: name} }
	g.Machine = vm.Start(g.t, vm.Config{
		Kernel: kernel.Image, Initrd: g.initrd, Append: "console=ttyS0 quiet panic=-1", MemoryMiB: 1024, Console: g.Path("console"),
		Disks: []vm.Disk{disk("root"), disk("source"), disk("spare"), {File: g.acksFile, Serial: "acks", Cached: true}},
	})
	if code, out, err := g.Run(bootLimit, "sh", "-c", "while [ ! -d /data ]; do usleep 50000; done"); err != nil || code != 0 {
		g.t.Fatalf("boot: exit %d, %v\n%s\n%s", code, err, out, g.console())
	}
}

func (g *tiny) console() string {
	b, err := os.ReadFile(g.Path("console"))
	if err != nil {
		return err.Error()
	}
	return string(b[max(0, len(b)-6000):])
}
