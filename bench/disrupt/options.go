package disrupt

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fsmigrate/fsmigrate/bench/work"
	"github.com/fsmigrate/fsmigrate/blockdev"
	"github.com/fsmigrate/fsmigrate/migrate"
	"github.com/fsmigrate/fsmigrate/status"
)

// Options are what a benchmark can be told.
type Options struct {
	Dir       string        `json:"dir"`       // where the images are made; "": TMPDIR or /var/tmp
	Scenarios []string      `json:"scenarios"` // empty: all; see Scenarios
	Workloads []string      `json:"workloads"` // empty: all that the machine can run
	Movers    []string      `json:"movers"`    // empty: all
	Command   string        `json:"command"`   // the user's own workload, for sh -c
	Rate      float64       `json:"rate"`      // operations due a second; 0: the workload's own
	Files     int           `json:"files"`     // of the scenarios with small ones
	Large     int64         `json:"large"`     // bytes of the scenario with large ones
	Runs      int           `json:"runs"`      // of each combination
	Before    time.Duration `json:"before"`    // how long the application has the machine for itself
	After     time.Duration `json:"after"`     // how long it is watched on the new volume
	Hold      time.Duration `json:"hold"`      // how long fsmigrate is left in Hold before its cutover
	Policy    string        `json:"policy"`    // of fsmigrate: asap or gentle
	Budget    time.Duration `json:"budget"`    // no run begins that would not end in it; 0: none
	Scale     []int         `json:"scale"`     // numbers of files; empty: no scale
	Source    string        `json:"source"`    // a blank device instead of an image
	Spare     string        `json:"spare"`     // another
	Quick     bool          `json:"quick"`     // the report says that it is too small to judge by
	Self      string        `json:"self"`      // the program, which is also started as the application
	Product   string        `json:"product"`   // its version

	Say func(line string) `json:"-"` // what happens
}

// withDefaults fills in what was not said. Quick ones are small.
func (o Options) withDefaults() Options {
	o.Dir = cmp.Or(o.Dir, os.Getenv("TMPDIR"), "/var/tmp") // /tmp is often in memory
	small := func(full, quick int) int {
		if o.Quick {
			return quick
		}
		return full
	}
	o.Files = cmp.Or(o.Files, small(20_000, 1000))
	o.Large = cmp.Or(o.Large, int64(small(1<<30, 64<<20)))
	o.Runs = cmp.Or(o.Runs, 1)
	o.Before = cmp.Or(o.Before, time.Duration(small(4, 1))*time.Second)
	o.After = cmp.Or(o.After, time.Duration(small(4, 1))*time.Second)
	o.Hold = cmp.Or(o.Hold, time.Duration(small(2000, 200))*time.Millisecond)
	o.Policy = cmp.Or(o.Policy, "gentle")
	if o.Say == nil {
		o.Say = func(string) {}
	}
	return o
}

// Own is the name of the user's workload.
const Own = "command"

// Validate refuses what cannot work before anything is made.
func (o Options) Validate() error {
	if os.Geteuid() != 0 {
		return refused("the benchmark mounts file systems, and only root may", "sudo fsmigrate bench (it touches nothing but volumes of its own)")
	}
	if err := o.names(); err != nil {
		return err
	}
	switch {
	case o.Runs < 1 || o.Runs > 100:
		return wrong("1 to 100", "--runs: %d is out of range", o.Runs)
	case o.Files < 1 || o.Files > 10_000_000:
		return wrong("1 to 10,000,000", "--files: %d is out of range", o.Files)
	case o.Large < 1<<20:
		return wrong("1M or more", "--large: %d bytes are too few", o.Large)
	case o.Rate < 0 || o.Rate > 100_000 || math.IsNaN(o.Rate):
		return wrong("operations a second, at most 100000", "--rate: %g is out of range", o.Rate)
	case o.Before < 100*time.Millisecond || o.After < 100*time.Millisecond:
		return wrong("5s", "--before and --after: less than a tenth of a second shows nothing")
	case o.Hold < 0 || o.Hold > time.Hour:
		return wrong("2s", "--hold: %s is out of range", o.Hold)
	case (o.Source == "") != (o.Spare == ""):
		return wrong("--source-device /dev/a --spare-device /dev/b", "a device for one side only")
	}
	for _, n := range o.Scale {
		if n < 10 || n > 10_000_000 {
			return wrong("10 to 10,000,000 files", "--scale: %d is out of range", n)
		}
	}
	if err := o.place(); err != nil {
		return err
	}
	return o.devices()
}

