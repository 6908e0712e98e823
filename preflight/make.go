package preflight

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fsmigrate/fsmigrate/blockdev"
	"github.com/fsmigrate/fsmigrate/formats"
	"github.com/fsmigrate/fsmigrate/fstab"
	"github.com/fsmigrate/fsmigrate/migrate"
)

// Request is what the operator says; Make finds out the rest.
type Request struct {
	ID     string // "": made up
	Source string // mount point
	To     string // FORMAT[:k=v,...]
	Spare  string // device, or file:PATH,size=SIZE
	Fstab  string
	Wipe   bool
	Set    func(*migrate.Plan) // policy, service, waivers: from flags
	Memory *Memory             // of the walk over every object; nil: it is made
}

// category5 is the taxonomy's name for what a plan of this tracker does.
const category5 = "5: update affects data on the disk"

// Make looks at both sides and writes the plan. It changes nothing.
func Make(ctx context.Context, r Request) (*migrate.Plan, error) {
	name, opts, err := formats.ParseSpec(r.To)
	if err != nil {
		return nil, &migrate.Problem{Kind: migrate.Usage, What: "bad --to " + r.To, Why: err, Hint: "FORMAT[:k=v,...], as in xfs:bigtime=1; see fsmigrate formats"}
	}
	dir, err := filepath.Abs(r.Source)
	if err == nil {
		dir, err = filepath.EvalSymlinks(dir)
	}
	if err != nil {
		return nil, &migrate.Problem{Kind: migrate.IsRefused, What: r.Source + " is not a mount point", Why: err, Hint: "findmnt lists the mounted volumes"}
	}
	if dir == "/" {
		return nil, &migrate.Problem{Kind: migrate.IsRefused, What: "/ is the root volume, which cannot be swapped while it is used",
			Hint: "migrate it from a rescue system, where it is mounted elsewhere"}
	}
	p := migrate.Plan{Version: migrate.PlanVersion, ID: r.ID, Category: category5, Tracker: "watch",
		Source: migrate.SourceSpec{Mount: dir},
		Target: migrate.TargetSpec{Format: name, Options: opts, Wipe: r.Wipe}}
	if p.ID == "" {
		p.ID = newID(dir)
	}
	if p.Target.Spare, err = parseSpare(r.Spare); err != nil {
		return nil, err
	}
	t, err := look(&p)
	if err == nil {
		err = t.whole()
	}
	if err != nil {
		return nil, err
	}
	if p.Target.Spare.File == "" {
		if t.spare, err = blockdev.Identify(p.Target.Spare.Path); err != nil {
			return nil, &migrate.Problem{Kind: migrate.IsRefused, What: "cannot use the spare " + r.Spare, Why: err,
				Hint: "name an unused block device, or file:PATH,size=SIZE"}
		}
		p.Target.Spare = describeDevice(t.spare, p.Target.Spare.Path)
	}
	p.Source = describeSource(t)
	p.Target.Label = t.volume.Label
	if n := t.to.LabelMax(); len(p.Target.Label) > n {
		p.Target.Label = p.Target.Label[:n]
	}
	if p.Persist, err = findEntry(r.Fstab, t); err != nil {
		return nil, err
	}
	if r.Set != nil {
		r.Set(&p)
	}
	c, err := r.Memory.census(ctx, t)
	if err != nil {
		return nil, fmt.Errorf("look at every object of %s: %w", dir, err)
	}
	if m := c.impossible(t); m != nil {
		return nil, &migrate.Problem{Kind: migrate.Impossible, What: fmt.Sprintf("%s cannot become %s, nothing was changed", dir, r.To),
			Why: fmt.Errorf("it has %s; %s", m.found, m.need), Hint: otherTarget}
	}
	p.Observed = observe(t)
	p.Observed.Tools = tools(ctx, t.to)
	p.Observed.Objects, p.Observed.Bytes, p.Observed.Fit = c.stats.Objects(), c.stats.Bytes, c.fit
	p = p.WithDefaults()
	if err := p.Validate(); err != nil {
		return nil, err
	}
	return &p, nil
}

// whole refuses, before anything is walked, what is no whole volume of its own.
func (t *target) whole() error {
	if m := t.mount; m.Root != "/" {
		return &migrate.Problem{Kind: migrate.IsRefused,
			What: fmt.Sprintf("%s shows only %s of its volume (a bind mount or subvolume)", m.Point, m.Root),
			Hint: "name the mount point of the whole volume: findmnt -S " + m.Source}
	}
	return nil
}

// newID makes a name from the mount point and a little chance.
func newID(dir string) string {
	base := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return -1
	}, strings.ToLower(filepath.Base(dir)))
	if base == "" {
		base = "m"
	}
	b := make([]byte, 2)
	rand.Read(b) //nolint:errcheck // crypto/rand never fails
	return base[:min(len(base), 16)] + "-" + hex.EncodeToString(b)
}

