package work

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// mail is a maildir with a few boxes.
type mail struct{ dir string }

const boxes = 8

// kept is how many messages of a box are there before the oldest expires.
const kept = 200

func openMail(dir string) (store, error) {
	m := mail{filepath.Join(dir, "app-mail")}
	for i := range boxes {
		for _, sub := range []string{"tmp", "new", "cur"} {
			if err := os.MkdirAll(filepath.Join(m.box(i), sub), 0o750); err != nil {
				return nil, err
			}
		}
	}
	return m, nil
}

func (m mail) box(i int) string { return filepath.Join(m.dir, fmt.Sprintf("box%d", i)) }

// do delivers message k; every other time it also reads one that came before, and removes
// one that is old.
func (m mail) do(k int64) (int64, error) {
	r := random(k)
	box := int(k % boxes)
	name := fmt.Sprintf("%d.bench", k)
	tmp, new := filepath.Join(m.box(box), "tmp", name), filepath.Join(m.box(box), "new", name)
	n, err := written(tmp, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, some(r, 1024+r.IntN(30<<10)), true)
	if err == nil {
		err = os.Rename(tmp, new)
	}
	if err == nil {
		err = syncDir(filepath.Dir(new))
	}
	if before := k - boxes*int64(1+r.IntN(16)); err == nil && k%2 == 0 && before >= 0 {
		err = m.look(box, before)
	}
	if old := k - boxes*kept; err == nil && old >= 0 {
		name := fmt.Sprintf("%d.bench", old)
		err = errors.Join(gone(os.Remove(filepath.Join(m.box(box), "cur", name+":2,S"))), gone(os.Remove(filepath.Join(m.box(box), "new", name))))
	}
	return n, err
}

// look reads a message and moves it to those that were seen.
func (m mail) look(box int, k int64) error {
	name := fmt.Sprintf("%d.bench", k)
	path := filepath.Join(m.box(box), "new", name)
	if _, err := os.ReadFile(path); err != nil {
		return gone(err)
	}
	return gone(os.Rename(path, filepath.Join(m.box(box), "cur", name+":2,S")))
}

func (m mail) close() error { return nil }

// meta does all to names and nothing to data.
type meta struct{ dir string }

const (
	metaDirs  = 16
	metaNames = 500 // a directory
)

func openMeta(dir string) (store, error) {
	m := meta{filepath.Join(dir, "app-metadata")}
	for i := range metaDirs {
		if err := os.MkdirAll(filepath.Join(m.dir, fmt.Sprintf("d%02d", i)), 0o755); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func (m meta) path(r *rand.Rand, prefix string) string {
	return filepath.Join(m.dir, fmt.Sprintf("d%02d", r.IntN(metaDirs)), fmt.Sprintf("%s%03d", prefix, r.IntN(metaNames)))
}

func (m meta) do(k int64) (int64, error) {
	r := random(k)
	file := m.path(r, "f")
	var err error
	switch p := r.IntN(100); {
	case p < 35:
		_, err = written(file, os.O_CREATE|os.O_WRONLY, nil, false)
	case p < 50:
		err = os.Rename(file, m.path(r, "f"))
	case p < 60:
		err = os.Link(file, m.path(r, "l"))
	case p < 70:
		err = os.Chmod(file, fs.FileMode(0o600|r.IntN(0o100)))
	case p < 75:
		err = unix.Setxattr(file, "user.bench", some(r, 1+r.IntN(64)), 0)
	case p < 82:
		err = os.Mkdir(m.path(r, "t"), 0o755)
	case p < 88:
		err = os.Remove(m.path(r, "t"))
	case p < 94:
		err = os.Remove(m.path(r, "l"))
	default:
		err = os.Remove(file)
	}
	if errors.Is(err, unix.EMLINK) {
		err = nil // as many links as the format takes
	}
	return 0, gone(err)
}

func (m meta) close() error { return nil }
