package copier

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// SourceError is a failure to read the source: an I/O error of its disk, or a
// call it refused. The file has to be named, and cutover blocked.
type SourceError struct {
	Op  string // what was tried: "read", "fiemap", …
	Off int64  // file offset; -1 where there is none
	Err error
}

func (e *SourceError) Error() string { return sideError("source", e.Op, e.Off, e.Err) }
func (e *SourceError) Unwrap() error { return e.Err }

// TargetError is a failure of the shadow: it degrades the migration, never the
// application (I9). errors.Is(err, unix.ENOSPC) says that the spare is full.
type TargetError struct {
	Op  string
	Off int64 // file offset; -1 where there is none
	Err error
}

func (e *TargetError) Error() string { return sideError("target", e.Op, e.Off, e.Err) }
func (e *TargetError) Unwrap() error { return e.Err }

func sideError(side, op string, off int64, err error) string {
	if off < 0 {
		return fmt.Sprintf("%s %s: %v", op, side, err)
	}
	return fmt.Sprintf("%s %s at %d: %v", op, side, off, err)
}

func sourceError(op string, off int64, err error) error {
	var s *SourceError
	if errors.As(err, &s) {
		return err
	}
	return &SourceError{Op: op, Off: off, Err: err}
}

func targetError(op string, off int64, err error) error {
	var t *TargetError
	if errors.As(err, &t) {
		return err
	}
	return &TargetError{Op: op, Off: off, Err: err}
}

// Full reports whether err says that the target has no room left: neither
// blocks, nor inodes, nor quota.
func Full(err error) bool {
	var t *TargetError
	return errors.As(err, &t) && (errors.Is(t.Err, unix.ENOSPC) || errors.Is(t.Err, unix.EDQUOT))
}

func isTarget(err error) bool {
	var t *TargetError
	return errors.As(err, &t)
}
