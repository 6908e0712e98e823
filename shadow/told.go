package shadow

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/fsmigrate/fsmigrate/copier"
	"github.com/fsmigrate/fsmigrate/migrate"
)

// told gives an operator's words to the failures that have a remedy, and the
// engine's sentinels to those that it decides on.
func (t *Tree) told(err error) error {
	var te *copier.TargetError
	switch p := t.active(); {
	case err == nil:
		return nil
	case p != nil && p.back && (copier.Full(err) || errors.As(err, &te) && dead(te.Err)):
		return t.toldBack(err)
	case copier.Full(err):
		t.full.Store(true)
		free, total := t.spareSpace()
		if free > max(64<<20, total/20) {
			return &migrate.Problem{Kind: migrate.Stopped, What: "the spare takes no more: what lies below it is full",
				Why:  fmt.Errorf("%s free of %s on it: %w (%w)", size(free), size(total), err, migrate.ErrFull),
				Hint: "make room in the pool or volume below the spare, then: fsmigrate resume " + t.o.Plan.ID + "; or give up: fsmigrate abort " + t.o.Plan.ID}
		}
		return &migrate.Problem{Kind: migrate.Stopped, What: "the spare is full",
			Why: fmt.Errorf("%s free of %s: %w (%w)", size(free), size(total), err, migrate.ErrFull),
			Hint: "enlarge the spare's device (the file system on it follows), or free space on the source, then: fsmigrate resume " +
				t.o.Plan.ID + "; or give up: fsmigrate abort " + t.o.Plan.ID}
	case errors.Is(err, errSourceSync):
		return &migrate.Problem{Kind: migrate.Failed, What: "the source could not be synced", Why: err,
			Hint: "its device fails: see the kernel log, and fsmigrate status " + t.o.Plan.ID}
	case errors.As(err, &te) && dead(te.Err), errors.Is(err, errUnformatted):
		return &migrate.Problem{Kind: migrate.Failed, What: "the spare failed; the source is untouched",
			Why: fmt.Errorf("%w: %w", migrate.ErrOtherSide, err), Hint: "see the kernel log, and use another spare"}
	case errors.Is(err, ErrStore), errors.Is(err, unix.ENOSPC) && te == nil:
		what, hint := "the journal failed", "see the kernel log, mend "+t.o.State
		var st unix.Statfs_t
		if unix.Statfs(t.o.State, &st) == nil && int64(st.Bavail)*st.Bsize < 16<<20 {
			what, hint = "the state directory is full", "make room in "+t.o.State
		}
		return &migrate.Problem{Kind: migrate.Stopped, What: what + "; the source is untouched", Why: err,
			Hint: hint + ", then: fsmigrate resume " + t.o.Plan.ID}
	}
	return err
}

// toldBack is told for the volume that follows after the cutover: it is not the spare, and
// the one that must not be touched is not the source.
func (t *Tree) toldBack(err error) error {
	if copier.Full(err) {
		return &migrate.Problem{Kind: migrate.Stopped, What: "the old volume is full", Why: err,
			Hint: "it follows again when it has room; or close the way back: fsmigrate finalize " + t.o.Plan.ID}
	}
	return &migrate.Problem{Kind: migrate.Failed, What: "the old volume failed; the new one is untouched",
		Why: fmt.Errorf("%w: %w", migrate.ErrOtherSide, err), Hint: "see the kernel log; nothing leads back any more: fsmigrate finalize " + t.o.Plan.ID}
}

// errUnformatted says that the new format could not be laid down on a spare that the
// checks found fit for it.
var errUnformatted = errors.New("the spare does not take the new format")

// deviceError says of an error on the way to the other volume whether it is of its device.
func deviceError(op string, err error) error {
	var te *copier.TargetError
	if err == nil || errors.As(err, &te) || !dead(err) {
		return err
	}
	return &copier.TargetError{Op: op, Off: -1, Err: err}
}

// dead reports whether err says that a volume or its device cannot be relied on any
// more: I/O errors, and what file systems answer after they shut down for one.
func dead(err error) bool {
	for _, e := range []unix.Errno{unix.EIO, unix.EROFS, unix.EUCLEAN, unix.EBADMSG, unix.ENODEV, unix.ENXIO, unix.EREMOTEIO, unix.ENOMEDIUM} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

func (t *Tree) spareSpace() (free, total int64) {
	p := t.active()
	if p == nil {
		return 0, 0
	}
	var st unix.Statfs_t
	if unix.Fstatfs(p.to.fd, &st) != nil {
		return 0, 0
	}
	return int64(st.Bavail) * st.Bsize, int64(st.Blocks) * st.Bsize
}

func size(n int64) string {
	const unit = 1024
	if n < unit {
		return fmt.Sprintf("%d B", n)
	}
	div, exp := int64(unit), 0
	for m := n / unit; m >= unit; m /= unit {
		div *= unit
		exp++
	}
	return fmt.Sprintf("%.1f %ciB", float64(n)/float64(div), "KMGTPE"[exp])
}
