package demo

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"time"
)

const (
	churnDir   = "churn"
	churnDirs  = 8
	churnMax   = 400 // files; above, more are dropped than made
	churnEvery = 15 * time.Millisecond
)

// churn makes, overwrites, renames and removes files below a directory until ctx ends.
type churn struct {
	root   string // the volume
	ledger *os.File
	files  files
	next   int64 // id of the next new file
	rand   *rand.Rand
}

func newChurn(data, ledger string) (*churn, error) {
	have, operations, err := readFiles(ledger)
	if err != nil {
		return nil, err
	}
	for i := range churnDirs {
		if err := os.MkdirAll(filepath.Join(data, churnDir, fmt.Sprintf("d%d", i)), 0o755); err != nil {
			return nil, err
		}
	}
	out, err := openLedger(filesLedger(ledger))
	if err != nil {
		return nil, err
	}
	return &churn{root: data, ledger: out, files: have, next: operations + 1, rand: rand.New(rand.NewPCG(uint64(operations), 1))}, nil
}

// run does one operation at a time and returns after the one it is in when ctx ends.
func (c *churn) run(ctx context.Context) error {
	defer c.ledger.Close()
	tick := time.NewTicker(churnEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		line, err := c.step()
		if err != nil {
			return fmt.Errorf("churn: %w", err)
		}
		if line == "" {
			continue
		}
		if _, err := c.ledger.WriteString(line + "\n"); err != nil {
			return fmt.Errorf("churn: %w", err)
		}
		if err := c.files.apply(line); err != nil {
			return err
		}
	}
}

// step does one operation and answers its line.
func (c *churn) step() (string, error) {
	c.next++
	n := c.rand.IntN(100)
	if len(c.files) < 20 {
		n = 0
	}
	switch {
	case n < 35 && len(c.files) < churnMax:
		return c.put(c.fresh(), content{c.next, 0, c.rand.IntN(32 << 10)}, false)
	case n < 55: // overwrite in place
		path := c.any()
		was := c.files[path]
		return c.put(path, content{was.id, was.version + 1, c.rand.IntN(32 << 10)}, false)
	case n < 70: // replace through a temporary file, as editors do
		path := c.any()
		was := c.files[path]
		return c.put(path, content{was.id, was.version + 1, c.rand.IntN(32 << 10)}, true)
	case n < 82:
		from, to := c.any(), c.fresh()
		return opMove + " " + from + " " + to, os.Rename(c.at(from), c.at(to))
	case n < 84:
		return c.tree()
	default:
		path := c.any()
		return opDrop + " " + path, os.Remove(c.at(path))
	}
}

func (c *churn) put(path string, v content, replace bool) (string, error) {
	line := fmt.Sprintf("%s %s %d %d %d", opPut, path, v.id, v.version, v.size)
	if !replace {
		return line, os.WriteFile(c.at(path), v.bytes(), 0o644)
	}
	tmp := c.at(filepath.Join(churnDir, "tmp"))
	return line, errors.Join(os.WriteFile(tmp, v.bytes(), 0o600), os.Rename(tmp, c.at(path)))
}

// tree renames a whole directory and makes an empty one in its place.
func (c *churn) tree() (string, error) {
	from := filepath.Join(churnDir, fmt.Sprintf("d%d", c.rand.IntN(churnDirs)))
	to := filepath.Join(churnDir, fmt.Sprintf("t%d", c.next))
	return opTree + " " + from + " " + to, errors.Join(os.Rename(c.at(from), c.at(to)), os.Mkdir(c.at(from), 0o755))
}

func (c *churn) at(path string) string { return filepath.Join(c.root, path) }

func (c *churn) fresh() string {
	return filepath.Join(churnDir, fmt.Sprintf("d%d", c.rand.IntN(churnDirs)), fmt.Sprintf("f%d", c.next))
}

// any is some file there is.
func (c *churn) any() string {
	k := c.rand.IntN(len(c.files))
	paths := make([]string, 0, len(c.files))
	for path := range c.files {
		paths = append(paths, path)
	}
	slices.Sort(paths)
	return paths[k]
}
