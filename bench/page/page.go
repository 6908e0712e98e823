package page

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/fsmigrate/fsmigrate/bench/result"
)

// Write puts the report into dir: bench.json, index.html, README.md and pictures. It
// answers the paths, the page first. Each file is whole or not there.
func Write(dir string, r *result.Report) ([]string, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make the report's directory: %w", err)
	}
	type file struct {
		name  string
		write func(io.Writer) error
	}
	files := []file{
		{"index.html", func(w io.Writer) error { return HTML(w, r) }},
		{"bench.json", func(w io.Writer) error { return encode(w, r) }},
	}
	var pictures []string
	for _, p := range drawings(r) {
		pictures = append(pictures, p.name)
		files = append(files, file{p.name, p.draw})
	}
	files = append(files, file{"README.md", func(w io.Writer) error { return Document(w, r, pictures) }})
	var paths []string
	for _, f := range files {
		path := filepath.Join(dir, f.name)
		if err := save(path, f.write); err != nil {
			return nil, fmt.Errorf("write %s: %w", path, err)
		}
		paths = append(paths, path)
	}
	return paths, stale(dir, pictures)
}

// stale removes pictures of an earlier report: they would be taken for this one's.
func stale(dir string, pictures []string) error {
	for _, pattern := range []string{"timeline*.png", "scale*.png", "movers*.png"} {
		found, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			return err
		}
		for _, path := range found {
			if !slices.Contains(pictures, filepath.Base(path)) {
				if err := os.Remove(path); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func encode(w io.Writer, r *result.Report) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", " ")
	return enc.Encode(r)
}

// Read is a report that Write wrote.
func Read(path string) (*result.Report, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var r result.Report
	if err := json.Unmarshal(b, &r); err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if r.Version != result.Version {
		return nil, fmt.Errorf("read %s: version %d, want %d", path, r.Version, result.Version)
	}
	return &r, nil
}

// save writes a whole file or none.
func save(path string, write func(io.Writer) error) error {
	f, err := os.Create(path + ".new")
	if err != nil {
		return err
	}
	err = write(f)
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		err = errors.Join(err, os.Remove(f.Name()))
	}
	return err
}
