package vm

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fsmigrate/fsmigrate/blockdev/record"
	"golang.org/x/sys/unix"
)

// Disks are images with a volatile cache: a recorder serves them, and after a cut they
// hold what was flushed, and of the rest what the kind of loss chooses.
type Disks struct {
	t        testing.TB
	recorder string // the program
	dir      string
	mount    string
	n        int // the log that is being written
	server   *exec.Cmd
}

// NewDisks makes images, each NAME=SIZE with the size in MiB and an M, all zero.
func NewDisks(t testing.TB, recorder, dir string, images ...string) *Disks {
	t.Helper()
	d := &Disks{t: t, recorder: recorder, dir: dir, mount: filepath.Join(dir, "disks")}
	if err := os.MkdirAll(d.mount, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	d.serve("record", "--log", d.log(), "--images", strings.Join(images, ","))
	return d
}

func (d *Disks) log() string { return filepath.Join(d.dir, fmt.Sprintf("writes%d.log", d.n)) }

// File is where an image is.
func (d *Disks) File(name string) string { return filepath.Join(d.mount, name) }

func (d *Disks) serve(args ...string) {
	d.t.Helper()
	d.server = exec.Command(d.recorder, append(args, "--dir", d.mount)...)
	d.server.Stderr = os.Stderr
	out, err := d.server.StdoutPipe()
	if err == nil {
		err = d.server.Start()
	}
	if err != nil {
		d.t.Fatalf("recorder: %v", err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		d.t.Fatalf("recorder %v: %q, %v", args, line, err)
	}
}

// Close ends the recorder. Nothing may use the images.
func (d *Disks) Close() {
	if d.server == nil {
		return
	}
	if err := unix.Unmount(d.mount, 0); err != nil {
		d.t.Errorf("unmount the disks: %v", err)
		_ = unix.Unmount(d.mount, unix.MNT_DETACH)
		_ = d.server.Process.Kill()
	}
	_ = d.server.Wait()
	d.server = nil
}

// Fill copies a file to the beginning of an image and flushes it.
func (d *Disks) Fill(name, from string) {
	d.t.Helper()
	in, err := os.Open(from)
	if err != nil {
		d.t.Fatal(err)
	}
	defer in.Close()
	out, err := os.OpenFile(d.File(name), os.O_WRONLY, 0)
	if err != nil {
		d.t.Fatal(err)
	}
	defer out.Close()
	b, zeros := make([]byte, 1<<20), string(make([]byte, 1<<20))
	for off := int64(0); ; {
		n, err := io.ReadFull(in, b)
		if n > 0 && string(b[:n]) != zeros[:n] {
			if _, err := out.WriteAt(b[:n], off); err != nil {
				d.t.Fatal(err)
			}
		}
		if err != nil {
			break
		}
		off += int64(n)
	}
	if err := out.Sync(); err != nil {
		d.t.Fatal(err)
	}
}

// Cut is what was lost: to be printed, and to be asked for with Dump.
type Cut struct {
	log  string
	what string // entries/loss/seed
}

func (c Cut) String() string { return c.what }

// Cut ends the machine's writes where they are and goes on with what a loss leaves of
// them. The machine must be off.
func (d *Disks) Cut(loss record.Loss, seed uint64) Cut {
	d.t.Helper()
	l, err := record.OpenLog(d.log())
	if err != nil {
		d.t.Fatal(err)
	}
	c := Cut{log: d.log(), what: record.Cut{Entries: len(l.Entries), Loss: loss, Seed: seed}.String()}
	_ = l.Close()
	d.Close()
	if d.n > 0 { // the one before is not asked for any more
		_ = os.Remove(filepath.Join(d.dir, fmt.Sprintf("writes%d.log", d.n-1)))
	}
	d.n++
	d.serve("continue", "--log", d.log(), "--after", c.log, "--cut", c.what)
	return c
}

// Dump writes what an image held right after a cut to a file.
func (d *Disks) Dump(c Cut, image, to string) error {
	_ = os.Remove(to)
	out, err := exec.Command(d.recorder, "dump", "--log", c.log, "--cut", c.what, "--image", image, "--to-file", to).CombinedOutput()
	if err != nil {
		return fmt.Errorf("dump %s: %w: %s", image, err, out)
	}
	return nil
}
