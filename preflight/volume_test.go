package preflight

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fsmigrate/fsmigrate/blockdev"
	"github.com/fsmigrate/fsmigrate/blockdev/blocktest"
	"github.com/fsmigrate/fsmigrate/formats"
	"github.com/fsmigrate/fsmigrate/migrate"
)

// rig is a mounted volume with a few files, a spare, an fstab and a state directory.
type rig struct {
	t                              *testing.T
	dir, source, spare, tab, state string
}

func newRig(t *testing.T, fstype string, mkfsArgs ...string) *rig {
	t.Helper()
	r := &rig{t: t, tab: filepath.Join(t.TempDir(), "fstab"), state: t.TempDir()}
	r.dir, r.source = blocktest.NewVolume(t, fstype, max(blocktest.MinSize(fstype), 64<<20), mkfsArgs...)
	r.spare = blocktest.Loop(t, blocktest.MakeImage(t, 400<<20))
	line := fmt.Sprintf("%s %s %s defaults,noatime 0 2\n", r.source, r.dir, fstype)
	if err := os.WriteFile(r.tab, []byte(line), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(r.state, 0o700); err != nil {
		t.Fatal(err)
	}
	for i := range 50 {
		if err := os.WriteFile(filepath.Join(r.dir, fmt.Sprint("f", i)), make([]byte, i*100), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return r
}

func (r *rig) plan(to string) *migrate.Plan {
	r.t.Helper()
	p, err := Make(r.t.Context(), Request{ID: "t1", Source: r.dir, To: to, Spare: r.spare, Fstab: r.tab,
		Set: func(p *migrate.Plan) { p.Service.AcceptEROFS = true }})
	if err != nil {
		r.t.Fatal(err)
	}
	return p
}

func (r *rig) check(p *migrate.Plan) map[string]migrate.Check {
	r.t.Helper()
	checks, _, err := Run(r.t.Context(), Options{Plan: p, State: r.state})
	if err != nil {
		r.t.Fatal(err)
	}
	out := map[string]migrate.Check{}
	for _, c := range checks {
		if _, twice := out[c.Name]; twice {
			r.t.Errorf("two checks are called %s", c.Name)
		}
		out[c.Name] = c
		if c.Verdict == migrate.Refused && c.Remedy == "" {
			r.t.Errorf("%s is refused without a remedy", c.Name)
		}
	}
	return out
}

// want compares one verdict, and what must be told with it.
func (r *rig) want(p *migrate.Plan, name string, v migrate.Verdict, words ...string) {
	r.t.Helper()
	c, ok := r.check(p)[name]
	if !ok || c.Verdict != v {
		r.t.Errorf("%s: %q (%s), want %s", name, c.Verdict, c.Found, v)
	}
	for _, w := range words {
		if !strings.Contains(c.Found+" "+c.Remedy, w) {
			r.t.Errorf("%s: %q is in neither %q nor %q", name, w, c.Found, c.Remedy)
		}
	}
}

// A plan of a real volume has what a later run needs to find both sides, and every
// check of it passes.
func TestMakeAndRun(t *testing.T) {
	r := newRig(t, "ext4", "-L", "a-long-label-16b")
	p := r.plan("xfs:bigtime=1")
	if p.Source.Mount != r.dir || p.Source.Format != "ext4" || p.Source.UUID == "" || p.Source.Label != "a-long-label-16b" {
		t.Errorf("source: %+v", p.Source)
	}
	if p.Target.Label != "a-long-label" { // xfs has 12 bytes
		t.Errorf("label: %q", p.Target.Label)
	}
	for side, d := range map[string]migrate.DeviceSpec{"source": p.Source.Device, "spare": p.Target.Spare} {
		if got, err := blockdev.Resolve(d.IDs, "/dev/null", d.Bytes); err != nil || got.Path != map[string]string{"source": r.source, "spare": r.spare}[side] {
			t.Errorf("%s is not found by its ids %q: %+v, %v", side, d.IDs, got.Path, err)
		}
	}
	if p.Persist.Fstab != r.tab || !strings.Contains(p.Persist.Entry, "defaults,noatime") {
		t.Errorf("fstab: %+v", p.Persist)
	}
	if p.Observed.Objects != 52 || len(p.Observed.Tools) == 0 || p.Observed.Kernel == "" || p.Target.Options["bigtime"] != "1" {
		t.Errorf("observed: %+v", p.Observed) // 50 files, the root, lost+found
	}
	text, err := p.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	back, err := migrate.ParsePlan(text)
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	for name, c := range r.check(&back) {
		if c.Verdict == migrate.Refused {
			t.Errorf("%s is refused: %s; %s", name, c.Found, c.Need)
		}
	}
	if left, _ := filepath.Glob(r.state + "/.*fsmigrate*"); len(left) > 0 {
		t.Errorf("left in the state directory: %q", left)
	}
	if sigs, err := blockdev.Signatures(r.spare); err != nil || len(sigs) > 0 {
		t.Errorf("the checks wrote to the spare: %v, %v", sigs, err)
	}
}

// Whatever the plan observed and is now otherwise is named, field by field.
func TestDrift(t *testing.T) {
	r := newRig(t, "ext4")
	good := r.plan("xfs")
	for field, change := range map[string]func(*migrate.Plan){
		"source.format":          func(p *migrate.Plan) { p.Source.Format = "ext3" },
		"source.uuid":            func(p *migrate.Plan) { p.Source.UUID = "other" },
		"source.label":           func(p *migrate.Plan) { p.Source.Label = "other" },
		"source.device.ids":      func(p *migrate.Plan) { p.Source.Device.IDs = []string{"wwn:1"} },
		"source.device.bytes":    func(p *migrate.Plan) { p.Source.Device.Bytes++ },
		"persist.entry":          func(p *migrate.Plan) { p.Persist.Entry += ",ro" },
		"observed.kernel":        func(p *migrate.Plan) { p.Observed.Kernel = "2.6.32" },
		"observed.mount_options": func(p *migrate.Plan) { p.Observed.MountOptions = "rw" },
		"observed.propagation":   func(p *migrate.Plan) { p.Observed.Propagation = "shared:9" },
		"observed.features":      func(p *migrate.Plan) { p.Observed.Features = nil },
	} {
		p := *good
		change(&p)
		tg, err := look(&p)
		if err != nil {
			t.Fatalf("%s: %v", field, err)
		}
		expect(t, tg, func(l *list) {
			if err := checkDrift(t.Context(), l, tg, nil); err != nil {
				t.Fatal(err)
			}
		}, "drift", migrate.Refused, field)
	}
	r.want(good, "drift", migrate.OK)
	if err := os.WriteFile(r.tab, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	r.want(good, "drift", migrate.Refused, "persist.fstab")
}

func TestRefusedPlans(t *testing.T) {
	r := newRig(t, "ext4")
	file := filepath.Join(r.dir, "f1")
	fstabOf := func(line string) string {
		path := filepath.Join(t.TempDir(), "fstab")
		if err := os.WriteFile(path, []byte(line), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for name, c := range map[string]struct {
		r    Request
		kind migrate.Kind
		word string
	}{
		"no mount point":   {Request{Source: t.TempDir(), To: "xfs", Spare: r.spare}, migrate.IsRefused, "not a mount point"},
		"nothing there":    {Request{Source: "/nowhere", To: "xfs", Spare: r.spare}, migrate.IsRefused, "not a mount point"},
		"the root":         {Request{Source: "/", To: "xfs", Spare: r.spare}, migrate.IsRefused, "root volume"},
		"no device":        {Request{Source: "/proc", To: "xfs", Spare: r.spare}, migrate.IsRefused, "not on a block device"},
		"unknown format":   {Request{Source: r.dir, To: "zfs", Spare: r.spare}, migrate.Usage, "zfs"},
		"unknown option":   {Request{Source: r.dir, To: "xfs:speed=1", Spare: r.spare}, migrate.Usage, "speed"},
		"spare is a file":  {Request{Source: r.dir, To: "xfs", Spare: file}, migrate.IsRefused, "spare"},
		"spare is missing": {Request{Source: r.dir, To: "xfs", Spare: "/dev/nowhere"}, migrate.IsRefused, "spare"},
		"taken over": {Request{Source: r.dir, To: "xfs", Spare: r.spare, Fstab: fstabOf("other " + r.dir + " fsmigrate defaults 0 0\n")},
			migrate.IsRefused, "other"},
	} {
		c.r.ID = "t1"
		p, err := Make(t.Context(), c.r)
		if migrate.KindOf(err) != c.kind || !strings.Contains(fmt.Sprint(err), c.word) || migrate.HintOf(err) == "" {
			t.Errorf("%s: %v, %v (hint %q), want %s with %q", name, p, err, migrate.HintOf(err), c.kind, c.word)
		}
	}
}

func TestSourceRefused(t *testing.T) {
	r := newRig(t, "ext4")
	good := r.plan("xfs")
	other := blocktest.TempPoint(t)
	blocktest.Run(t, "mount", "--bind", r.dir, other)
	r.want(good, "other-mounts", migrate.Refused, other)
	blocktest.Run(t, "umount", other)

	if err := os.Mkdir(filepath.Join(r.dir, "part"), 0o755); err != nil {
		t.Fatal(err)
	}
	blocktest.Run(t, "mount", "--bind", filepath.Join(r.dir, "part"), other)
	if _, err := Make(t.Context(), Request{ID: "t1", Source: other, To: "xfs", Spare: r.spare}); migrate.KindOf(err) != migrate.IsRefused ||
		!strings.Contains(err.Error(), "/part") {
		t.Errorf("a bind of a directory: %v", err)
	}
	blocktest.Run(t, "umount", other)

	blocktest.Run(t, "mount", "-o", "remount,ro", r.dir)
	r.want(good, "source-writable", migrate.Refused)
	blocktest.Run(t, "mount", "-o", "remount,rw", r.dir)

	blocktest.Loop(t, filepath.Join(r.dir, "f49"))
	r.want(good, "kernel-holders", migrate.Refused, "f49")

	_, err := exec.Command("sh", "-c", "echo 1 > /sys/fs/ext4/"+filepath.Base(r.source)+"/trigger_fs_error").CombinedOutput()
	if err != nil {
		t.Fatal(err)
	}
	blocktest.Run(t, "sync", "-f", r.dir)
	r.want(good, "source-errors", migrate.Refused, "e2fsck")

	tg, err := look(good)
	if err != nil {
		t.Fatal(err)
	}
	expect(t, tg, func(l *list) {
		_ = checkSource(t.Context(), l, tg, &Options{Others: map[string]string{r.source: "t9"}})
	}, "second-run", migrate.Refused, "t9")
	tg.mount.Point = "/"
	expect(t, tg, func(l *list) { _ = checkSource(t.Context(), l, tg, &Options{}) }, "mount-point", migrate.Refused, "rescue")
	tg.volume.Props = map[string]string{"devices": "2"}
	expect(t, tg, func(l *list) { _ = checkSource(t.Context(), l, tg, &Options{}) }, "source-devices", migrate.Refused)
	tg.mount.SuperOptions = "rw,context=system_u:object_r:x:s0"
	expect(t, tg, func(l *list) { _ = checkOptions(t.Context(), l, tg, nil) }, "security-label", migrate.Refused)
	tg.mount.SuperOptions = "rw,grpquota"
	expect(t, tg, func(l *list) { _ = checkQuota(t.Context(), l, tg, nil) }, "quota-limits", migrate.Refused, "repquota")
}

func TestSpareRefused(t *testing.T) {
	r := newRig(t, "ext4")
	good := r.plan("xfs")
	on := func(spare string) *migrate.Plan {
		other := *r
		other.spare = spare
		return other.plan("xfs")
	}
	r.want(on(r.source), "spare-device", migrate.Refused, "the source itself")

	inside := filepath.Join(r.dir, "image")
	blocktest.Run(t, "truncate", "-s", "400M", inside)
	l := blocktest.LoopWith(t, inside, blockdev.LoopOptions{})
	r.want(on(l.Path), "spare-device", migrate.Refused, "on the source")
	if err := l.Detach(); err != nil {
		t.Fatal(err)
	}
	blocktest.Run(t, "rm", inside)

	above := blocktest.Loop(t, r.source)
	r.want(on(above), "spare-device", migrate.Refused, r.source)

	mounted, dev := blocktest.NewVolume(t, "xfs", 320<<20)
	r.want(on(dev), "spare-free", migrate.Refused, mounted)
	p := on(dev)
	r.state = filepath.Join(mounted, "state")
	r.want(p, "state-directory", migrate.Refused, "the spare")
	r.state = t.TempDir()
	blocktest.Run(t, "umount", mounted)
	r.want(on(dev), "spare-blank", migrate.Refused, "xfs", "--wipe")
	p = on(dev)
	p.Target.Wipe = true
	r.want(p, "spare-blank", migrate.Warning)

	ro := blocktest.LoopWith(t, blocktest.MakeImage(t, 400<<20), blockdev.LoopOptions{ReadOnly: true})
	r.want(on(ro.Path), "spare-device", migrate.Refused, "read-only")

	f, err := os.OpenFile(r.spare, os.O_RDWR|unix.O_EXCL, 0)
	if err != nil {
		t.Fatal(err)
	}
	r.want(good, "spare-free", migrate.OK) // what we hold ourselves is not counted
	f.Close()

	tg, err := look(good)
	if err != nil {
		t.Fatal(err)
	}
	expect(t, tg, func(l *list) {
		_ = checkSpare(t.Context(), l, tg, &Options{Others: map[string]string{r.spare: "t9"}})
	}, "spare-device", migrate.Refused, "t9")
}

func TestStateRefused(t *testing.T) {
	r := newRig(t, "ext4")
	good := r.plan("xfs")
	tmpfs := blocktest.TempPoint(t)
	blocktest.Run(t, "mount", "-t", "tmpfs", "none", tmpfs)
	full := blocktest.TempPoint(t)
	blocktest.MountAt(t, blocktest.NewDevice(t, "ext4", 64<<20), "ext4", full)
	foreign := t.TempDir()
	if err := os.Chown(foreign, 1234, 1234); err != nil {
		t.Fatal(err)
	}
	open := t.TempDir()
	if err := os.Chmod(open, 0o777); err != nil {
		t.Fatal(err)
	}
	for dir, c := range map[string]struct{ name, word string }{
		filepath.Join(r.dir, "state"):       {"state-directory", "on the source"},
		filepath.Join(tmpfs, "deep", "dir"): {"state-directory", "memory"},
		foreign:                             {"state-directory", "belongs to user 1234"},
		open:                                {"state-directory", "by others"},
		full:                                {"journal-space", "free"},
	} {
		r.state = dir
		r.want(good, c.name, migrate.Refused, c.word)
	}
	blocktest.Run(t, "mount", "-o", "remount,ro", full)
	r.state = full
	r.want(good, "state-directory", migrate.Refused, "read-only")
	r.want(good, "kernel-mounts", migrate.Refused, "state-directory is refused")
}

// Tools that are missing or too old are named with the package that has them.
func TestToolsRefused(t *testing.T) {
	r := newRig(t, "ext4")
	good := r.plan("xfs")
	bin := t.TempDir()
	for _, tool := range []string{"wipefs", "btrfs"} {
		if path, err := exec.LookPath(tool); err == nil {
			_ = os.Symlink(path, filepath.Join(bin, tool))
		}
	}
	old := "#!/bin/sh\necho mkfs.xfs version 3.2.1\n"
	if err := os.WriteFile(filepath.Join(bin, "mkfs.xfs"), []byte(old), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin)
	r.want(good, "tool-mkfs.xfs", migrate.Refused, "3.2.1", "xfsprogs")
	r.want(good, "tool-xfs_repair", migrate.Refused, "not installed", "apt-get install xfsprogs")
}

// Subvolumes are volumes of their own: refused by path.
func TestSubvolumes(t *testing.T) {
	r := newRig(t, "btrfs")
	blocktest.Run(t, "btrfs", "subvolume", "create", filepath.Join(r.dir, "inner"))
	p := r.plan("xfs")
	r.want(p, lossSubvolume, migrate.Refused, "inner", "--waive subvolume=REASON")
	p.Waive = []migrate.Waiver{{Class: lossSubvolume, Reason: "an old snapshot"}}
	r.want(p, lossSubvolume, migrate.Waived)
}

// Extents that files share are told where the target cannot share them, and only there.
func TestReflinks(t *testing.T) {
	r := newRig(t, "xfs")
	if _, told := r.check(r.plan("ext4"))[formats.LossReflink]; told {
		t.Error("shared extents are told of a volume without any")
	}
	big := filepath.Join(r.dir, "big")
	blocktest.Run(t, "dd", "if=/dev/urandom", "of="+big, "bs=1M", "count=8", "status=none")
	blocktest.Run(t, "cp", "--reflink=always", big, big+"2")
	blocktest.Run(t, "sync", "-f", r.dir)
	r.want(r.plan("ext4"), formats.LossReflink, migrate.OK, "16.0 MiB")
	if _, told := r.check(r.plan("xfs"))[formats.LossReflink]; told {
		t.Error("shared extents are told although the target shares them")
	}
}
