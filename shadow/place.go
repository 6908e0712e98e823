package shadow

import (
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fsmigrate/fsmigrate/blockdev"
	"github.com/fsmigrate/fsmigrate/migrate"
)

// Place is where both volumes are mounted and who may write to them: the
// mount-level half of a tree. It keeps I1's promise in the mount table (one visible,
// writable volume at Dir) and I10's (nobody else writes to the other one), and it
// decides nothing: callers say which side is the truth.
//
// Its methods look at what is, in every mount namespace, before they change
// anything, because whoever ran before may have been killed between any two steps.
// They may be called from several goroutines and run one at a time.
type Place struct {
	o PlaceOptions

	mu         sync.Mutex
	trees      map[migrate.Side]*privateTree
	fenced     migrate.Side // sealed by this process and not settled since; "" when none
	fencedAt   time.Time
	writableAt time.Time
	errors     map[migrate.Side]int64           // error counts when the place was opened
	devices    map[migrate.Side]blockdev.Device // found, until they are another device
	lower      int                              // the lower of two mounts at Dir, between SwapIn and Settle; 0: none held
	readOnly   bool                             // Boot with -o ro

	// Test knobs: a kernel without MOVE_MOUNT_BENEATH, and a hook called before
	// each step that changes something (an error there is a crash).
	noBeneath bool
	step      func(name string) error
}

// PlaceOptions say what a Place is about. Devices may be missing: they are
// looked for when they are needed, so that the truth is mounted at boot even if
// the other side's disk is gone.
type PlaceOptions struct {
	ID            string             // the migration
	Dir           string             // where the volume in use is mounted
	Source, Spare migrate.DeviceSpec // the two devices
	SourceFormat  string
	SourceUUID    string // empty: not checked
	TargetFormat  string
	TargetOptions map[string]string
	MountOptions  string // VFS flags and super options to carry, as in fstab
	KeepOld       bool   // the old volume is never written after the fence
	Objects       int64  // expected on the target: enough inodes are made
	Wipe          bool   // overwrite foreign signatures on the spare
	Label         string // the target's label after finalize
	StateDir      string // this migration's directory; on neither volume
	Fstab         string
	Patience      time.Duration // Boot: how long the truth's device may take to appear; 0: it is there, or it is an error

	// Audit records every mkfs and mount that the place does; nil: nowhere.
	Audit func(event string, fields map[string]any) error
	// Warn receives what the operator should know and what stops nothing; nil: nobody.
	Warn func(what, why, hint string)
}

// privateTree is a detached mount that only this process can reach.
type privateTree struct {
	tree  *blockdev.Tree
	write bool
}

// OpenPlace prepares a Place and touches neither volume.
func OpenPlace(o PlaceOptions) (*Place, error) {
	if o.ID == "" || o.Dir == "" || o.StateDir == "" {
		return nil, errors.New("open place: ID, Dir and StateDir are needed")
	}
	dir, err := filepath.EvalSymlinks(o.Dir)
	if err != nil {
		return nil, fmt.Errorf("open place %s: %w", o.Dir, err)
	}
	if o.Dir, err = filepath.Abs(dir); err != nil {
		return nil, fmt.Errorf("open place %s: %w", dir, err)
	}
	if o.Dir == "/" {
		return nil, errors.New("open place /: the root volume cannot be swapped")
	}
	if o.StateDir, err = filepath.Abs(o.StateDir); err != nil {
		return nil, fmt.Errorf("open place %s: %w", o.Dir, err)
	}
	if o.Audit == nil {
		o.Audit = func(string, map[string]any) error { return nil }
	}
	if o.Warn == nil {
		o.Warn = func(_, _, _ string) {}
	}
	p := &Place{o: o, trees: map[migrate.Side]*privateTree{}, errors: map[migrate.Side]int64{}, devices: map[migrate.Side]blockdev.Device{}}
	p.step = func(string) error { return nil }
	for _, s := range []migrate.Side{migrate.Source, migrate.Shadow} {
		if n, err := p.errorCount(s); err == nil {
			p.errors[s] = n
		}
	}
	return p, nil
}

