package shadow

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/fsmigrate/fsmigrate/formats"
	"github.com/fsmigrate/fsmigrate/fstab"
)

// The volume's entry in fstab belongs to the migration from Prepare to its end:
// the boot asks mount.fsmigrate, which reads the switch record.

// defaultRoot is where the boot looks for state without being told.
const defaultRoot = "/var/lib/fsmigrate"

func (t *Tree) listed() bool {
	return t.o.Plan.Persist.Fstab != "" && t.o.Plan.Persist.Entry != ""
}

func (t *Tree) audit(event string, fields map[string]any) error {
	if t.o.Audit == nil {
		return nil
	}
	return t.o.Audit(event, fields)
}

func (t *Tree) changed(c fstab.Changed) error {
	if !c.Done {
		return nil
	}
	err := t.audit("fstab", map[string]any{"file": t.o.Plan.Persist.Fstab, "before": c.Before, "after": c.After})
	if t.o.FstabChanged == nil {
		return err
	}
	if told := t.o.FstabChanged(); told != nil {
		t.o.Warn("whoever else follows "+t.o.Plan.Persist.Fstab+" has not read it again", told.Error(),
			"systemd ties the mount to the old entry's device until then, and unmounts it when that device goes: systemctl daemon-reload")
	}
	return err
}

// enlist hands the entry to the migration.
func (t *Tree) enlist() error {
	if !t.listed() {
		return nil
	}
	pl := t.o.Plan
	root := filepath.Dir(t.o.State)
	// The state may be on a volume of its own, which the boot would else mount at any time.
	extra := []string{"x-systemd.requires-mounts-for=" + root}
	if root != defaultRoot {
		// mount(8) keeps x- options from its helpers, and systemd knows only those.
		extra = append([]string{"state=" + root}, extra...)
	}
	c, err := fstab.Enlist(pl.Persist.Fstab, pl.Source.Mount, pl.ID, extra...)
	if err != nil {
		return fmt.Errorf("hand the fstab entry to the migration: %w", err)
	}
	return t.changed(c)
}

// delist gives the entry back as it was: the source is and stays the truth.
func (t *Tree) delist() error {
	if !t.listed() {
		return nil
	}
	pl := t.o.Plan
	c, err := fstab.Restore(pl.Persist.Fstab, pl.Source.Mount, pl.ID, pl.Persist.Entry)
	if errors.Is(err, fstab.ErrNotOurs) {
		t.o.Warn("the fstab entry was changed by somebody else and is left alone", err.Error(), "the native entry was: "+pl.Persist.Entry)
		return nil
	}
	if err != nil {
		return fmt.Errorf("restore the fstab entry: %w", err)
	}
	return t.changed(c)
}

// native writes the entry of the new volume.
func (t *Tree) native() error {
	if !t.listed() {
		return nil
	}
	pl := t.o.Plan
	old, ok := fstab.ParseLine(pl.Persist.Entry)
	if !ok {
		return fmt.Errorf("the planned fstab entry %q is none", pl.Persist.Entry)
	}
	f, known := formats.Lookup(pl.Target.Format)
	if !known {
		return fmt.Errorf("unknown format %q", pl.Target.Format)
	}
	dev, err := t.place.device("shadow")
	if err != nil {
		return err
	}
	v, err := probe(dev.Path, f)
	if err != nil {
		return fmt.Errorf("read superblock of %s: %w", dev.Path, err)
	}
	entry, dropped := fstab.Native(old, pl.Source.Format, pl.Target.Format, v.UUID)
	if len(dropped) > 0 {
		t.o.Warn("options of the old fstab entry are left out", strings.Join(dropped, ","), pl.Target.Format+" does not know them")
	}
	c, err := fstab.Finalize(pl.Persist.Fstab, pl.Source.Mount, pl.ID, entry)
	if errors.Is(err, fstab.ErrNotOurs) {
		t.o.Warn("the fstab entry was changed by somebody else and is left alone", err.Error(), "the new volume's entry is: "+entry.String())
		return nil
	}
	if err != nil {
		return fmt.Errorf("write the native fstab entry: %w", err)
	}
	return t.changed(c)
}
