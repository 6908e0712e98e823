package preflight

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fsmigrate/fsmigrate/blockdev"
	"github.com/fsmigrate/fsmigrate/formats"
	"github.com/fsmigrate/fsmigrate/migrate"
)

// target is what a plan is about, looked at now.
type target struct {
	plan *migrate.Plan

	mount  blockdev.Mount // at the source's mount point
	source blockdev.Device
	volume formats.Volume
	from   formats.Format

	to     formats.Format
	limits formats.Limits
	spare  blockdev.Device // zero for a file that does not exist yet

	census   *census // of the walk, once it was made
	estimate formats.Estimate
	rates    rates
}

// look opens both sides of a plan, for reading.
func look(p *migrate.Plan) (*target, error) {
	t := &target{plan: p, rates: rates{root: "/"}}
	m, err := blockdev.MountAt(p.Source.Mount)
	if err != nil {
		return nil, &migrate.Problem{Kind: migrate.IsRefused, What: p.Source.Mount + " is not a mount point", Why: err,
			Hint: "name the directory where the volume is mounted; findmnt lists them"}
	}
	t.mount = m
	if t.source, err = blockdev.Identify(m.Source); err != nil {
		return nil, &migrate.Problem{Kind: migrate.IsRefused, What: p.Source.Mount + " is not on a block device", Why: err,
			Hint: "a watch migrates local volumes: ext2, ext3, ext4, xfs, btrfs"}
	}
	if t.volume, t.from, err = probe(t.source.Path); err != nil {
		return nil, &migrate.Problem{Kind: migrate.IsRefused, What: "cannot read the format of " + t.source.Path, Why: err,
			Hint: "fsmigrate formats lists what is known"}
	}
	return t, t.lookTarget()
}

func (t *target) lookTarget() error {
	p := t.plan
	f, ok := formats.Lookup(p.Target.Format)
	if !ok {
		var names []string
		for _, f := range formats.All() {
			names = append(names, f.Name())
		}
		return &migrate.Problem{Kind: migrate.Usage, What: fmt.Sprintf("unknown format %q", p.Target.Format),
			Hint: "known formats: " + strings.Join(names, ", ")}
	}
	t.to = f
	var err error
	if t.limits, err = f.Limits(p.Target.Options); err != nil {
		return &migrate.Problem{Kind: migrate.Usage, What: "bad format option", Why: err, Hint: "fsmigrate formats lists them"}
	}
	if p.Target.Spare.File != "" {
		return nil
	}
	t.spare, err = blockdev.Resolve(p.Target.Spare.IDs, p.Target.Spare.Path, p.Target.Spare.Bytes)
	if err != nil {
		return &migrate.Problem{Kind: migrate.IsRefused, What: "cannot find the spare " + p.Target.Spare.Path, Why: err,
			Hint: "name an unused block device, or file:PATH,size=SIZE"}
	}
	return nil
}

// probe reads the superblock of a device.
func probe(path string) (formats.Volume, formats.Format, error) {
	d, err := os.Open(path)
	if err != nil {
		return formats.Volume{}, nil, err
	}
	defer d.Close()
	size, err := d.Seek(0, 2)
	if err != nil {
		return formats.Volume{}, nil, err
	}
	return formats.ProbeAny(d, size)
}

// onVolume reports whether path (or its nearest existing parent) lies on the superblock
// with the device number dev.
func onVolume(path string, dev uint64) bool {
	fd, err := unix.Open(existing(path), unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	on, err := blockdev.MountDev(fd)
	return err == nil && on == dev
}

// spareBytes is how much room the target has.
func (t *target) spareBytes() int64 {
	if t.plan.Target.Spare.File != "" {
		if st, err := os.Stat(t.plan.Target.Spare.File); err == nil {
			return st.Size()
		}
		return t.plan.Target.Spare.Size
	}
	return t.spare.Bytes
}
