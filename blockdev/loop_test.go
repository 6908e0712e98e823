package blockdev_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fsmigrate/fsmigrate/blockdev"
	"github.com/fsmigrate/fsmigrate/blockdev/blocktest"
)

func TestLoop(t *testing.T) {
	file := blocktest.MakeImage(t, 8<<20)
	link := filepath.Join(t.TempDir(), "link")
	must(t, os.Symlink(file, link))
	l := blocktest.LoopWith(t, link, blockdev.LoopOptions{DirectIO: true})
	if direct, err := l.DirectIO(); err != nil || !direct {
		t.Errorf("direct I/O %v, %v", direct, err)
	}
	d, err := blockdev.Identify(l.Path)
	must(t, err)
	if d.Bytes != 8<<20 || d.LoopFile != file || d.ReadOnly {
		t.Errorf("device %+v", d)
	}
	if again, err := blockdev.LoopOf(link); err != nil || again == nil || *again != *l {
		t.Errorf("found again: %+v, %v", again, err)
	}
	must(t, os.Truncate(file, 16<<20))
	must(t, l.Rescan())
	if d, err = blockdev.Identify(l.Path); err != nil || d.Bytes != 16<<20 {
		t.Errorf("after growing: %d, %v", d.Bytes, err)
	}
	must(t, l.Detach())
	must(t, l.Detach())
	if again, err := blockdev.LoopOf(file); err != nil || again != nil {
		t.Errorf("after detaching: %+v, %v", again, err)
	}
}

func TestLoopPartReadOnly(t *testing.T) {
	l := blocktest.LoopWith(t, blocktest.MakeImage(t, 8<<20), blockdev.LoopOptions{ReadOnly: true, Offset: 1 << 20, Size: 2 << 20})
	d, err := blockdev.Identify(l.Path)
	must(t, err)
	if d.Bytes != 2<<20 || !d.ReadOnly {
		t.Errorf("device %+v", d)
	}
	for _, id := range d.IDs {
		if strings.HasPrefix(id, "loopfile:") {
			t.Errorf("a part of a file is called %s", id)
		}
	}
	if again, err := blockdev.LoopOf(l.File); err != nil || again != nil {
		t.Errorf("a part is found as the whole: %+v, %v", again, err)
	}
}

