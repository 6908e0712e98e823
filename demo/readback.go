package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// count is what the volume holds of what was acknowledged.
type count struct {
	Writes     int64 // of the database, acknowledged
	Since      int64 // of those, after the moment asked for
	Operations int64 // of the churn, acknowledged
	Files      int64 // compared: those of the churn and the archive
	Lost       int64
	Examples   []string
}

func (c *count) lose(format string, args ...any) {
	c.Lost++
	if len(c.Examples) < 5 {
		c.Examples = append(c.Examples, fmt.Sprintf(format, args...))
	}
}

// readBack compares the volume at data with the ledgers. The application is stopped.
func readBack(ctx context.Context, data, ledger string, archive int, since time.Time) (count, error) {
	var c count
	if err := c.database(ctx, data, ledger, since); err != nil {
		return c, fmt.Errorf("read back the database: %w", err)
	}
	want, operations, err := readFiles(ledger)
	if err != nil {
		return c, err
	}
	c.Operations = operations
	for path, v := range want {
		c.file(data, path, v)
	}
	for i := range archive {
		c.file(data, filepath.Join("archive", fmt.Sprintf("%03d", i/500), fmt.Sprintf("%05d", i)), archived(i))
	}
	return c, c.surplus(data, want)
}

func (c *count) database(ctx context.Context, data, ledger string, since time.Time) error {
	acknowledged, err := readWrites(ledger)
	if err != nil {
		return err
	}
	db, err := openSQLite(data, true)
	if err != nil {
		return err
	}
	defer db.Close()
	var sound string
	if err := db.QueryRowContext(ctx, "PRAGMA integrity_check").Scan(&sound); err != nil {
		return err
	}
	if sound != "ok" {
		c.lose("the database is damaged: %s", sound)
	}
	rows, err := db.QueryContext(ctx, "SELECT seq, payload FROM writes")
	if err != nil {
		return err
	}
	defer rows.Close()
	whole := map[int64]bool{}
	for rows.Next() {
		var seq int64
		var b []byte
		if err := rows.Scan(&seq, &b); err != nil {
			return err
		}
		whole[seq] = bytes.Equal(b, rowOf(seq))
	}
	if err := rows.Err(); err != nil {
		return err
	}
	for _, w := range acknowledged {
		c.Writes++
		if w.end.After(since) {
			c.Since++
		}
		if !whole[w.seq] {
			c.lose("write %d of the database, acknowledged at %s", w.seq, w.end.Format("15:04:05.000"))
		}
	}
	var total int64
	if err := db.QueryRowContext(ctx, "SELECT n FROM total").Scan(&total); err != nil {
		return err
	}
	if total != int64(len(whole)) {
		c.lose("the database counts %d writes and holds %d", total, len(whole))
	}
	return nil
}

func (c *count) file(data, path string, v content) {
	c.Files++
	got, err := os.ReadFile(filepath.Join(data, path))
	switch {
	case err != nil:
		c.lose("%s", err)
	case !bytes.Equal(got, v.bytes()):
		c.lose("%s does not hold what was written", path)
	}
}

// surplus finds files of the churn that were removed and are there again.
func (c *count) surplus(data string, want files) error {
	return filepath.WalkDir(filepath.Join(data, churnDir), func(path string, e fs.DirEntry, err error) error {
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if err != nil || e.IsDir() {
			return err
		}
		rel, err := filepath.Rel(data, path)
		if err != nil {
			return err
		}
		if _, ok := want[rel]; !ok {
			c.lose("%s is back, after it was removed or renamed", rel)
		}
		return nil
	})
}
