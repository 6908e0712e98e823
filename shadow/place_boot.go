package shadow

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/fsmigrate/fsmigrate/blockdev"
	"github.com/fsmigrate/fsmigrate/fstab"
	"github.com/fsmigrate/fsmigrate/migrate"
)

// Boot is what mount(8) gets from an entry of type fsmigrate: it asks the switch
// record through truth, and mounts that side at Dir. When the record cannot be read
// for certain, it mounts nothing at all and answers *migrate.Ambiguous (I8).
//
// options is the string that mount(8) passes with -o. An entry that names more than the
// defaults replaces the plan's options, so that what the operator changed there holds.
func Boot(ctx context.Context, o PlaceOptions, options string, truth func() (migrate.Side, error)) (err error) {
	side, err := truth()
	if err == nil && side != migrate.Source && side != migrate.Shadow {
		err = fmt.Errorf("the switch record names %q", side)
	}
	var ambiguous *migrate.Ambiguous
	switch {
	case errors.As(err, &ambiguous):
		return err
	case err != nil:
		return &migrate.Ambiguous{
			Exact:  fmt.Sprintf("the switch record of %s cannot be read: %v", o.ID, err),
			Decide: "fsmigrate status " + o.ID,
			Err:    err,
		}
	}
	ro := false
	var carried []string
	for _, opt := range fstab.Split(options) {
		switch {
		case opt == "ro":
			ro = true
		case opt == "rw":
			ro = false
		case opt == "defaults" || opt == "remount" || fstab.IsUser(opt):
		default:
			carried = append(carried, opt)
		}
	}
	if len(carried) > 0 {
		o.MountOptions = strings.Join(carried, ",")
	}
	p, err := OpenPlace(o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.Close()) }()
	p.readOnly = ro
	if err := p.await(ctx, side); err != nil {
		return err
	}
	return p.Settle(ctx, side)
}

// awaitEvery is how often a device is looked for that is not there yet.
const awaitEvery = 200 * time.Millisecond

// await gives the truth's device time to appear: at boot, disks are found, and volumes
// below LVM, md or LUKS put together, while what fstab says is mounted already, and an
// entry that names a migration and no device makes nobody wait for one.
func (p *Place) await(ctx context.Context, side migrate.Side) error {
	_, err := p.device(side)
	if p.o.Patience == 0 || !errors.Is(err, blockdev.ErrNoDevice) {
		return nil // Settle says what else is wrong
	}
	limit, again := time.NewTimer(p.o.Patience), time.NewTicker(awaitEvery)
	defer limit.Stop()
	defer again.Stop()
	for {
		select {
		case <-again.C:
			if _, err = p.device(side); !errors.Is(err, blockdev.ErrNoDevice) {
				return nil
			}
		case <-limit.C:
			return fmt.Errorf("the %s is the truth, and its device did not appear within %s: %w", side, p.o.Patience, err)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