// Many at once race for the same free number.
func TestLoopRace(t *testing.T) {
	var wg sync.WaitGroup
	for range 4 {
		file := blocktest.MakeImage(t, 1<<20)
		wg.Go(func() {
			for range 10 {
				l, err := blockdev.AttachLoop(file, blockdev.LoopOptions{})
				if err == nil {
					err = l.Detach()
				}
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// A device that is in use isn't gone because the kernel said yes.
func TestLoopDetachInUse(t *testing.T) {
	dev := blocktest.NewDevice(t, "ext4", 32<<20)
	tree := openTree(t, dev, "ext4", blockdev.MountOptions{})
	d, err := blockdev.Identify(dev)
	must(t, err)
	l := &blockdev.Loop{Path: dev, File: d.LoopFile}
	restore := blockdev.DetachWithin(t, 50)
	wantErr(t, "mounted", l.Detach(), unix.EBUSY)
	restore()
	writeFile(t, tree.Path()+"/name", "works on")
	must(t, tree.Close())
	must(t, l.Detach())
	// Whoever has the number now is none of ours.
	other := blocktest.Loop(t, blocktest.MakeImage(t, 1<<20))
	must(t, (&blockdev.Loop{Path: other, File: d.LoopFile}).Detach())
	if _, err := blockdev.OpenExclusive(other); err != nil {
		t.Errorf("another's loop: %v", err)
	}
}

func TestLoopRefusals(t *testing.T) {
	if _, err := blockdev.AttachLoop(t.TempDir()+"/none", blockdev.LoopOptions{}); !os.IsNotExist(err) && !strings.Contains(err.Error(), "no such file") {
		t.Errorf("missing file: %v", err)
	}
	if _, err := blockdev.AttachLoop(t.TempDir(), blockdev.LoopOptions{ReadOnly: true}); err == nil {
		t.Error("looped a directory")
	}
}

func TestSignatures(t *testing.T) {
	dev := blocktest.Loop(t, blocktest.MakeImage(t, 320<<20))
	if s, err := blockdev.Signatures(dev); err != nil || s != nil {
		t.Fatalf("blank device: %+v, %v", s, err)
	}
	for _, fstype := range fstypes {
		blocktest.Run(t, "wipefs", "-qa", dev)
		blocktest.Mkfs(t, fstype, dev, "-L", "a label")
		s, err := blockdev.Signatures(dev)
		must(t, err)
		if len(s) != 1 || s[0].Type != fstype || s[0].Usage != "filesystem" || s[0].Label != "a label" || len(s[0].UUID) != 36 {
			t.Errorf("%s: %+v", fstype, s)
		}
	}
	if _, err := blockdev.Signatures(dev + "none"); err == nil {
		t.Error("probed what isn't there")
	}
}

func TestResolve(t *testing.T) {
	dev := blocktest.Loop(t, blocktest.MakeImage(t, 8<<20))
	other := blocktest.Loop(t, blocktest.MakeImage(t, 8<<20))
	d, err := blockdev.Identify(dev)
	must(t, err)
	if len(d.IDs) != 1 || d.IDs[0] != "loopfile:"+d.LoopFile {
		t.Fatalf("ids %q", d.IDs)
	}
	for _, hint := range []string{dev, other, "/dev/none", ""} {
		got, err := blockdev.Resolve(d.IDs, hint, d.Bytes)
		if err != nil || got.Name != d.Name {
			t.Errorf("with hint %q: %+v, %v", hint, got, err)
		}
	}
	_, err = blockdev.Resolve(d.IDs, dev, d.Bytes+512)
	wantErr(t, "other size", err, blockdev.ErrWrongSize)
	_, err = blockdev.Resolve([]string{"wwn:none"}, dev, d.Bytes)
	wantErr(t, "hint without an id", err, blockdev.ErrNoDevice)
	got, err := blockdev.Resolve(nil, dev, d.Bytes)
	if err != nil || got.Path != dev {
		t.Errorf("by hint alone: %+v, %v", got, err)
	}
}

// The stack below a loop is that of the file system that its file is on.
func TestIdentifyLoopStack(t *testing.T) {
	for _, fstype := range fstypes {
		t.Run(fstype, func(t *testing.T) {
			dir, dev := blocktest.NewVolume(t, fstype, blocktest.MinSize(fstype))
			writeFile(t, dir+"/image", "")
			must(t, os.Truncate(dir+"/image", 1<<20))
			d, err := blockdev.Identify(blocktest.Loop(t, dir+"/image"))
			must(t, err)
			if len(d.Stack) < 2 || d.Stack[0].Kind != "loop" || "/dev/"+d.Stack[1].Name != dev {
				t.Errorf("stack %+v, want a loop over %s", d.Stack, dev)
			}
		})
	}
	if _, err := blockdev.Identify(t.TempDir()); err == nil {
		t.Error("identified a directory")
	}
}

// A partition is found by the id that its table gives it, and its holders are
// those of its disk.
func TestIdentifyPartition(t *testing.T) {
	file := blocktest.MakeImage(t, 64<<20)
	cmd := exec.Command("sfdisk", "-q", file)
	cmd.Stdin = strings.NewReader("label: gpt\nstart=2048, size=65536, uuid=11111111-2222-3333-4444-555555555555\n")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("sfdisk: %v: %s", err, out)
	}
	l := blocktest.LoopWith(t, file, blockdev.LoopOptions{})
	// From user space: the kernel may have no parser for the table.
	blocktest.Run(t, "partx", "--add", l.Path)
	t.Cleanup(func() { blocktest.Run(t, "partx", "--delete", l.Path) })
	d, err := blockdev.Identify(l.Path + "p1")
	must(t, err)
	if d.WholeDisk != filepath.Base(l.Path) || d.Bytes != 32<<20 || !slices.Contains(d.IDs, "partuuid:11111111-2222-3333-4444-555555555555") {
		t.Errorf("partition %+v", d)
	}
	if len(d.Stack) < 2 || d.Stack[0].Kind != "partition" || d.Stack[1].Kind != "loop" {
		t.Errorf("stack %+v", d.Stack)
	}
	got, err := blockdev.Resolve(d.IDs, "", d.Bytes)
	if err != nil || got.Name != d.Name {
		t.Errorf("resolved %+v, %v", got, err)
	}
	s, err := blockdev.Signatures(l.Path)
	if err != nil || !slices.ContainsFunc(s, func(s blockdev.Signature) bool { return s.Type == "gpt" && s.Usage == "partition-table" }) {
		t.Errorf("signatures %+v, %v", s, err)
	}
	blocktest.Mkfs(t, "ext4", l.Path+"p1")
	dir := blocktest.MountTemp(t, l.Path+"p1", "ext4")
	list, err := blockdev.DeviceHolders(l.Path)
	must(t, err)
	wantHeld(t, list, 0, "", "mount:"+dir+"!")
	blocktest.Detach(t, dir)
}

func TestPressureAndBootID(t *testing.T) {
	p, err := blockdev.IOPressure()
	must(t, err)
	if p.TotalMicros == 0 {
		t.Errorf("pressure %+v", p)
	}
	id, err := blockdev.BootID()
	if err != nil || len(id) != 36 {
		t.Errorf("boot id %q, %v", id, err)
	}
}
