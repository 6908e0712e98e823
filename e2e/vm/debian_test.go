package vm_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fsmigrate/fsmigrate/e2e/vm"
	"github.com/fsmigrate/fsmigrate/e2e/vol"
)

// debian is a machine with Debian and systemd, into which the program was installed by
// packaging/install. Its disks keep what was written when it is killed.
type debian struct {
	*vol.Lab
	t        *testing.T
	initrd   string
	disks    []vm.Disk // the root is vda, acknowledgments are vdb
	acksFile string
	*vm.Machine
}

const switchRoot = `#!/usr/bin/busybox sh
/usr/bin/busybox --install -s /usr/bin
mount -t proc proc /proc
mount -t devtmpfs devtmpfs /dev
while read -r m; do insmod "$m"; done </modules.list
while [ ! -b /dev/vda ]; do usleep 20000; done
mount -t ext4 /dev/vda /root
umount /proc /dev
exec switch_root /root /lib/systemd/systemd
`

// application is a service of the machine's: each boot it has workers of its own.
const application = `#!/bin/sh
if [ ! -e /run/app.first ]; then
	n=$(cat /var/lib/app.boots 2>/dev/null || echo 0)
	echo $((n + 1)) >/var/lib/app.boots
	sync /var/lib/app.boots
	echo $((n * 3)) >/run/app.first
fi
exec pledge run --dir /data --log /run/app.log --marks /dev/disk/by-id/virtio-acks --seed 7 --workers 3 --rate 10 --first "$(cat /run/app.first)"
`

const applicationUnit = `[Unit]
Description=Application
RequiresMountsFor=/data
[Service]
ExecStart=/usr/bin/app
[Install]
WantedBy=multi-user.target
`

const agentUnit = `[Unit]
Description=Agent of the tests
DefaultDependencies=no
[Service]
ExecStart=/usr/bin/vmagent
KillMode=process
[Install]
WantedBy=sysinit.target
`

// newDebian makes the machine's root disk. Lines of fstab and other files go into it as they are.
func newDebian(t *testing.T, fstab string, files map[string]string) *debian {
	t.Helper()
	g := &debian{Lab: vol.New(t), t: t}
	g.initrd, g.acksFile = g.Path("initrd"), g.Path("acks")
	a := &vm.Archive{}
	for _, d := range []string{"proc", "sys", "dev", "root"} {
		a.Dir(d)
	}
	a.File("init", 0o755, []byte(switchRoot))
	a.Link("bin", "usr/bin")
	err := errors.Join(
		a.Program("/bin/busybox", "usr/bin/busybox"),
		kernel.AddModules(a, "virtio_pci", "virtio_blk", "virtio_console", "crc32c_generic"),
		a.Write(g.initrd), os.WriteFile(g.acksFile, nil, 0o600), os.Truncate(g.acksFile, 1<<20))
	if err != nil {
		t.Fatal(err)
	}
	image := g.Image(1536)
	vol.Run(t, "mkfs.ext4", "-q", "-F", "-d", prepared("root"), image)
	dev := g.Loop(image)
	root := g.Mount(dev, "root")
	vol.Run(t, filepath.Join("..", "..", "packaging", "install"), programs.fsmigrate, root)
	put := func(name, text string, perm os.FileMode) {
		path := filepath.Join(root, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), perm)); err != nil {
			t.Fatal(err)
		}
	}
	vol.Run(t, "cp", programs.pledge, programs.agent, filepath.Join(root, "usr/bin"))
	put("usr/bin/app", application, 0o755)
	put("etc/systemd/system/app.service", applicationUnit, 0o644)
	put("etc/systemd/system/vmagent.service", agentUnit, 0o644)
	put("etc/fstab", "/dev/vda / ext4 defaults 0 1\n"+fstab, 0o644)
	put("etc/machine-id", strings.Repeat("0123456789abcdef", 2)+"\n", 0o444)
	put("etc/hostname", "machine\n", 0o644)
	for name, text := range files {
		put(name, text, 0o600)
	}
	if err := os.MkdirAll(filepath.Join(root, "data"), 0o755); err != nil {
		t.Fatal(err)
	}
	vol.Run(t, "chroot", root, "systemctl", "enable", "app.service", "vmagent.service")
	vol.Run(t, "chroot", root, "systemctl", "mask", "apt-daily.timer", "apt-daily-upgrade.timer", "e2scrub_reap.service", "dpkg-db-backup.timer")
	g.Unmount(root)
	vol.Run(t, "losetup", "-d", dev)
	g.disks = []vm.Disk{{File: image, Serial: "root", Cached: true}, {File: g.acksFile, Serial: "acks", Cached: true}}
	return g
}

// disk adds a disk. The first is vdc.
func (g *debian) disk(serial, image string) {
	g.disks = append(g.disks, vm.Disk{File: image, Serial: serial, Cached: true})
}

// on turns the machine on and waits until systemd has nothing more to start.
func (g *debian) on() {
	g.t.Helper()
	g.Machine = vm.Start(g.t, vm.Config{
		Kernel: kernel.Image, Initrd: g.initrd, Append: "console=ttyS0 quiet panic=-1 systemd.show_status=1", MemoryMiB: 1536, Console: g.Path("console"),
		Disks: g.disks,
	})
	// A job that never ends would hang here; "degraded" is for whoever asks about a unit to find out.
	code, out, err := g.Run(bootLimit, "timeout", "150", "systemctl", "is-system-running", "--wait")
	if err != nil {
		g.t.Fatalf("boot: %v\n%s", err, g.console())
	}
	if strings.TrimSpace(out) != "running" {
		_, failed, _ := g.Run(time.Minute, "sh", "-c", "systemctl --failed --no-legend; systemctl list-jobs; journalctl -b -p err --no-pager | tail -30")
		g.t.Logf("boot: exit %d, %s\n%s", code, out, failed)
	}
}

// off turns it off in order; "reboot" is the same, since a machine that reboots ends.
func (g *debian) off() {
	g.t.Helper()
	g.Go("systemctl", "reboot")
	if err := g.Off(bootLimit); err != nil {
		g.t.Fatalf("reboot: %v\n%s", err, g.console())
	}
	g.Kill()
}

func (g *debian) console() string {
	b, err := os.ReadFile(g.Path("console"))
	if err != nil {
		return err.Error()
	}
	return string(b[max(0, len(b)-6000):])
}

// migrationLimit is for a whole migration of a few files.
const migrationLimit = 5 * time.Minute

func (g *debian) fsmigrate(args ...string) string {
	g.t.Helper()
	return g.Must(migrationLimit, append([]string{"fsmigrate"}, args...)...)
}

// is requires an answer of a shell command.
func (g *debian) is(want, command string) {
	g.t.Helper()
	_, out, err := g.Run(time.Minute, "sh", "-c", command)
	if got := strings.TrimSpace(out); err != nil || got != want {
		_, log, _ := g.Run(time.Minute, "sh", "-c", "findmnt -D; systemctl --failed --no-legend; journalctl -b --no-pager | tail -40")
		g.t.Fatalf("%s: %q, want %q (%v)\n%s", command, got, want, err, log)
	}
}

// cutover asks until it is answered with yes: while much is dirty the answer is no.
func (g *debian) cutover(id string) {
	g.t.Helper()
	g.Sh(migrationLimit, "for n in $(seq 60); do fsmigrate cutover "+id+" && exit 0; sleep 1; done; exit 1")
}
