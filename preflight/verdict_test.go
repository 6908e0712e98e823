package preflight

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fsmigrate/fsmigrate/blockdev"
	"github.com/fsmigrate/fsmigrate/formats"
	"github.com/fsmigrate/fsmigrate/migrate"
)

// fake is a target that was never looked at.
func fake(t *testing.T, to string) *target {
	t.Helper()
	f, ok := formats.Lookup(to)
	if !ok {
		t.Fatal(to)
	}
	limits, err := f.Limits(nil)
	if err != nil {
		t.Fatal(err)
	}
	sound := func(name string) blockdev.Device {
		return blockdev.Device{Path: "/dev/" + name, Name: name, LogicalSector: 512, PhysicalSector: 4096, Discard: true, Bytes: 1 << 30,
			IDs: []string{"wwn:" + name}, Stack: []blockdev.Layer{{Kind: "disk", Name: name}}}
	}
	return &target{plan: &migrate.Plan{ID: "x"}, from: f, to: f, limits: limits, volume: formats.Volume{Format: to, Limits: limits},
		source: sound("sda"), spare: sound("sdb"), census: &census{limits: limits, classes: map[string]*migrate.Fit{}}}
}

// expect makes one check and compares the verdict of one of its values.
func expect(t *testing.T, tg *target, check func(*list), name string, want migrate.Verdict, words ...string) {
	t.Helper()
	l := &list{plan: tg.plan}
	check(l)
	for _, c := range l.checks {
		if c.Name != name {
			continue
		}
		if c.Verdict != want {
			t.Errorf("%s: %s (%s), want %s", name, c.Verdict, c.Found, want)
		}
		if c.Verdict == migrate.Refused && c.Remedy == "" {
			t.Errorf("%s is refused without a remedy", name)
		}
		for _, w := range words {
			if !strings.Contains(c.Found+" "+c.Remedy, w) {
				t.Errorf("%s: %q is not in %q, %q", name, w, c.Found, c.Remedy)
			}
		}
		return
	}
	t.Errorf("no check is called %s: %+v", name, l.checks)
}

func TestStack(t *testing.T) {
	layer := func(kind string) blockdev.Layer {
		return blockdev.Layer{Kind: kind, Name: kind, Encrypted: kind == "dm-crypt", Redundant: kind == "md-raid1", Thin: kind == "dm-thin"}
	}
	for _, c := range []struct {
		name, source, spare string
		want                migrate.Verdict
		word                string
	}{
		{"plain", "disk", "disk", migrate.OK, "disk"},
		{"gains encryption", "disk", "dm-crypt", migrate.OK, ""},
		{"loses encryption", "dm-crypt", "disk", migrate.Refused, "not encrypted"},
		{"loses a mirror", "md-raid1", "dm-crypt", migrate.Refused, "not redundant"},
		{"loses a path", "multipath", "disk", migrate.Refused, "one path"},
		{"thin", "disk", "dm-thin", migrate.Warning, "pool"},
	} {
		t.Run(c.name, func(t *testing.T) {
			tg := fake(t, "xfs")
			tg.source.Stack, tg.spare.Stack = []blockdev.Layer{layer(c.source)}, []blockdev.Layer{layer(c.spare)}
			check := func(l *list) { _ = checkStack(t.Context(), l, tg, nil) }
			expect(t, tg, check, "stack", c.want, c.word)
			tg.plan.Waive = []migrate.Waiver{{Class: "stack", Reason: "it is a laboratory"}}
			if c.want == migrate.Refused {
				expect(t, tg, check, "stack", migrate.Waived, "laboratory")
			}
		})
	}
	tg := fake(t, "xfs")
	check := func(l *list) { _ = checkStack(t.Context(), l, tg, nil) }
	expect(t, tg, check, "stable-ids", migrate.OK)
	tg.spare.IDs = nil
	expect(t, tg, check, "stable-ids", migrate.Warning)
}

