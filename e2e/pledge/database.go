package pledge

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"

	_ "modernc.org/sqlite" // the "sqlite" driver
)

const rowBytes = 700 // of a row's data

// openDatabase opens the database of the directory, and makes it when it is not there. It
// syncs as much as SQLite can: with a rollback journal, EXTRA also syncs the directory
// that the journal is removed from, without which the last transaction may be undone.
func openDatabase(dir string, wal bool) (*sql.DB, error) {
	mode := "journal_mode(DELETE)"
	if wal {
		mode = "journal_mode(WAL)"
	}
	q := url.Values{"_pragma": {"busy_timeout(5000)", mode, "synchronous(EXTRA)"}}
	db, err := sql.Open("sqlite", "file:"+databaseFile(dir)+"?"+q.Encode())
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1)
	return db, nil
}

func databaseFile(dir string) string { return filepath.Join(dir, "rows.sqlite") }

// commitRows commits one row after the other until ctx ends.
func (o Options) commitRows(ctx context.Context, acks *acks) (err error) {
	if acks.disk {
		return errors.New("rows are acknowledged by marks only, not on a disk")
	}
	dir := o.path(o.Database)
	if err := os.Mkdir(dir, 0o755); err == nil {
		err = o.syncDirs(dir)
		if err != nil {
			return err
		}
	} else if !errors.Is(err, os.ErrExist) {
		return err
	}
	db, err := openDatabase(dir, o.Seed%2 == 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	const schema = `CREATE TABLE IF NOT EXISTS rows (n INTEGER PRIMARY KEY, data BLOB NOT NULL);
		CREATE TABLE IF NOT EXISTS last (id INTEGER PRIMARY KEY CHECK (id = 1), n INTEGER NOT NULL);
		INSERT OR IGNORE INTO last VALUES (1, 0);`
	if _, err := db.Exec(schema); err != nil {
		return fmt.Errorf("make the tables: %w", err)
	}
	var n int64
	if err := db.QueryRow("SELECT n FROM last").Scan(&n); err != nil {
		return fmt.Errorf("find the last row: %w", err)
	}
	pace := o.pace()
	defer pace.stop()
	for ctx.Err() == nil {
		n++
		if err := commitRow(db, n); err != nil {
			return fmt.Errorf("commit row %d: %w", n, err)
		}
		if _, err := fmt.Fprintf(acks.file, "row %d", n); err != nil {
			return err
		}
		pace.wait(ctx)
	}
	return nil
}

func commitRow(db *sql.DB, n int64) error {
	tx, err := db.Begin()
	if err != nil {
		return err
	}
	if _, err = tx.Exec("INSERT INTO rows VALUES (?, ?)", n, fill(uint64(n), rowBytes)); err == nil {
		_, err = tx.Exec("UPDATE last SET n = ?", n)
	}
	if err != nil {
		return errors.Join(err, tx.Rollback())
	}
	return tx.Commit()
}

// JudgeRows opens the database in a directory, as an application would after a power cut,
// and answers what is wrong when acked rows were acknowledged: one more may be there.
func JudgeRows(dir string, acked int64) (wrong []string) {
	bad := func(format string, v ...any) []string {
		return append(wrong, "database: "+fmt.Sprintf(format, v...))
	}
	if _, err := os.Stat(databaseFile(dir)); err != nil {
		if acked == 0 {
			return nil
		}
		return bad("%d rows acknowledged, and no database: %v", acked, err)
	}
	q := url.Values{"_pragma": {"busy_timeout(5000)"}}
	db, err := sql.Open("sqlite", "file:"+databaseFile(dir)+"?"+q.Encode())
	if err != nil {
		return bad("%v", err)
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	var verdict string
	if err := db.QueryRow("PRAGMA integrity_check").Scan(&verdict); err != nil || verdict != "ok" {
		return bad("integrity check: %s, %v", verdict, err)
	}
	var tables int
	if err := db.QueryRow("SELECT count(*) FROM sqlite_master WHERE name IN ('rows', 'last')").Scan(&tables); err != nil {
		return bad("%v", err)
	}
	if tables < 2 && acked == 0 {
		return nil // it was just being made
	}
	return append(wrong, judgeRows(db, acked)...)
}

func judgeRows(db *sql.DB, acked int64) (wrong []string) {
	rows, err := db.Query("SELECT n, data FROM rows ORDER BY n")
	if err != nil {
		return []string{"database: " + err.Error()}
	}
	defer rows.Close()
	last := int64(0)
	for rows.Next() {
		var n int64
		var data []byte
		if err := rows.Scan(&n, &data); err != nil {
			return []string{"database: " + err.Error()}
		}
		if n != last+1 || !bytes.Equal(data, fill(uint64(n), rowBytes)) {
			return []string{fmt.Sprintf("database: row %d follows %d, or its data is another", n, last)}
		}
		last = n
	}
	if err := rows.Err(); err != nil {
		return []string{"database: " + err.Error()}
	}
	if last < acked || last > acked+1 {
		return []string{fmt.Sprintf("database: %d rows, %d were acknowledged", last, acked)}
	}
	return nil
}
