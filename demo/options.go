package demo

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/fsmigrate/fsmigrate/migrate"
)

// Options are what a demo can be told.
type Options struct {
	Dir   string // where its directory with the images is made; "": TMPDIR or /var/tmp
	Out   string // where the pictures go
	Size  int64  // of each volume, bytes; the images are sparse
	Files int    // files beside the database and the churn
	Keep  bool   // leave the images behind
	// Self is the command line of fsmigrate, which is also started as the application.
	Self string
	Say  func(line string) `json:"-"` // what happens, for a newcomer
}

func (o Options) withDefaults() Options {
	if o.Dir == "" {
		o.Dir = os.Getenv("TMPDIR")
	}
	if o.Dir == "" {
		o.Dir = "/var/tmp" // /tmp is often in memory
	}
	if o.Size == 0 {
		o.Size = 1 << 30
	}
	if o.Files == 0 {
		o.Files = 10000
	}
	if o.Out == "" {
		o.Out = "demo-out"
	}
	if o.Say == nil {
		o.Say = func(string) {}
	}
	return o
}

// Validate refuses what cannot work before anything is made.
func (o Options) Validate() error {
	if os.Geteuid() != 0 {
		return refused("the demo mounts file systems, and only root may", "sudo fsmigrate demo (it touches nothing but images of its own)")
	}
	if o.Size < 512<<20 {
		return &migrate.Problem{Kind: migrate.Usage, What: "--size is too small for the demo", Hint: "512M or more"}
	}
	if o.Files < 1 || int64(o.Files)*16<<10 > o.Size/2 {
		return &migrate.Problem{Kind: migrate.Usage, What: fmt.Sprintf("--files: %d do not fit the volume", o.Files), Hint: "fewer --files, or more --size"}
	}
	for _, tool := range []string{"mkfs.ext4", "mkfs.xfs"} {
		if _, err := exec.LookPath(tool); err != nil {
			return refused(tool+" is missing", "apt-get install e2fsprogs xfsprogs")
		}
	}
	var st unix.Statfs_t
	if err := unix.Statfs(o.Dir, &st); err != nil {
		return fmt.Errorf("look at %s: %w", o.Dir, err)
	}
	if st.Type == unix.TMPFS_MAGIC || st.Type == unix.RAMFS_MAGIC {
		return refused(o.Dir+" is in memory; a migration keeps its state on a disk", "--dir DIR on a disk")
	}
	if _, err := os.Stat("/dev/loop-control"); errors.Is(err, os.ErrNotExist) {
		return refused("this kernel has no loop devices", "modprobe loop; in a container, the demo needs the host's")
	}
	return nil
}

func refused(what, hint string) error {
	return &migrate.Problem{Kind: migrate.IsRefused, What: what, Hint: hint}
}

// paths of a demo, all below its own directory.
type paths struct{ root string }

func (p paths) data() string     { return filepath.Join(p.root, "data") } // the volume
func (p paths) oldImage() string { return filepath.Join(p.root, "old.img") }
func (p paths) newImage() string { return filepath.Join(p.root, "new.img") }
func (p paths) state() string    { return filepath.Join(p.root, "state") }
func (p paths) fstab() string    { return filepath.Join(p.root, "fstab") }
func (p paths) report() string   { return filepath.Join(p.root, "report.json") }
func (p paths) socket() string   { return filepath.Join(p.root, "app.sock") }
func (p paths) ledger() string   { return filepath.Join(p.root, "ledger") } // directory
