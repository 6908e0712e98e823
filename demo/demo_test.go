package demo

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fsmigrate/fsmigrate/migrate"
	"github.com/fsmigrate/fsmigrate/status"
)

// A ledger replayed is what the operations left.
func TestLedgerReplays(t *testing.T) {
	f := files{}
	for _, line := range []string{
		"put churn/d0/f1 1 0 10", "put churn/d0/f2 2 0 20", "put churn/d0/f1 1 1 11", "move churn/d0/f1 churn/d1/f3",
		"tree churn/d0 churn/t9", "put churn/d0/f4 4 0 5", "drop churn/d0/f4",
	} {
		if err := f.apply(line); err != nil {
			t.Fatal(err)
		}
	}
	want := files{"churn/d1/f3": {1, 1, 11}, "churn/t9/f2": {2, 0, 20}}
	if len(f) != len(want) || f["churn/d1/f3"] != want["churn/d1/f3"] || f["churn/t9/f2"] != want["churn/t9/f2"] {
		t.Errorf("got %v, want %v", f, want)
	}
	for _, bad := range []string{"", "put x", "copy a b"} {
		if f.apply(bad) == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

// application runs the demo's application on a directory for a while, twice.
func application(t *testing.T) (data, ledger string) {
	t.Helper()
	data, ledger = t.TempDir(), t.TempDir()
	if err := populate(t.Context(), data, 7); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		ctx, cancel := context.WithTimeout(t.Context(), 800*time.Millisecond)
		defer cancel()
		if err := Application(ctx, data, ledger, func() {}); err != nil {
			t.Fatal(err)
		}
	}
	return data, ledger
}

// The count finds everything in a volume that has it, and each kind of loss in one that has not.
func TestReadBackFindsWhatIsLost(t *testing.T) {
	data, ledger := application(t)
	c, err := readBack(t.Context(), data, ledger, 7, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	if c.Lost != 0 || c.Writes == 0 || c.Since != c.Writes || c.Operations == 0 || c.Files < 7 {
		t.Fatalf("nothing is lost, but: %+v", c)
	}
	want, _, err := readFiles(ledger)
	if err != nil {
		t.Fatal(err)
	}
	var some string
	for path, v := range want {
		if v.size > 0 {
			some = filepath.Join(data, path)
		}
	}
	was, err := os.ReadFile(some)
	if err != nil {
		t.Fatal(err)
	}
	restore := func() error { return os.WriteFile(some, was, 0o644) }
	planted := map[string]func() (undo func() error, err error){
		"content": func() (func() error, error) {
			b := append([]byte{was[0] ^ 1}, was[1:]...)
			return restore, os.WriteFile(some, b, 0o644)
		},
		"missing": func() (func() error, error) { return restore, os.Remove(some) },
		"back": func() (func() error, error) {
			path := filepath.Join(data, churnDir, "d0", "removed-long-ago")
			return func() error { return os.Remove(path) }, os.WriteFile(path, nil, 0o644)
		},
		"row": func() (func() error, error) {
			db, err := openSQLite(data, false)
			if err != nil {
				return nil, err
			}
			_, err = db.Exec("DELETE FROM writes WHERE seq = 3")
			return func() error {
				_, err := db.Exec("INSERT INTO writes VALUES (3, 0, ?)", rowOf(3))
				return errors.Join(err, db.Close())
			}, err
		},
	}
	for name, plant := range planted {
		undo, err := plant()
		if err != nil {
			t.Fatal(name, err)
		}
		c, err := readBack(t.Context(), data, ledger, 7, time.Time{})
		if err != nil {
			t.Fatal(name, err)
		}
		if c.Lost == 0 || len(c.Examples) == 0 {
			t.Errorf("%s: not found", name)
		}
		if err := undo(); err != nil {
			t.Fatal(name, err)
		}
	}
}

// A write that was due while nobody ran is late by as long as that was.
func TestLatencyCountsTheWait(t *testing.T) {
	data, ledger := t.TempDir(), t.TempDir()
	for i := range 2 {
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		if err := Application(ctx, data, ledger, func() {}); err != nil {
			t.Fatal(err)
		}
		cancel()
		if i == 0 {
			<-time.After(500 * time.Millisecond) // it is down
		}
	}
	list, err := readWrites(ledger)
	if err != nil {
		t.Fatal(err)
	}
	var longest time.Duration
	for i, w := range list {
		longest = max(longest, w.latency())
		if i > 0 && (w.seq != list[i-1].seq+1 || w.due.Sub(list[i-1].due) != writeEvery) {
			t.Fatalf("write %d is not due %s after the one before", w.seq, writeEvery)
		}
	}
	if longest < 400*time.Millisecond {
		t.Errorf("half a second without the application shows as %s", longest)
	}
}

func TestBandsAreCut(t *testing.T) {
	got := cut([]band{{"a", 0, 10, ""}, {"b", 10, 20, ""}, {"x", 4, 12, ""}})
	want := []band{{"a", 0, 4, ""}, {"x", 4, 12, ""}, {"b", 12, 20, ""}}
	if len(got) != len(want) {
		t.Fatalf("got %v", got)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("band %d: got %v, want %v", i, got[i], want[i])
		}
	}
}

// The pictures are whole files, and the page needs no network.
func TestPictures(t *testing.T) {
	now := time.Now()
	var writes []write
	for i := range 500 {
		due := now.Add(time.Duration(i) * writeEvery)
		writes = append(writes, write{int64(i), due, due.Add(time.Duration(1+i%40) * time.Millisecond)})
	}
	steps := []migrate.Step{
		{Phase: migrate.Copy, At: now.Add(time.Second)}, {Phase: migrate.Hold, At: now.Add(3 * time.Second)},
		{Phase: migrate.Cutover, At: now.Add(5 * time.Second)}, {Phase: migrate.Reverse, At: now.Add(6 * time.Second)},
		{Phase: migrate.Rollback, At: now.Add(8 * time.Second)}, {Phase: migrate.RolledBack, At: now.Add(9 * time.Second)},
	}
	tl := newTimeline(writes, steps, []span{{now.Add(7 * time.Second), now.Add(7500 * time.Millisecond)}}, status.Demo{})
	if len(tl.Zoom) != 2 || len(tl.rows()) < 6 {
		t.Errorf("zooms %v, rows %v", tl.Zoom, tl.rows())
	}
	dir := t.TempDir()
	if err := errors.Join(tl.png(filepath.Join(dir, "t.png")), tl.html(filepath.Join(dir, "t.html"))); err != nil {
		t.Fatal(err)
	}
	png, err := os.ReadFile(filepath.Join(dir, "t.png"))
	if err != nil || !strings.HasPrefix(string(png), "\x89PNG") {
		t.Errorf("no picture: %v", err)
	}
	html, err := os.ReadFile(filepath.Join(dir, "t.html"))
	if err != nil || strings.Contains(string(html), "http") || !strings.Contains(string(html), `"writes":[{"t":-5`) {
		t.Errorf("page: %v", err)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 2 {
		t.Errorf("left %v, %v", left, err)
	}
}

// A demo that was killed leaves a directory with loops and mounts: the next one clears it.
func TestNextLabClearsTheLast(t *testing.T) {
	dir := t.TempDir()
	l, err := openLab(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.release() })
	if err := l.volumes(t.Context(), 512<<20); err != nil {
		t.Fatal(err)
	}
	alive, err := openLab(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(l.oldImage()); err != nil {
		t.Fatal("a demo that lives was cleared: ", err)
	}
	if err := alive.close(); err != nil {
		t.Fatal(err)
	}
	if err := l.lock.Close(); err != nil { // as its end would
		t.Fatal(err)
	}
	next, err := openLab(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := next.close(); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("left %v, %v", left, err)
	}
}
