package blockdev_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fsmigrate/fsmigrate/blockdev"
	"github.com/fsmigrate/fsmigrate/blockdev/blocktest"
)

// held is what of a list concerns process pid (0: no process), "kind:path".
func held(list []blockdev.Holder, pid int, dir string) []string {
	var got []string
	for _, h := range list {
		if h.PID == pid {
			text := h.Kind + ":" + string(bytes.TrimPrefix([]byte(h.Path), []byte(dir)))
			if h.Writes {
				text += "!"
			}
			got = append(got, text)
		}
	}
	slices.Sort(got)
	return got
}

func wantHeld(t *testing.T, list []blockdev.Holder, pid int, dir string, want ...string) {
	t.Helper()
	slices.Sort(want)
	if got := held(list, pid, dir); !slices.Equal(got, want) {
		t.Errorf("process %d holds %q, want %q", pid, got, want)
	}
}

func TestFileHolders(t *testing.T) {
	for _, fstype := range fstypes {
		t.Run(fstype, func(t *testing.T) {
			dir, _ := blocktest.NewVolume(t, fstype, blocktest.MinSize(fstype))
			m, err := blockdev.MountAt(dir)
			must(t, err)
			must(t, os.Mkdir(dir+"/d", 0o755))
			writeFile(t, dir+"/r", "r")
			writeFile(t, dir+"/image", "image")
			must(t, os.Truncate(dir+"/image", 1<<20))
			must(t, unix.Mkfifo(dir+"/fifo", 0o600))
			copyFile(t, "/bin/sleep", dir+"/sleep it off")
			if fstype == "btrfs" {
				// Each subvolume has a device number of its own.
				blocktest.Run(t, "btrfs", "subvolume", "create", dir+"/v")
			} else {
				must(t, os.Mkdir(dir+"/v", 0o755))
			}
			writer := start(t, "/", fmt.Sprintf("exec 3>%s/w 4<%s/r 5<>%s/fifo; echo ready; exec sleep 1000", dir, dir, dir))
			inside := start(t, dir+"/v", "exec 3>gone; rm gone; echo ready; exec sleep 1000")
			program := start(t, "/", fmt.Sprintf("echo ready; exec '%s/sleep it off' 1000", dir))
			loop := blocktest.LoopWith(t, dir+"/image", blockdev.LoopOptions{ReadOnly: true})
			other := startIn(t, "private", "sleep", "1000")
			waitFor(t, "the programs", func() bool { return exeOf(program) == dir+"/sleep it off" && exeOf(other) != exeOf(os.Getpid()) })
			shared := mapShared(t, dir+"/mapped")
			defer unix.Munmap(shared)

			var st unix.Stat_t
			must(t, unix.Stat(dir, &st))
			for _, dev := range []uint64{m.Dev, st.Dev} {
				list, err := blockdev.FileHolders(dev, dir)
				must(t, err)
				wantHeld(t, list, writer, dir, "write:/w!", "read:/r", "write:/fifo")
				wantHeld(t, list, inside, dir, "cwd:/v", "write:/v/gone (deleted)!")
				wantHeld(t, list, program, dir, "exe:/sleep it off", "map:/sleep it off")
				wantHeld(t, list, os.Getpid(), dir, "map:/mapped!")
				wantHeld(t, list, other, dir, "mount:!")
				wantHeld(t, list, 0, dir, "loop:/image")
				if at := slices.IndexFunc(list, func(h blockdev.Holder) bool { return !h.Writes }); slices.ContainsFunc(list[at:], func(h blockdev.Holder) bool { return h.Writes }) {
					t.Errorf("writers aren't first: %+v", list)
				}
				i := slices.IndexFunc(list, func(h blockdev.Holder) bool { return h.PID == writer })
				if list[i].Command != "sleep 1000" {
					t.Errorf("command %q", list[i].Command)
				}
			}
			list, err := blockdev.FileHolders(m.Dev, dir, blockdev.IgnorePID(os.Getpid(), writer))
			must(t, err)
			wantHeld(t, list, writer, dir)
			wantHeld(t, list, os.Getpid(), dir)
			must(t, loop.Detach())
		})
	}
}

// A bind of the volume elsewhere in our own namespace is a holder too.
func TestFileHoldersBind(t *testing.T) {
	dir, _ := blocktest.NewVolume(t, "ext4", 32<<20)
	m, err := blockdev.MountAt(dir)
	must(t, err)
	bind := blocktest.TempPoint(t)
	must(t, unix.Mount(dir, bind, "", unix.MS_BIND, ""))
	list, err := blockdev.FileHolders(m.Dev, dir)
	must(t, err)
	wantHeld(t, list, 0, "", "mount:"+bind+"!")
}

