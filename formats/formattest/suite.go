package formattest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fsmigrate/fsmigrate/formats"
)

// Case is one way to make a format that the suite goes through.
type Case struct {
	Options map[string]string
	Bytes   int64
	Fstype  string // what mounts it; "": the format's name
	Sealed  int64  // where a byte lies that the superblock's checksum covers; 0: it has none
}

// Suite proves that f keeps the contract of formats.Format.
func Suite(t *testing.T, f formats.Format, cases map[string]Case) {
	t.Run("registry", func(t *testing.T) { registered(t, f) })
	t.Run("options", func(t *testing.T) { options(t, f) })
	t.Run("foreign", func(t *testing.T) { foreign(t, f) })
	for name, c := range cases {
		t.Run(name, func(t *testing.T) { volume(t, f, c) })
	}
}

func registered(t *testing.T, f formats.Format) {
	if g, ok := formats.Lookup(f.Name()); !ok || g != f {
		t.Errorf("Lookup(%q) is %v, %v", f.Name(), g, ok)
	}
	found := false
	for _, g := range formats.All() {
		found = found || g == f
	}
	if !found {
		t.Errorf("%s is not in All", f.Name())
	}
	if f.LabelMax() <= 0 || len(f.Tools()) == 0 || len(f.Check("/dev/x")) < 2 {
		t.Error("label, tools or check missing")
	}
}

// options: every value that a property lists is known to Limits and Mkfs, or
// refused with a reason; what is not listed is an *OptionError that names what is.
func options(t *testing.T, f formats.Format) {
	d := f.Describe()
	if d.Name != f.Name() || d.Summary == "" || d.Limits.NameBytes == 0 {
		t.Errorf("description %+v", d)
	}
	var oe *formats.OptionError
	for _, p := range d.Properties {
		if p.Name == "" || p.Default == "" || p.Meaning == "" {
			t.Errorf("property %+v lacks something", p)
		}
		if _, err := f.Limits(map[string]string{p.Name: p.Default}); err != nil {
			t.Errorf("the default %s=%s is refused: %v", p.Name, p.Default, err)
		}
		for _, v := range p.Values {
			_, err := f.Limits(map[string]string{p.Name: v})
			if err != nil && (!errors.As(err, &oe) || oe.Why == "") {
				t.Errorf("%s=%s: %v", p.Name, v, err)
			}
		}
		for _, v := range []string{"nonsense", "-1", "01", " 1", "99999999999999999999"} {
			_, err := f.Limits(map[string]string{p.Name: v})
			if !errors.As(err, &oe) || oe.Option != p.Name || oe.Value != v || len(oe.Known) == 0 {
				t.Errorf("%s=%s: %v", p.Name, v, err)
			}
			if _, err := f.Mkfs("/dev/x", formats.MakeOptions{Options: map[string]string{p.Name: v}}); !errors.As(err, &oe) {
				t.Errorf("mkfs %s=%s: %v", p.Name, v, err)
			}
		}
	}
	_, err := f.Limits(map[string]string{"no_such_option": "1"})
	if !errors.As(err, &oe) || oe.Option != "no_such_option" || len(oe.Known) != len(d.Properties) {
		t.Errorf("unknown option: %v", err)
	}
	if _, err := f.Estimate(formats.TreeStats{}, map[string]string{"no_such_option": "1"}, 1<<30); !errors.As(err, &oe) {
		t.Errorf("estimate with an unknown option: %v", err)
	}
	if _, err := f.Mkfs("/dev/x", formats.MakeOptions{Label: strings.Repeat("l", f.LabelMax()+1)}); err == nil {
		t.Error("a label over LabelMax is accepted")
	}
	if argv, err := f.Mkfs("/dev/x", formats.MakeOptions{Bytes: 1 << 30}); err != nil || argv[len(argv)-1] != "/dev/x" {
		t.Errorf("mkfs: %q, %v", argv, err)
	}
}

// foreign: what is not this format is ErrNotThis, whatever it is.
func foreign(t *testing.T, f formats.Format) {
	noise := make([]byte, 1<<20)
	for i := range noise {
		noise[i] = byte(i*i>>3 ^ i)
	}
	for name, b := range map[string][]byte{"nothing": {}, "short": make([]byte, 700), "zeros": make([]byte, 1<<20), "noise": noise} {
		if _, err := f.Probe(bytes.NewReader(b), int64(len(b))); !errors.Is(err, formats.ErrNotThis) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

const suiteLabel = "label-12byte"

// newUUID is a random one: mkfs.btrfs refuses one that any device has already,
// xfs to mount it.
func newUUID() string {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:], rand.Uint64())
	binary.BigEndian.PutUint64(b[8:], rand.Uint64())
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80 // version 4
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[0:4], b[4:6], b[6:8], b[8:10], b[10:])
}

