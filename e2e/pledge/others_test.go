package pledge_test

import (
	"bufio"
	"context"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fsmigrate/fsmigrate/e2e/pledge"
	_ "modernc.org/sqlite"
)

// The database holds what was acknowledged, in both of its journals' modes, and goes on
// where it was; a row that is missing, one too many, another's data, and damage are found.
// Whoever syncs nothing works beside it.
func TestRows(t *testing.T) {
	for _, seed := range []uint64{2, 3} {
		lab := t.TempDir()
		o := pledge.Options{
			Dir: lab, Log: filepath.Join(lab, "log"), Marks: filepath.Join(lab, "marks"), Seed: seed, Workers: 2, Rate: 200, Ops: 20, Lie: true,
			Database: "db", Unsynced: "unsynced",
		}
		if err := os.WriteFile(o.Marks, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := pledge.Run(context.Background(), o); err != nil {
				t.Fatal(err)
			}
			o.Ops += 20
		}
		dir, acked := filepath.Join(lab, "db"), rowsAcked(t, o.Marks)
		require := func(acked int64, wrong bool) {
			t.Helper()
			if got := pledge.JudgeRows(dir, acked); len(got) > 0 != wrong {
				t.Errorf("seed %d, %d rows acknowledged: %q", seed, acked, got)
			}
		}
		require(acked, false)
		require(acked-1, false) // it was not told yet
		require(acked-2, true)
		require(acked+1, true)
		change(t, dir, "UPDATE rows SET data = (SELECT data FROM rows WHERE n = 2) WHERE n = 1")
		require(acked, true)
		change(t, dir, "DELETE FROM rows WHERE n = 1")
		require(acked, true)
		if entries, err := os.ReadDir(filepath.Join(lab, "unsynced")); err != nil || len(entries) == 0 {
			t.Errorf("nothing was done without syncing: %v", err)
		}
	}
	if wrong := pledge.JudgeRows(t.TempDir(), 0); len(wrong) > 0 {
		t.Errorf("none was promised, none is there: %q", wrong)
	}
	if wrong := pledge.JudgeRows(t.TempDir(), 1); len(wrong) == 0 {
		t.Error("a database that is gone was not found")
	}
}

// rowsAcked reads the last mark of a row; marks lie one behind the other here.
func rowsAcked(t *testing.T, marks string) (last int64) {
	t.Helper()
	b, err := os.ReadFile(marks)
	if err != nil {
		t.Fatal(err)
	}
	s := bufio.NewScanner(strings.NewReader(strings.ReplaceAll(strings.ReplaceAll(string(b), "row", "\nrow"), "ack", "\nack")))
	for s.Scan() {
		var n int64
		if _, err := fmt.Sscanf(s.Text(), "row %d", &n); err == nil {
			last = n
		}
	}
	if last < 3 {
		t.Fatalf("%d rows only: %q", last, b)
	}
	return last
}

func change(t *testing.T, dir, statement string) {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+filepath.Join(dir, "rows.sqlite"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec(statement); err != nil {
		t.Fatal(err)
	}
}
