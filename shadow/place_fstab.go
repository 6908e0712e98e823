package shadow

import (
	"fmt"

	"github.com/fsmigrate/fsmigrate/fstab"
	"github.com/fsmigrate/fsmigrate/migrate"
)

// Enlist hands Dir's entry in fstab to the migration, so that the next boot asks the switch
// record. The native line (plan: persist.entry) must be durable elsewhere before. Nothing when the volume is in no fstab.
func (p *Place) Enlist(extra ...string) error {
	if p.o.Fstab == "" {
		return nil
	}
	c, err := fstab.Enlist(p.o.Fstab, p.o.Dir, p.o.ID, extra...)
	return p.auditFstab(c, err)
}

// NativeEntry gives Dir its native entry back: the line as it was for the source, or
// one for the new volume, found by its UUID, without the options that its format
// does not know. Those are returned.
func (p *Place) NativeEntry(truth migrate.Side, native string) (dropped []string, err error) {
	if p.o.Fstab == "" {
		return nil, nil
	}
	if truth == migrate.Source {
		c, err := fstab.Restore(p.o.Fstab, p.o.Dir, p.o.ID, native)
		return nil, p.auditFstab(c, err)
	}
	old, ok := fstab.ParseLine(native)
	if !ok {
		return nil, fmt.Errorf("write the native entry of %s: %q is none", p.o.Dir, native)
	}
	rec, err := p.loadRecord()
	if err != nil {
		return nil, err
	}
	e, dropped := fstab.Native(old, p.o.SourceFormat, p.o.TargetFormat, rec.UUID)
	c, err := fstab.Finalize(p.o.Fstab, p.o.Dir, p.o.ID, e)
	return dropped, p.auditFstab(c, err)
}

func (p *Place) auditFstab(c fstab.Changed, err error) error {
	if err != nil || !c.Done {
		return err
	}
	return p.o.Audit("fstab", map[string]any{"file": p.o.Fstab, "before": c.Before, "after": c.After})
}
