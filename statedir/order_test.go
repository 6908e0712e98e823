package statedir

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"testing"
	"time"

	"github.com/fsmigrate/fsmigrate/blockdev/blocktest"
	"github.com/fsmigrate/fsmigrate/migrate"
)

var temporary = regexp.MustCompile(`\.tmp-[0-9]+-[0-9]+(-data)?`)

// The system calls themselves, on a real file system: what the tests in memory prove of the
// order holds only if each of these is made.
func TestOrderOfSystemCalls(t *testing.T) {
	root := filepath.Join(t.TempDir(), "root")
	if err := os.Mkdir(root, 0o700); err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	var d *Dir
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Error(err)
		}
	}
	state := migrate.NewState(time.Now())
	for _, c := range []struct {
		what string
		do   func()
		want []string
	}{
		{"create", func() {
			var err error
			d, err = Create(root, testPlan("data"))
			check(err)
		}, []string{
			"fsync T/T", "rename T/T T/plan.yaml", "fsync T",
			"fsync T/switch/T", "rename T/switch/T T/switch/0000.json", "fsync T/switch",
			"fsync T/T", "rename T/T T/state.json", "fsync T",
			"rename T data", "fsync .",
		}},
		{"save", func() { check(d.Save(ctx, state)) }, []string{"fsync data/T", "rename data/T data/state.json", "fsync data"}},
		{"read the truth", func() { _, err := d.Truth(ctx); check(err) }, []string{"fsync data/switch"}},
		{"commit", func() {
			_, err := d.Commit(ctx, migrate.Record{Seq: 1, Truth: migrate.Source, By: "engine"})
			check(err)
		},
			[]string{"fsync data/switch", "fsync data/switch/T", "link data/switch/T data/switch/0001.json", "fsync data/switch"}},
		{"first line of the audit log", func() { check(d.Audit(ctx, "x", nil)) }, []string{"fsync data/audit.jsonl", "fsync data"}},
		{"another line", func() { check(d.Audit(ctx, "x", nil)) }, []string{"fsync data/audit.jsonl"}},
		{"a doubt", func() { _ = d.doubt(2, nil) }, []string{"fsync data/switch/0002.doubt", "fsync data/switch"}},
	} {
		got := blocktest.Calls(t, root, c.do)
		for i := range got {
			got[i] = temporary.ReplaceAllString(got[i], "T")
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s made the calls %q, want %q", c.what, got, c.want)
		}
	}
	state.Phase = migrate.Aborted
	check(d.Save(ctx, state))
	to := ""
	got := blocktest.Calls(t, root, func() {
		var err error
		to, err = d.Retire(ctx)
		check(err)
	})
	if want := []string{"rename data " + filepath.Base(to), "fsync ."}; !slices.Equal(got, want) {
		t.Errorf("retire made the calls %q, want %q", got, want)
	}
}

// What an operator decides is in the audit log before it is in force, and a state that fits it
// is there when it answers.
func TestDecideLeavesATrace(t *testing.T) {
	root := t.TempDir()
	d, err := Create(root, testPlan("data"))
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	if err := os.Remove(filepath.Join(d.Path(), stateFile)); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Decide(ctx, migrate.Shadow, "the source is dead"); err != nil {
		t.Fatal(err)
	}
	events, err := d.ReadAudit()
	if err != nil || len(events) != 1 || events[0].Event != "decided" || events[0].Fields["truth"] != "shadow" {
		t.Errorf("audit %+v, %v", events, err)
	}
	s, err := d.Load(ctx)
	if err != nil || s.Phase != migrate.Reverse {
		t.Errorf("state %+v, %v", s, err)
	}
	if r, err := d.Truth(ctx); err != nil || r.Truth != migrate.Shadow || r.By != migrate.Operator {
		t.Errorf("record %+v, %v", r, err)
	}
}