func volume(t *testing.T, f formats.Format, c Case) {
	fstype := c.Fstype
	if fstype == "" {
		fstype = f.Name()
	}
	uuid := newUUID()
	v := MakeWith(t, f, formats.MakeOptions{Options: c.Options, Bytes: c.Bytes, Label: suiteLabel, UUID: uuid, Objects: 500})
	vol := v.Probe()
	if vol.Format != f.Name() || vol.Label != suiteLabel || vol.UUID != uuid || !vol.Clean || vol.NeedsRecovery || vol.ErrorCount != 0 {
		t.Errorf("probe of a fresh volume: %+v", vol)
	}
	if vol.Bytes > c.Bytes || vol.Bytes < c.Bytes*9/10 || vol.FreeBlocks > vol.Blocks {
		t.Errorf("%d bytes of %d, %d blocks free of %d", vol.Bytes, c.Bytes, vol.FreeBlocks, vol.Blocks)
	}
	want, err := f.Limits(c.Options)
	if err != nil || want != vol.Limits {
		t.Errorf("limits by options %+v (%v)\nof the volume     %+v", want, err, vol.Limits)
	}
	for k, val := range c.Options {
		if got, ok := vol.Props[k]; ok && got != val {
			t.Errorf("asked for %s=%s, the volume says %s", k, val, got)
		}
	}
	damaged(t, v, c.Sealed)
	v.Mount(fstype, "")
	limits(t, v, vol.Limits)
	relabel(t, v)
	v.Unmount()
	v.Mount(fstype, "")
	readBack(t, v, vol.Limits)
	v.Unmount()
	if got := v.Probe(); got.Label != "new" || !got.Clean {
		t.Errorf("after use: label %q, clean %v", got.Label, got.Clean)
	}
	Run(t, f.Check(v.Device)...)
}

// damaged: a truncated volume and a flipped bit in a checked superblock are
// errors, and not ErrNotThis: they are of this format and must not look blank.
func damaged(t *testing.T, v *Volume, sealed int64) {
	f, err := os.Open(v.Image)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	head := make([]byte, 1<<20)
	if _, err := io.ReadFull(f, head); err != nil {
		t.Fatal(err)
	}
	if _, err := v.Format.Probe(bytes.NewReader(head), int64(len(head))); err == nil || errors.Is(err, formats.ErrNotThis) {
		t.Errorf("truncated volume: %v", err)
	}
	if sealed > 0 {
		head[sealed] ^= 0x04
		if _, err := v.Format.Probe(bytes.NewReader(head), 0); err == nil || errors.Is(err, formats.ErrNotThis) {
			t.Errorf("flipped bit at %d: %v", sealed, err)
		}
		head[sealed] ^= 0x04
		if _, err := v.Format.Probe(bytes.NewReader(head), 0); err != nil {
			t.Errorf("flipped back: %v", err)
		}
	}
}