func TestFileHoldersRoot(t *testing.T) {
	dir, _ := blocktest.NewVolume(t, "ext4", 32<<20)
	m, err := blockdev.MountAt(dir)
	must(t, err)
	bindSystem(t, dir)
	pid := startCommand(t, "/", "chroot", dir, "/bin/sh", "-c", "echo ready; while :; do sleep 1; done")
	list, err := blockdev.FileHolders(m.Dev, dir)
	must(t, err)
	got := held(list, pid, dir)
	if !slices.Contains(got, "root:") || !slices.Contains(got, "cwd:") {
		t.Errorf("the chroot holds %q", got)
	}
}

func TestSwapFileHolds(t *testing.T) {
	dir, dev := blocktest.NewVolume(t, "ext4", 32<<20)
	m, err := blockdev.MountAt(dir)
	must(t, err)
	writeFile(t, dir+"/swap file", string(make([]byte, 4<<20)))
	must(t, os.Chmod(dir+"/swap file", 0o600))
	blocktest.Run(t, "mkswap", dir+"/swap file")
	if out, err := exec.Command("swapon", dir+"/swap file").CombinedOutput(); err != nil {
		t.Fatalf("swapon: %v: %s", err, out)
	}
	t.Cleanup(func() { exec.Command("swapoff", dir+"/swap file").Run() })
	list, err := blockdev.FileHolders(m.Dev, dir)
	must(t, err)
	wantHeld(t, list, 0, dir, "swap:/swap file!")
	must(t, exec.Command("swapoff", dir+"/swap file").Run())
	_ = dev
}

func TestDeviceHolders(t *testing.T) {
	for _, fstype := range fstypes {
		t.Run(fstype, func(t *testing.T) {
			dev := blocktest.NewDevice(t, fstype, blocktest.MinSize(fstype))
			list, err := blockdev.DeviceHolders(dev)
			must(t, err)
			if len(list) != 0 {
				t.Errorf("free device is held: %+v", list)
			}
			dir := blocktest.MountTemp(t, dev, fstype)
			over := blocktest.Loop(t, dev)
			f, err := os.Open(dev)
			must(t, err)
			defer f.Close()
			other := startIn(t, "private", "sleep", "1000")
			list, err = blockdev.DeviceHolders(dev)
			must(t, err)
			wantHeld(t, list, 0, "", "mount:"+dir+"!", "loop:"+over+"!")
			wantHeld(t, list, other, "", "mount:"+dir+"!")
			wantHeld(t, list, os.Getpid(), "", "read:"+dev)
			_, err = blockdev.OpenExclusive(dev)
			wantErr(t, "exclusive open", err, unix.EBUSY)
		})
	}
}

func TestSwapDeviceHolds(t *testing.T) {
	dev := blocktest.Loop(t, blocktest.MakeImage(t, 8<<20))
	blocktest.Run(t, "mkswap", dev)
	blocktest.Run(t, "swapon", dev)
	t.Cleanup(func() { exec.Command("swapoff", dev).Run() })
	list, err := blockdev.DeviceHolders(dev)
	must(t, err)
	wantHeld(t, list, 0, "", "swap:"+dev+"!")
	blocktest.Run(t, "swapoff", dev)
}

func TestOpenExclusiveRefusals(t *testing.T) {
	file := blocktest.MakeImage(t, 4096)
	if _, err := blockdev.OpenExclusive(file); err == nil {
		t.Error("took a file for a device")
	}
	dev := blocktest.Loop(t, file)
	first, err := blockdev.OpenExclusive(dev)
	must(t, err)
	_, err = blockdev.OpenExclusive(dev)
	wantErr(t, "second", err, unix.EBUSY)
	must(t, first.Close())
}

// A walk of all processes is done often; it must take milliseconds each
// hundred, not each.
func TestFileHoldersIsFast(t *testing.T) {
	dir, _ := blocktest.NewVolume(t, "ext4", 32<<20)
	m, err := blockdev.MountAt(dir)
	must(t, err)
	const processes = 300
	startCommand(t, "/", "sh", "-c", fmt.Sprintf("for i in $(seq %d); do sleep 1000 & done; echo ready; wait", processes))
	begin := time.Now()
	if _, err := blockdev.FileHolders(m.Dev, dir); err != nil {
		t.Fatal(err)
	}
	took := time.Since(begin)
	t.Logf("%d processes and what else there is: %v", processes, took)
	if took > 3*time.Second {
		t.Errorf("took %v", took)
	}
}

func BenchmarkFileHolders(b *testing.B) {
	m, err := blockdev.MountAt("/")
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := blockdev.FileHolders(m.Dev+1, ""); err != nil {
			b.Fatal(err)
		}
	}
}

func exeOf(pid int) string {
	exe, _ := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	return exe
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	must(t, err)
	must(t, os.WriteFile(to, data, 0o755))
}

// mapShared maps a fresh file for writing and closes it.
func mapShared(t *testing.T, path string) []byte {
	t.Helper()
	writeFile(t, path, "mapped")
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	must(t, err)
	defer f.Close()
	m, err := unix.Mmap(int(f.Fd()), 0, 6, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	must(t, err)
	return m
}
