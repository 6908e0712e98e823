package host

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/fsmigrate/fsmigrate/migrate"
)

// Extras are what run was asked for beside the plan. They are kept in the state
// directory, so that whoever resumes, after a crash or under systemd, does it too.
type Extras struct {
	Report  string `json:"report,omitempty"`  // file that gets the report at the end
	Metrics string `json:"metrics,omitempty"` // file that is kept current
}

const extrasName = "run.json"

// LoadExtras reads them; there are none where none were saved.
func LoadExtras(dir string) (Extras, error) {
	var e Extras
	b, err := os.ReadFile(filepath.Join(dir, extrasName))
	if errors.Is(err, os.ErrNotExist) {
		return e, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &e)
	}
	if err != nil {
		return e, fmt.Errorf("read %s/%s: %w", dir, extrasName, err)
	}
	return e, nil
}

// Save keeps e, with paths made absolute.
func (e Extras) Save(dir string) error {
	for _, p := range []*string{&e.Report, &e.Metrics} {
		if *p == "" {
			continue
		}
		abs, err := filepath.Abs(*p)
		if err != nil {
			return fmt.Errorf("resolve %s: %w", *p, err)
		}
		*p = abs
	}
	return replace(filepath.Join(dir, extrasName), e, 0o600)
}

func writeReport(path string, r migrate.Report) error { return replace(path, r, 0o644) }

// replace makes path v as JSON, in one step and durably.
func replace(path string, v any, mode os.FileMode) error {
	fail := func(err error) error { return fmt.Errorf("write %s: %w", path, err) }
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fail(err)
	}
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+".*")
	if err != nil {
		return fail(err)
	}
	_, err = f.Write(append(b, '\n'))
	if err == nil {
		err = errors.Join(f.Chmod(mode), f.Sync())
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
		return fail(err)
	}
	d, err := os.Open(dir)
	if err != nil {
		return fail(err)
	}
	if err = errors.Join(d.Sync(), d.Close()); err != nil {
		return fail(err)
	}
	return nil
}