// limits proves some limits on the kernel: what is at the limit works, what is
// over it does not.
func limits(t *testing.T, v *Volume, l formats.Limits) {
	at := func(p string) string { return filepath.Join(v.Dir, p) }
	if err := os.WriteFile(at(strings.Repeat("n", l.NameBytes)), nil, 0o600); err != nil {
		t.Errorf("name of %d bytes: %v", l.NameBytes, err)
	}
	if err := os.WriteFile(at(strings.Repeat("n", l.NameBytes+1)), nil, 0o600); !errors.Is(err, unix.ENAMETOOLONG) {
		t.Errorf("name of %d bytes: %v", l.NameBytes+1, err)
	}
	if err := os.Symlink(strings.Repeat("s", l.SymlinkBytes), at("symlink")); err != nil {
		t.Errorf("symlink of %d bytes: %v", l.SymlinkBytes, err)
	}
	if err := os.Symlink(strings.Repeat("s", l.SymlinkBytes+1), at("symlink2")); !errors.Is(err, unix.ENAMETOOLONG) {
		t.Errorf("symlink of %d bytes: %v", l.SymlinkBytes+1, err)
	}
	f, err := os.Create(at("size"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(l.MaxFile); err != nil {
		t.Errorf("file of %d bytes: %v", l.MaxFile, err)
	}
	if l.MaxFile < 1<<63-1 {
		if err := f.Truncate(l.MaxFile + 1); !errors.Is(err, unix.EFBIG) {
			t.Errorf("file of %d bytes: %v", l.MaxFile+1, err)
		}
	}
	if err := f.Truncate(0); err != nil {
		t.Error(err)
	}
	xattrLimits(t, at("size"), l)
	flagLimits(t, f, l)
	err = unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, 1<<16)
	if (err == nil) != l.Records.Has(formats.Prealloc) {
		t.Errorf("fallocate: %v, the limits say %v", err, l.Records.Has(formats.Prealloc))
	}
	for i, c := range outside(l) {
		name := at(fmt.Sprintf("clamp%d", i))
		if err := os.WriteFile(name, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := unix.UtimesNanoAt(unix.AT_FDCWD, name, []unix.Timespec{c.set, c.set}, 0); err != nil {
			t.Errorf("utimens %v: %v", c.set, err)
		}
	}
	times(t, v.Dir, l)
}

// xattrLimits sets a value at the limit that the fit names, and one over it.
func xattrLimits(t *testing.T, path string, l formats.Limits) {
	const name = "user.big"
	fits := func(n int) bool {
		return formats.Misfit(l, formats.Facts4Fit{Mode: 0o100600, Nlink: 1, Xattrs: []formats.XattrSize{{Name: name, Value: n}}}) == nil
	}
	most := 0
	for n := 1 << 16; n > 0; n >>= 1 {
		if most+n <= 1<<16 && fits(most+n) {
			most += n
		}
	}
	if err := unix.Setxattr(path, name, make([]byte, most), 0); err != nil {
		t.Errorf("xattr of %d bytes fits, and: %v", most, err)
	}
	err := unix.Setxattr(path, name, make([]byte, most+1), 0)
	if !errors.Is(err, unix.ENOSPC) && !errors.Is(err, unix.E2BIG) {
		t.Errorf("xattr of %d bytes does not fit, and: %v", most+1, err)
	}
	if err := unix.Removexattr(path, name); err != nil {
		t.Errorf("remove xattr: %v", err)
	}
}

// flagLimits sets each flag that the format is said to store and reads it back.
func flagLimits(t *testing.T, f *os.File, l formats.Limits) {
	base, err := unix.IoctlGetInt(int(f.Fd()), unix.FS_IOC_GETFLAGS)
	if err != nil {
		t.Fatal(err)
	}
	// Not tried: what concerns directories, or the other flags and the data.
	const skip = formats.FlagDirSync | formats.FlagTopDir | formats.FlagDAX | formats.FlagProjInherit | formats.FlagCasefold |
		formats.FlagJournalData | formats.FlagNoCow | formats.FlagCompress | formats.FlagNoCompress
	for bit := uint32(1); bit != 0; bit <<= 1 {
		if l.Flags&bit == 0 || bit&skip != 0 {
			continue
		}
		err := unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, base|int(bit))
		got, err2 := unix.IoctlGetInt(int(f.Fd()), unix.FS_IOC_GETFLAGS)
		if err != nil || err2 != nil || uint32(got)&bit == 0 {
			t.Errorf("flag %q: set %v, get %#x %v", formats.FlagNames(bit), err, got, err2)
		}
		if err := unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, base); err != nil {
			t.Errorf("clear flag %#x: %v", bit, err)
		}
	}
}

type clamp struct{ set, kept unix.Timespec }

// outside are times outside the range and what the kernel makes of them
// (FACTS: "Kernels lose data in silence").
func outside(l formats.Limits) []clamp {
	var out []clamp
	if l.TimeMin > -1<<63 {
		out = append(out, clamp{unix.Timespec{Sec: l.TimeMin - 1}, unix.Timespec{Sec: l.TimeMin}})
	}
	if l.TimeMax < 1<<63-1 {
		out = append(out, clamp{unix.Timespec{Sec: l.TimeMax + 1}, unix.Timespec{Sec: l.TimeMax}})
	}
	if l.TimeGranularity == time.Second {
		out = append(out, clamp{unix.Timespec{Sec: 1e9, Nsec: 999999999}, unix.Timespec{Sec: 1e9}})
	}
	return out
}

// readBack reads after a fresh mount what limits stored.
func readBack(t *testing.T, v *Volume, l formats.Limits) {
	check := func(name string, want unix.Timespec) {
		var st unix.Stat_t
		if err := unix.Stat(filepath.Join(v.Dir, name), &st); err != nil {
			t.Error(err)
		} else if st.Mtim != want {
			t.Errorf("%s: %v was kept as %v", name, want, st.Mtim)
		}
	}
	for i, c := range outside(l) {
		check(fmt.Sprintf("clamp%d", i), c.kept)
	}
	for i, ts := range TimesOf(l) {
		check(fmt.Sprintf("time%d", i), ts)
	}
}

func relabel(t *testing.T, v *Volume) {
	fd := v.Open()
	defer unix.Close(fd)
	if err := formats.SetLabel(fd, "new"); err != nil {
		t.Error(err)
	}
	if got, err := formats.Label(fd); err != nil || got != "new" {
		t.Errorf("label is %q, %v", got, err)
	}
	if err := formats.SetLabel(fd, strings.Repeat("x", v.Format.LabelMax()+1)); err == nil {
		t.Error("a label over LabelMax was accepted")
	}
}
