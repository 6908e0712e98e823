package work

import (
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"

	_ "modernc.org/sqlite" // the driver
)

// lite is a SQLite database.
type lite struct {
	db     *sql.DB
	insert *sql.Stmt
}

func openSQLite(dir string) (store, error) {
	source := url.URL{Scheme: "file", Path: filepath.Join(dir, "app.sqlite"),
		RawQuery: "_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_pragma=busy_timeout(10000)"}
	db, err := sql.Open("sqlite", source.String())
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1)
	fail := func(err error) (store, error) { return nil, errors.Join(err, db.Close()) }
	if _, err := db.Exec("CREATE TABLE IF NOT EXISTS writes (k INTEGER PRIMARY KEY, body BLOB)"); err != nil {
		return fail(fmt.Errorf("make the table: %w", err))
	}
	s := &lite{db: db}
	if s.insert, err = db.Prepare("INSERT OR REPLACE INTO writes VALUES (?, ?)"); err != nil {
		return fail(err)
	}
	return s, nil
}

func (s *lite) do(k int64) (int64, error) {
	r := random(k)
	b := some(r, 100+r.IntN(600))
	_, err := s.insert.Exec(k, b)
	return int64(len(b)), err
}

func (s *lite) close() error { return errors.Join(s.insert.Close(), s.db.Close()) }
