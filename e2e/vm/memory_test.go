package vm_test

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fsmigrate/fsmigrate/e2e/vm"
	"github.com/fsmigrate/fsmigrate/e2e/vol"
)

// memoryBoot makes one hierarchy of groups, of version 2, with the memory controller.
const memoryBoot = `#!/bin/sh
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mount -t tmpfs tmpfs /tmp
mount -t cgroup2 cgroup2 /sys/fs/cgroup
echo +memory >/sys/fs/cgroup/cgroup.subtree_control
while read -r m; do insmod "$m"; done </modules.list
touch /tmp/ready
`

// The scan of an XFS keeps within its group's limit with the groups of version 2 as well,
// and with Debian's kernel: the test of package xfs, in a machine.
func TestScanKeepsWithinGroup(t *testing.T) {
	lab := vol.New(t)
	program := lab.Path("xfs.test")
	build := exec.Command("go", "test", "-c", "-o", program, "github.com/fsmigrate/fsmigrate/formats/xfs")
	build.Env = append(build.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	a := &vm.Archive{}
	for _, d := range []string{"proc", "sys", "dev", "tmp", "etc", "usr/bin", "sbin"} {
		a.Dir(d)
	}
	a.File("init", 0o755, []byte("#!/usr/bin/busybox sh\n/usr/bin/busybox --install -s /usr/bin\nexec /usr/bin/busybox init\n"))
	a.File("boot", 0o755, []byte(memoryBoot))
	a.File("etc/inittab", 0o644, []byte("::sysinit:/boot\n::respawn:/usr/bin/vmagent\n"))
	a.Link("bin", "usr/bin")
	a.Link("usr/sbin", "../sbin")
	files := map[string]string{programs.agent: "usr/bin/vmagent", program: "usr/bin/xfs.test"}
	for _, name := range []string{"busybox", "mount", "umount", "findmnt", "losetup", "mkfs.xfs", "unshare"} {
		path, err := exec.LookPath(name)
		if err == nil {
			path, err = filepath.EvalSymlinks(path)
		}
		if err != nil {
			t.Fatal(err)
		}
		files[path] = "sbin/" + name
		if name == "busybox" {
			files[path] = "usr/bin/busybox"
		}
	}
	for from, to := range files {
		if err := a.Program(from, to); err != nil {
			t.Fatal(err)
		}
	}
	if err := kernel.AddModules(a, "virtio_pci", "virtio_console", "loop", "xfs", "libcrc32c", "crc32c_generic"); err != nil {
		t.Fatal(err)
	}
	initrd := lab.Path("initrd")
	if err := a.Write(initrd); err != nil {
		t.Fatal(err)
	}
	m := vm.Start(t, vm.Config{Kernel: kernel.Image, Initrd: initrd, Append: "console=ttyS0 quiet panic=-1", MemoryMiB: 1024, Console: lab.Path("console")})
	code, out, err := m.Run(bootLimit+10*time.Minute, "sh", "-c",
		"while [ ! -e /tmp/ready ]; do usleep 50000; done; cat /sys/fs/cgroup/cgroup.controllers; TMPDIR=/tmp xfs.test -test.run '^TestScanKeepsWithinGroup$' -test.v")
	t.Log(out)
	if err != nil || code != 0 || !strings.Contains(out, "--- PASS: TestScanKeepsWithinGroup ") {
		t.Errorf("exit %d, %v", code, err)
	}
}
