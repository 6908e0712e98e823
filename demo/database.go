package demo

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"time"

	_ "modernc.org/sqlite" // the "sqlite" driver
)

// writeEvery is when writes are due: they come as from clients that do not wait for
// each other, so one that is late makes those behind it late.
const writeEvery = 20 * time.Millisecond

const payload = 400 // bytes of a row

// database is a SQLite database in WAL mode in which each transaction is synced
// before it is acknowledged.
type database struct {
	db     *sql.DB
	ledger *os.File
	next   int64
	due    time.Time
}

func databasePath(data string) string { return filepath.Join(data, "db", "demo.sqlite") }

func openSQLite(data string, readOnly bool) (*sql.DB, error) {
	q := url.Values{"_pragma": {"journal_mode(WAL)", "synchronous(FULL)", "busy_timeout(5000)"}}
	if readOnly {
		q = url.Values{"_pragma": {"query_only(1)", "busy_timeout(5000)"}}
	}
	db, err := sql.Open("sqlite", "file:"+databasePath(data)+"?"+q.Encode())
	if err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	db.SetMaxOpenConns(1)
	return db, nil
}

func openDatabase(ctx context.Context, data, ledger string) (*database, error) {
	if err := os.MkdirAll(filepath.Dir(databasePath(data)), 0o755); err != nil {
		return nil, err
	}
	db, err := openSQLite(data, false)
	if err != nil {
		return nil, err
	}
	d := &database{db: db, next: 1, due: time.Now()}
	const schema = `CREATE TABLE IF NOT EXISTS writes (seq INTEGER PRIMARY KEY, due INTEGER NOT NULL, payload BLOB NOT NULL);
		CREATE TABLE IF NOT EXISTS total (id INTEGER PRIMARY KEY CHECK (id = 1), n INTEGER NOT NULL);
		INSERT OR IGNORE INTO total VALUES (1, 0);`
	if _, err := db.ExecContext(ctx, schema); err != nil {
		return nil, errors.Join(fmt.Errorf("make the tables: %w", err), db.Close())
	}
	// Writes that became due while nobody ran are done now, late.
	have, err := readWrites(ledger)
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	if n := len(have); n > 0 {
		d.next, d.due = have[n-1].seq+1, have[n-1].due.Add(writeEvery)
	}
	if d.ledger, err = openLedger(writesLedger(ledger)); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return d, nil
}

// run writes until ctx ends, and finishes the transaction it is in.
func (d *database) run(ctx context.Context) (err error) {
	defer func() { err = errors.Join(err, d.db.Close(), d.ledger.Close()) }()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		timer.Reset(time.Until(d.due))
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		}
		if ctx.Err() != nil {
			return nil // both may be ready
		}
		if err := d.write(); err != nil {
			return fmt.Errorf("write %d: %w", d.next, err)
		}
	}
}

func (d *database) write() error {
	tx, err := d.db.Begin()
	if err != nil {
		return err
	}
	_, err = tx.Exec("INSERT INTO writes VALUES (?, ?, ?)", d.next, d.due.UnixNano(), rowOf(d.next))
	if err == nil {
		_, err = tx.Exec("UPDATE total SET n = n + 1")
	}
	if err != nil {
		return errors.Join(err, tx.Rollback())
	}
	if err := tx.Commit(); err != nil {
		return err
	}
	_, err = fmt.Fprintf(d.ledger, "%d %d %d\n", d.next, d.due.UnixNano(), time.Now().UnixNano())
	d.next++
	d.due = d.due.Add(writeEvery)
	return err
}

func rowOf(seq int64) []byte { return content{seq, 0, payload}.bytes() }