// parseSpare reads SPARE: a device, or file:PATH,size=SIZE.
func parseSpare(s string) (migrate.DeviceSpec, error) {
	bad := func(why string) error {
		return &migrate.Problem{Kind: migrate.Usage, What: fmt.Sprintf("bad --spare %q", s), Why: errors.New(why),
			Hint: "a block device, or file:PATH,size=SIZE as in file:/backup/new.img,size=20G"}
	}
	rest, isFile := strings.CutPrefix(s, "file:")
	if !isFile {
		if s == "" {
			return migrate.DeviceSpec{}, bad("no spare is named")
		}
		abs, err := filepath.Abs(s)
		if err != nil {
			return migrate.DeviceSpec{}, bad(err.Error())
		}
		return migrate.DeviceSpec{Path: abs}, nil
	}
	path, opts, _ := strings.Cut(rest, ",")
	text, ok := strings.CutPrefix(opts, "size=")
	if path == "" || !ok {
		return migrate.DeviceSpec{}, bad("it needs a path and a size")
	}
	n, err := ParseSize(text)
	if err != nil {
		return migrate.DeviceSpec{}, bad(err.Error())
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return migrate.DeviceSpec{}, bad(err.Error())
	}
	return migrate.DeviceSpec{Path: abs, File: abs, Size: n, Bytes: n}, nil
}

// ParseSize reads a number of bytes with an optional suffix K, M, G, T (powers of 1024).
func ParseSize(s string) (int64, error) {
	t := strings.TrimSuffix(strings.TrimSuffix(strings.ToUpper(s), "B"), "I")
	shift := 0
	if n := len(t); n > 0 {
		if i := strings.IndexByte("KMGT", t[n-1]); i >= 0 {
			shift, t = 10*(i+1), t[:n-1]
		}
	}
	n, err := strconv.ParseInt(t, 10, 64)
	if err != nil || n <= 0 || n > 1<<62>>shift {
		return 0, fmt.Errorf("%q is no size", s)
	}
	return n << shift, nil
}

func describeDevice(d blockdev.Device, path string) migrate.DeviceSpec {
	return migrate.DeviceSpec{Path: path, IDs: d.IDs, Bytes: d.Bytes}
}

func describeSource(t *target) migrate.SourceSpec {
	return migrate.SourceSpec{Mount: t.mount.Point, Device: describeDevice(t.source, t.source.Path), Format: t.from.Name(),
		UUID: t.volume.UUID, Label: t.volume.Label, Options: carried(t.mount)}
}

// carried is the mount options that the new volume is mounted with.
func carried(m blockdev.Mount) string {
	var out []string
	for _, o := range strings.Split(m.Options, ",") {
		if o != "rw" && o != "ro" {
			out = append(out, o)
		}
	}
	return strings.Join(out, ",")
}

// findEntry looks for the volume in fstab.
func findEntry(path string, t *target) (migrate.PersistSpec, error) {
	if path == "" {
		return migrate.PersistSpec{}, nil
	}
	data, err := os.ReadFile(path)
	if missing(err) {
		return migrate.PersistSpec{}, nil
	}
	if err != nil {
		return migrate.PersistSpec{}, &migrate.Problem{Kind: migrate.IsRefused, What: "cannot read " + path, Why: err, Hint: "mend it, or use --fstab"}
	}
	tab := fstab.Parse(data)
	i, e, err := tab.Find(t.mount.Point)
	if errors.Is(err, fstab.ErrNoEntry) {
		return migrate.PersistSpec{}, nil
	}
	if err != nil {
		return migrate.PersistSpec{}, &migrate.Problem{Kind: migrate.IsRefused, What: "cannot use " + path, Why: err, Hint: "mend it, or use --fstab"}
	}
	if e.Type == fstab.TypeMigrate {
		return migrate.PersistSpec{}, &migrate.Problem{Kind: migrate.IsRefused, What: t.mount.Point + " belongs to migration " + e.Spec,
			Why: fmt.Errorf("its entry in %s says so", path), Hint: "fsmigrate status " + e.Spec}
	}
	return migrate.PersistSpec{Fstab: path, Entry: tab.Line(i)}, nil
}

// observe is what drift is compared against.
func observe(t *target) migrate.Observed {
	var u unix.Utsname
	kernel := "unknown"
	if unix.Uname(&u) == nil {
		kernel = unix.ByteSliceToString(u.Release[:])
	}
	return migrate.Observed{Kernel: kernel, MountOptions: t.mount.Options, Propagation: t.mount.Propagation,
		Features: t.volume.Features, At: time.Now().UTC().Truncate(time.Second)}
}