// FencedAt is when the truth began to refuse writes: the moment just before
// its superblock became read-only. Zero before the first Fence that succeeded.
func (p *Place) FencedAt() time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.fencedAt
}

// WritableAt is when Settle last made the truth writable at Dir: with FencedAt,
// the pause.
func (p *Place) WritableAt() time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.writableAt
}

// Close drops every descriptor. The detached mounts go with them; what is
// mounted at Dir stays as it is. Nothing else may be called afterwards.
func (p *Place) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	var errs []error
	p.forgetLower()
	for side, t := range p.trees {
		if err := t.tree.Close(); err != nil {
			errs = append(errs, fmt.Errorf("close private mount of the %s: %w", side, err))
		}
		delete(p.trees, side)
	}
	return errors.Join(errs...)
}

// format is the format of a side.
func (p *Place) format(s migrate.Side) string {
	if s == migrate.Source {
		return p.o.SourceFormat
	}
	return p.o.TargetFormat
}

// device finds the block device of a side by its stable ids. A file: spare is looped
// when it is not yet. The search looks at every disk, so what it found is kept as
// long as the device is the same.
func (p *Place) device(s migrate.Side) (blockdev.Device, error) {
	if d, ok := p.devices[s]; ok {
		var st unix.Stat_t
		if unix.Stat(d.Path, &st) == nil && st.Rdev == unix.Mkdev(d.Major, d.Minor) && p.stillLooped(s, d) {
			return d, nil
		}
		delete(p.devices, s)
	}
	d, err := p.findDevice(s)
	if err == nil {
		p.devices[s] = d
	}
	return d, err
}

// stillLooped reports whether the spare's file is still behind its loop.
func (p *Place) stillLooped(s migrate.Side, d blockdev.Device) bool {
	if s != migrate.Shadow || p.o.Spare.File == "" {
		return true
	}
	l, err := blockdev.LoopOf(p.o.Spare.File)
	return err == nil && l != nil && l.Path == d.Path
}

func (p *Place) findDevice(s migrate.Side) (blockdev.Device, error) {
	spec := p.o.Source
	if s == migrate.Shadow {
		if p.o.Spare.File != "" {
			return p.loopDevice()
		}
		spec = p.o.Spare
	}
	d, err := blockdev.Resolve(spec.IDs, spec.Path, spec.Bytes)
	if s == migrate.Shadow && errors.Is(err, blockdev.ErrWrongSize) {
		// Enlarged since, because it was full. What it bears is looked at before it is mounted.
		var rec shadowRecord
		if rec, err = p.loadRecord(); err == nil {
			d, err = blockdev.Resolve(spec.IDs, spec.Path, 0)
		}
		if err == nil && (!rec.Made || d.Bytes < spec.Bytes) {
			err = fmt.Errorf("%s has %d bytes, not %d: %w", d.Name, d.Bytes, spec.Bytes, blockdev.ErrWrongSize)
		}
	}
	if err != nil {
		return d, fmt.Errorf("find the %s %s: %w", s, spec.Path, err)
	}
	return d, nil
}

// loopDevice finds the loop over the spare's file or makes one.
func (p *Place) loopDevice() (blockdev.Device, error) {
	l, err := blockdev.LoopOf(p.o.Spare.File)
	if err != nil {
		return blockdev.Device{}, fmt.Errorf("find spare file: %w", err)
	}
	if l == nil {
		if l, err = blockdev.AttachLoop(p.o.Spare.File, blockdev.LoopOptions{DirectIO: true}); err != nil {
			return blockdev.Device{}, err
		}
		if err := p.o.Audit("loop-attached", map[string]any{"device": l.Path, "file": l.File}); err != nil {
			return blockdev.Device{}, errors.Join(err, l.Detach())
		}
	}
	return blockdev.Identify(l.Path)
}

// deviceIfThere is device for who only looks: it attaches no loop. nil when there is none.
func (p *Place) deviceIfThere(s migrate.Side) (*blockdev.Device, error) {
	if s == migrate.Shadow && p.o.Spare.File != "" {
		l, err := blockdev.LoopOf(p.o.Spare.File)
		if err != nil || l == nil {
			return nil, err
		}
	}
	d, err := p.device(s)
	if err != nil {
		return nil, err
	}
	return &d, nil
}
