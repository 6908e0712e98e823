package e2e

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fsmigrate/fsmigrate/e2e/vol"
	"golang.org/x/sys/unix"
)

// disks are the machine's: files of a mount that a recorder serves, with loops over them.
// They are attached, cut off and attached again in another state at the same paths.
type disks struct {
	t      testing.TB
	lab    *vol.Lab
	dir    string // the mount
	log    string
	prefix string // of the images' names
	names  []string
	loops  map[string]string // name → device
	server *exec.Cmd
}

func newDisks(t testing.TB, lab *vol.Lab) *disks {
	t.Helper()
	d := &disks{t: t, lab: lab, dir: lab.Path("disks"), log: lab.Path("writes.log"), loops: map[string]string{}}
	// Once the mount is gone, the kernel shows of a loop's file only its name there:
	// whoever sweeps up after a crash must find the lab in it.
	for _, part := range strings.Split(lab.Dir, "/") {
		if strings.HasPrefix(part, "fsmigrate-lab.") {
			d.prefix = part + "-"
		}
	}
	if err := os.MkdirAll(d.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	d.byForce()
	return d
}

// byForce takes away what is there at the test's end: something failed then.
func (d *disks) byForce() {
	d.t.Cleanup(func() {
		if d.server != nil {
			_ = vol.Clean(d.lab.Dir)
		}
	})
}

// beside is the same disks for another log, when these are stopped.
func (d *disks) beside(log string) *disks {
	o := *d
	o.log, o.loops, o.server = log, map[string]string{}, nil
	o.byForce()
	return &o
}

// record begins a log; each size is in MiB.
func (d *disks) record(source, shadow, state int) {
	d.t.Helper()
	d.names = []string{"source", "shadow", "state"}
	var specs []string
	for i, mib := range []int{source, shadow, state} {
		specs = append(specs, fmt.Sprintf("%s%s=%dM", d.prefix, d.names[i], mib))
	}
	d.start("record", "--log", d.log, "--images", strings.Join(specs, ","))
}

// start runs the recorder and puts loops over what it serves.
func (d *disks) start(args ...string) {
	d.t.Helper()
	cmd := exec.Command(programs.recorder, append(args, "--dir", d.dir)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		d.t.Fatalf("recorder: %v", err)
	}
	d.server = cmd
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		d.t.Fatalf("recorder %v: %q, %v", args, line, err)
	}
	for _, name := range d.names {
		dev, err := attachLoop(filepath.Join(d.dir, d.prefix+name))
		if err != nil {
			d.t.Fatal(err)
		}
		d.loops[name] = dev
	}
}

// attachLoop puts a loop with direct I/O over a file.
func attachLoop(file string) (string, error) {
	backing, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		return "", err
	}
	defer backing.Close()
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return "", err
	}
	defer control.Close()
	for range 50 {
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return "", fmt.Errorf("find a free loop: %w", err)
		}
		path := fmt.Sprintf("/dev/loop%d", n)
		dev, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			continue
		}
		c := unix.LoopConfig{Fd: uint32(backing.Fd())}
		c.Info.Flags = unix.LO_FLAGS_DIRECT_IO
		copy(c.Info.File_name[:len(c.Info.File_name)-1], filepath.Base(file))
		err = unix.IoctlLoopConfigure(int(dev.Fd()), &c)
		dev.Close()
		if err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("no loop for %s", file)
}

// stop takes everything away again. The volumes must be unmounted.
func (d *disks) stop() {
	d.t.Helper()
	for name, dev := range d.loops {
		free := func() bool {
			f, err := os.OpenFile(dev, os.O_RDONLY|unix.O_EXCL, 0)
			if err != nil {
				return false
			}
			defer f.Close()
			return unix.IoctlSetInt(int(f.Fd()), unix.LOOP_CLR_FD, 0) == nil
		}
		if !vol.Eventually(20*time.Second, free) {
			d.t.Fatalf("%s (%s) is still in use", dev, name)
		}
		gone := func() bool {
			_, err := os.Stat("/sys/block/" + filepath.Base(dev) + "/loop/backing_file")
			return err != nil
		}
		if !vol.Eventually(20*time.Second, gone) {
			d.t.Fatalf("%s (%s) stays attached", dev, name)
		}
		delete(d.loops, name)
	}
	if err := unix.Unmount(d.dir, 0); err != nil {
		d.t.Fatalf("unmount the disks: %v", err)
	}
	err := d.server.Wait()
	d.server = nil
	if err != nil {
		d.t.Fatalf("recorder: %v", err)
	}
}

// mark puts a text into the log.
func (d *disks) mark(format string, v ...any) {
	d.t.Helper()
	f, err := os.OpenFile(d.marks(), os.O_WRONLY, 0)
	if err != nil {
		d.t.Fatal(err)
	}
	defer f.Close()
	if _, err := fmt.Fprintf(f, format, v...); err != nil {
		d.t.Fatal(err)
	}
}

func (d *disks) marks() string { return filepath.Join(d.dir, "marks") }
