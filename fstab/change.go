package fstab

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Changed says what a change did.
type Changed struct {
	Before string // the line that was there, without newline
	After  string
	Done   bool // false: the file was as it should be already
}

// Enlist hands the entry of dir to the migration id, so that the next boot asks
// it who is the truth. The options stay, with extra ones appended that are
// not there yet. Called again it changes nothing. The line that it replaced is to
// be kept by the caller: Restore wants it back.
func Enlist(path, dir, id string, extra ...string) (Changed, error) {
	return change(path, id, func(t *Table) (int, error) {
		i, e, err := t.Find(dir)
		if err != nil {
			return -1, err
		}
		if e.Type == TypeMigrate {
			if e.Spec != id {
				return -1, fmt.Errorf("%s belongs to migration %s", dir, e.Spec)
			}
			return i, nil
		}
		have := Split(e.Options)
		for _, x := range extra {
			if !slices.Contains(have, x) {
				have = append(have, x)
			}
		}
		if len(have) > 1 {
			have = slices.DeleteFunc(have, func(o string) bool { return o == "defaults" })
		}
		t.Set(i, Entry{Spec: id, Dir: e.Dir, Type: TypeMigrate, Options: strings.Join(have, ",")})
		return i, nil
	})
}

// Restore gives dir its native line back, byte for byte. Called again it changes nothing.
func Restore(path, dir, id, native string) (Changed, error) {
	if _, ok := ParseLine(native); !ok || strings.Contains(native, "\n") {
		return Changed{}, fmt.Errorf("restore the entry of %s: %q is none", dir, native)
	}
	return change(path, id, func(t *Table) (int, error) {
		i, e, err := t.Find(dir)
		switch {
		case err != nil:
			return -1, err
		case t.Line(i) == native:
			return i, nil
		case e.Type != TypeMigrate || e.Spec != id:
			return -1, errNotOurs(dir, id, t.Line(i))
		}
		t.SetLine(i, native)
		return i, nil
	})
}

// Finalize gives dir the native entry of the new volume. Called again it changes nothing.
func Finalize(path, dir, id string, native Entry) (Changed, error) {
	return change(path, id, func(t *Table) (int, error) {
		i, e, err := t.Find(dir)
		switch {
		case err != nil:
			return -1, err
		case e == native:
			return i, nil
		case e.Type != TypeMigrate || e.Spec != id:
			return -1, errNotOurs(dir, id, t.Line(i))
		}
		t.Set(i, native)
		return i, nil
	})
}

// ErrNotOurs says that somebody changed the entry since Enlist: it is not overwritten.
var ErrNotOurs = errors.New("the entry is not this migration's any more")

func errNotOurs(dir, id, line string) error {
	return fmt.Errorf("%s, migration %s: %w: %q", dir, id, ErrNotOurs, line)
}

// change edits one line of the file and replaces the file, unless nothing changed.
func change(path, id string, edit func(*Table) (line int, err error)) (Changed, error) {
	r, err := openReplacement(path)
	if err != nil {
		return Changed{}, err
	}
	t := Parse(r.old)
	before := Parse(r.old)
	i, err := edit(t)
	if err != nil {
		return Changed{}, fmt.Errorf("change %s: %w", path, err)
	}
	c := Changed{Before: before.Line(i), After: t.Line(i)}
	if c.Before == c.After {
		return c, nil
	}
	if err := r.replace(t.Bytes(), BackupName(r.path, id)); err != nil {
		return Changed{}, err
	}
	c.Done = true
	return c, nil
}

// BackupName is where the file is kept as it was before the migration first changed it.
func BackupName(path, id string) string { return path + ".fsmigrate-" + id }
