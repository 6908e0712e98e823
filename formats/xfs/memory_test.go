package xfs_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fsmigrate/fsmigrate/formats"
	"github.com/fsmigrate/fsmigrate/formats/formattest"
)

// scanThis names a directory to the process that scans in a group.
const scanThis = "FSMIGRATE_TEST_SCAN"

// Bulkstat leaves each inode in the kernel's memory, and a group that is full of them was
// killed although nobody needs one: what it takes to have them let go of cannot be done by
// the one who reads them. Here 60,000 take 60 MiB in a group of 48.
func TestScanKeepsWithinGroup(t *testing.T) {
	if dir := os.Getenv(scanThis); dir != "" {
		scanInGroup(t, dir)
		return
	}
	const files, limit = 60_000, 48 << 20
	v := formattest.MakeWith(t, lookup(t), formats.MakeOptions{Bytes: 1 << 30, Objects: files})
	dir := v.Mount("xfs", "")
	for i := range files {
		if i%1000 == 0 {
			if err := os.Mkdir(filepath.Join(dir, strconv.Itoa(i/1000)), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		fd, err := unix.Open(filepath.Join(dir, strconv.Itoa(i/1000), strconv.Itoa(i)), unix.O_CREAT|unix.O_WRONLY|unix.O_CLOEXEC, 0o644)
		if err != nil {
			t.Fatal(err)
		}
		unix.Close(fd)
	}
	for name, before := range map[string]string{
		"the kernel is asked": ":",
		// As in many containers: then it is the kernel's own worker that is waited for.
		"the groups are read-only": "mount --make-rprivate / && for m in $(findmnt -rno TARGET -t cgroup,cgroup2); do mount -o remount,bind,ro $m; done",
	} {
		t.Run(name, func(t *testing.T) {
			v.Unmount() // what making them left in memory is counted elsewhere
			dir := v.Mount("xfs", "")
			group := memoryGroup(t, limit)
			cmd := exec.Command("unshare", "--mount", "sh", "-ec", `echo $$ >"$0"/cgroup.procs; `+before+`; exec "$@"`,
				group, os.Args[0], "-test.run=^TestScanKeepsWithinGroup$", "-test.v")
			cmd.Env = append(os.Environ(), scanThis+"="+dir)
			out, err := cmd.CombinedOutput()
			if want := fmt.Sprintf("scanned %d inodes", files+files/1000+1); err != nil || !strings.Contains(string(out), want) {
				t.Errorf("%v, without %q:\n%s", err, want, out)
			}
		})
	}
}

func scanInGroup(t *testing.T, dir string) {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	info, err := lookup(t).ScanBatch(t.Context(), formats.ScanTarget{MountFD: fd}, 0, func([]formats.InodeRecord) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("scanned %d inodes", info.Inodes)
}

// memoryGroup makes a control group with a limit of bytes, of either version.
func memoryGroup(t *testing.T, limit int64) string {
	t.Helper()
	name, file := filepath.Join("/sys/fs/cgroup/memory", "fsmigrate-xfs-"+strconv.Itoa(os.Getpid())), "memory.limit_in_bytes"
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err == nil {
		name, file = filepath.Join("/sys/fs/cgroup", filepath.Base(name)), "memory.max"
	}
	if err := os.Mkdir(name, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// Who was in it has been waited for.
		if err := os.Remove(name); err != nil {
			t.Errorf("the control group stays: %v", err)
		}
	})
	if err := os.WriteFile(filepath.Join(name, file), strconv.AppendInt(nil, limit, 10), 0o644); err != nil {
		t.Fatal(err)
	}
	return name
}