// names refuses what nobody knows.
func (o Options) names() error {
	var kinds, movers, scenarios []string
	for _, k := range work.Kinds {
		kinds = append(kinds, k.Name)
	}
	for _, m := range catalog {
		movers = append(movers, m.name)
	}
	for _, s := range Scenarios {
		scenarios = append(scenarios, s.Name)
	}
	if o.Command != "" {
		kinds = append(kinds, Own)
	}
	for _, c := range []struct {
		flag         string
		given, known []string
	}{{"workload", o.Workloads, kinds}, {"mover", o.Movers, movers}, {"scenario", o.Scenarios, scenarios}} {
		for _, name := range c.given {
			if !slices.Contains(c.known, name) {
				return wrong("one of: "+strings.Join(c.known, ", "), "--%s: there is no %q", c.flag, name)
			}
		}
	}
	return nil
}

// place looks at the scratch directory.
func (o Options) place() error {
	var st unix.Statfs_t
	if err := unix.Statfs(o.Dir, &st); err != nil {
		return refused(fmt.Sprintf("look at %s: %s", o.Dir, err), "--dir DIR on a disk")
	}
	if st.Type == unix.TMPFS_MAGIC || st.Type == unix.RAMFS_MAGIC {
		return refused(o.Dir+" is in memory: what is measured there is no disk", "--dir DIR on a disk")
	}
	if _, err := os.Stat("/dev/loop-control"); errors.Is(err, os.ErrNotExist) {
		return refused("this kernel has no loop devices", "modprobe loop; in a container, the benchmark needs the host's")
	}
	need, what := o.room()
	if free := int64(st.Bavail) * st.Bsize; free < need {
		return refused(fmt.Sprintf("%s has %s free, and %s needs up to %s", o.Dir, status.Bytes(free), what, status.Bytes(need)),
			"--dir DIR on a larger disk, or fewer --files or a smaller --scale")
	}
	return nil
}

// room is the most that any volume pair takes at a time, and what that is.
func (o Options) room() (need int64, what string) {
	sizes := map[string]int64{}
	for _, s := range o.scenarios() {
		sizes["scenario "+s.Name] = s.room()
	}
	for _, n := range o.Scale {
		sizes[fmt.Sprintf("--scale with %s files", status.Count(int64(n)))] = smallScenario(n).room()
	}
	for name, n := range sizes {
		if o.Source != "" {
			n = 1 << 30 // only state and logs are in the directory
		}
		if n > need || n == need && name < what {
			need, what = n, name
		}
	}
	return need, what
}

// devices refuses what is not blank or not free: nothing of a user's is overwritten.
func (o Options) devices() error {
	if o.Source == "" {
		return nil
	}
	need := int64(0)
	for _, s := range o.scenarios() {
		need = max(need, s.volume())
	}
	for _, n := range o.Scale {
		need = max(need, smallScenario(n).volume())
	}
	if filepath.Clean(o.Source) == filepath.Clean(o.Spare) {
		return wrong("two devices", "--source-device and --spare-device are the same")
	}
	for _, path := range []string{o.Source, o.Spare} {
		d, err := openBlank(path)
		if err != nil {
			return err
		}
		size, err := d.Seek(0, 2)
		if err = errors.Join(err, d.Close()); err != nil {
			return refused(fmt.Sprintf("look at %s: %s", path, err), "")
		}
		if size < need {
			return refused(fmt.Sprintf("%s has %s, and %s are needed", path, status.Bytes(size), status.Bytes(need)), "fewer --files, or larger devices")
		}
	}
	return nil
}

// openBlank opens a device that nobody uses and that holds nothing anybody knows.
func openBlank(path string) (*os.File, error) {
	info, err := os.Stat(path)
	if err != nil || info.Mode()&os.ModeDevice == 0 || info.Mode()&os.ModeCharDevice != 0 {
		return nil, refused(path+" is not a block device", "two blank ones, or none: then images are made in --dir")
	}
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_EXCL, 0)
	if err != nil {
		return nil, refused(fmt.Sprintf("%s is in use: %s", path, err), "two devices that nobody uses")
	}
	found, err := blockdev.Signatures(path)
	if err != nil || len(found) > 0 {
		_ = f.Close()
		why := "it cannot be read"
		if err == nil {
			why = fmt.Sprintf("there is %v on it", found)
		}
		return nil, refused(fmt.Sprintf("%s is not blank: %s; a benchmark overwrites it", path, why), "wipefs -a "+path+" if nothing on it is needed")
	}
	return f, nil
}

func refused(what, hint string) error {
	return &migrate.Problem{Kind: migrate.IsRefused, What: what, Hint: hint}
}

func wrong(hint, format string, args ...any) error {
	return &migrate.Problem{Kind: migrate.Usage, What: fmt.Sprintf(format, args...), Hint: hint}
}