// A sysfs of our own says what is wrong with a disk.
func TestHealth(t *testing.T) {
	root := t.TempDir()
	file := func(path, text string) {
		path = filepath.Join(root, "sys/class/block", path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	tg := fake(t, "xfs")
	tg.rates.root = root
	check := func(l *list) { _ = checkHealth(t.Context(), l, tg, nil) }
	file("sdb/device/ioerr_cnt", "0x0")
	file("sdb/device/state", "running")
	expect(t, tg, check, "source-health", migrate.OK)
	expect(t, tg, check, "spare-health", migrate.OK)
	file("sdb/device/ioerr_cnt", "0x2a")
	expect(t, tg, check, "spare-health", migrate.Warning, "ioerr_cnt is 42", "smartctl")
	file("sdb/device/state", "offline")
	expect(t, tg, check, "spare-health", migrate.Refused, "offline")
	file("sda/md/degraded", "1")
	expect(t, tg, check, "source-health", migrate.Warning, "lacks 1")
	expect(t, tg, check, "discard", migrate.OK)
	tg.spare.Discard = false
	expect(t, tg, check, "discard", migrate.Warning)
}

func TestSectors(t *testing.T) {
	tg := fake(t, "xfs")
	tg.rates.root = t.TempDir()
	check := func(l *list) { _ = checkSectors(t.Context(), l, tg, nil) }
	expect(t, tg, check, "sectors", migrate.OK, "512/4096")
	tg.spare.LogicalSector = 4096
	expect(t, tg, check, "sectors", migrate.Warning, "EINVAL")
	tg.spare.LogicalSector = 1 << 20
	expect(t, tg, check, "sectors", migrate.Refused)
	tg.spare.LogicalSector = 512
	dir := filepath.Join(tg.rates.root, "sys/dev/block/0:0")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "alignment_offset"), []byte("512\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	expect(t, tg, check, "sectors", migrate.Warning, "misaligned by 512")
}

func TestConvergence(t *testing.T) {
	tg := fake(t, "xfs")
	check := func(l *list) { _ = checkConvergence(t.Context(), l, tg, nil) }
	tg.rates = rates{known: true, written: 1e6, readSource: 400e6, readSpare: 200e6, measuredSeconds: 1}
	expect(t, tg, check, "convergence", migrate.OK, "190.7 MiB/s")
	tg.rates.written = 60e6 // copying at 100 MB/s would gain too little
	expect(t, tg, check, "convergence", migrate.Warning, "may not converge")
	tg.rates.written = 1e6
	tg.plan.Copy.Rate = 1e6
	expect(t, tg, check, "convergence", migrate.Warning)
	tg.rates = rates{}
	expect(t, tg, check, "convergence", migrate.Warning, "does not count")
	r := rates{grown: 1e6}
	if got := r.growth(1<<30, 10*time.Minute); got != 1200e6 {
		t.Errorf("growth at 1 MB/s for ten minutes: %d", got)
	}
	if got := r.growth(1<<40, 0); got != 1<<40/50 {
		t.Errorf("growth of a quiet volume: %d", got)
	}
}

func TestHolders(t *testing.T) {
	tg := fake(t, "xfs")
	var hs []blockdev.Holder
	var hidden []string
	check := func(l *list) { judgeHolders(l, hs, hidden) }
	expect(t, tg, check, "kernel-holders", migrate.OK)
	expect(t, tg, check, "writers", migrate.OK, "none")
	hs = []blockdev.Holder{{PID: 7, Command: "db", Path: "/d/wal", Kind: "write", Writes: true}, {PID: 8, Command: "sh", Path: "/d", Kind: "cwd"}}
	expect(t, tg, check, "writers", migrate.OK, "db[7] /d/wal")
	expect(t, tg, check, "readers", migrate.OK, "sh[8] cwd")
	for _, kind := range []string{"swap", "loop", "export"} {
		hs = []blockdev.Holder{{Kind: kind, Path: "/d/x"}}
		expect(t, tg, check, "kernel-holders", migrate.Refused, kind+" /d/x")
	}
	hidden = []string{"init[1]"}
	expect(t, tg, check, "hidden-holders", migrate.Warning, "init[1]")
}

func TestService(t *testing.T) {
	tg := fake(t, "xfs")
	check := func(l *list) { _ = checkService(t.Context(), l, tg, nil) }
	expect(t, tg, check, "service", migrate.Warning, "--unit")
	tg.plan.Service.Unit = "db.service"
	expect(t, tg, check, "service", migrate.OK)
	tg.plan.Service = migrate.ServiceSpec{AcceptEROFS: true}
	expect(t, tg, check, "service", migrate.Warning)
}

// Each class of loss is refused until it is waived, what always holds is only told.
func TestFitVerdicts(t *testing.T) {
	tg := fake(t, "xfs")
	c := tg.census
	c.lose(formats.Loss{Class: formats.LossSymlink, Why: "the target has 2000 bytes, the limit is 1023"}, "a/b\nc")
	c.lose(formats.Loss{Class: formats.LossIdentity, Why: "numbers change", Always: true}, "")
	for _, f := range c.classes {
		c.fit = append(c.fit, *f)
	}
	check := func(l *list) { _ = checkFit(t.Context(), l, tg, nil) }
	expect(t, tg, check, formats.LossIdentity, migrate.OK)
	expect(t, tg, check, formats.LossSymlink, migrate.Refused, `1: the target`, `"a/b\nc"`, "--waive symlink-length=REASON")
	tg.plan.Waive = []migrate.Waiver{{Class: formats.LossSymlink, Reason: "a test's"}}
	expect(t, tg, check, formats.LossSymlink, migrate.Waived, "a test's")
	tg.plan.Waive = []migrate.Waiver{{Class: "other", Reason: "no"}}
	expect(t, tg, check, formats.LossSymlink, migrate.Refused)
}

func TestNamed(t *testing.T) {
	m := blockdev.Mount{Point: "/srv/my data", Source: "/dev/vdb"}
	for in, want := range map[string]string{
		"fsmigrate plan DIR --to xfs --spare DEVICE":                                         "fsmigrate plan '/srv/my data' --to xfs --spare DEVICE",
		"unmount it and run xfs_admin -O bigtime=1 DEVICE; in use: p DIR --spare DEVICE (x)": "unmount it and run xfs_admin -O bigtime=1 /dev/vdb; in use: p '/srv/my data' --spare DEVICE (x)",
		"btrfs device remove, until one is left":                                             "btrfs device remove, until one is left",
	} {
		if got := named(in, m); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestOlder(t *testing.T) {
	for _, c := range []struct {
		have, min string
		want      bool
	}{{"5.9", "5.10", true}, {"5.10", "5.10", false}, {"6.1.0", "5.10", false}, {"1.43", "1.43.1", true}, {"2", "1.9", false}} {
		if got := older(c.have, c.min); got != c.want {
			t.Errorf("%s before %s: %t", c.have, c.min, got)
		}
	}
}

func TestParseSpare(t *testing.T) {
	for in, want := range map[string]migrate.DeviceSpec{
		"/dev/vdb":                       {Path: "/dev/vdb"},
		"file:/srv/x.img,size=2G":        {Path: "/srv/x.img", File: "/srv/x.img", Size: 2 << 30, Bytes: 2 << 30},
		"file:/srv/../x.img,size=512MiB": {Path: "/x.img", File: "/x.img", Size: 512 << 20, Bytes: 512 << 20},
		"file:/srv/x.img,size=4096":      {Path: "/srv/x.img", File: "/srv/x.img", Size: 4096, Bytes: 4096},
	} {
		got, err := parseSpare(in)
		if err != nil || got.Path != want.Path || got.File != want.File || got.Size != want.Size || got.Bytes != want.Bytes {
			t.Errorf("%s: %+v, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "file:", "file:/x", "file:/x,size=", "file:/x,size=0", "file:/x,size=-1", "file:/x,size=9999999T",
		"file:,size=1G", "file:/x,bytes=1G", "file:/x,size=1X"} {
		if got, err := parseSpare(in); migrate.KindOf(err) != migrate.Usage || migrate.HintOf(err) == "" {
			t.Errorf("%q: %+v, %v", in, got, err)
		}
	}
}
