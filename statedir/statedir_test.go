package statedir

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/fsmigrate/fsmigrate/migrate"
)

func newDir(t *testing.T) (*Dir, string) {
	t.Helper()
	root := filepath.Join(t.TempDir(), "state")
	d, err := Create(root, testPlan("data"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Unlock() })
	return d, root
}

func TestCreateOpenList(t *testing.T) {
	d, root := newDir(t)
	if _, err := Create(root, testPlan("data")); migrate.KindOf(err) != migrate.IsRefused || !errors.Is(err, fs.ErrExist) {
		t.Fatalf("second create: %v", err)
	}
	if _, err := Create(root, testPlan("mail")); err != nil {
		t.Fatal(err)
	}
	ids, err := List(root)
	if err != nil || !reflect.DeepEqual(ids, []string{"data", "mail"}) {
		t.Fatal(ids, err)
	}
	if ids, err := List(filepath.Join(root, "none")); err != nil || len(ids) != 0 {
		t.Fatal(ids, err)
	}
	o, err := Open(root, "data")
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(o.Plan(), d.Plan()) || o.Digest() != d.Digest() || o.Path() != filepath.Join(root, "data") {
		t.Errorf("%+v", o.Plan())
	}
	s, err := o.Load(t.Context())
	if err != nil || s.Phase != migrate.Preflight || len(s.Timeline) != 1 {
		t.Fatal(s, err)
	}
	r, err := o.Truth(t.Context())
	if err != nil || r.Truth != migrate.Source || r.Seq != 0 {
		t.Fatal(r, err)
	}
	if _, err := Open(root, "gone"); !errors.Is(err, fs.ErrNotExist) || migrate.HintOf(err) == "" {
		t.Error(err)
	}
	if _, err := Open(root, "../data"); migrate.KindOf(err) != migrate.Usage {
		t.Error(err)
	}
	names, _ := os.ReadDir(root)
	if len(names) != 2 {
		t.Errorf("left over: %v", names)
	}
}

// TestModes: nobody else reads or writes anything in it.
func TestModes(t *testing.T) {
	d, root := newDir(t)
	if err := d.Audit(t.Context(), "x", nil); err != nil {
		t.Fatal(err)
	}
	if err := d.Lock(); err != nil {
		t.Fatal(err)
	}
	unlock, err := d.SettleLock(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	unlock()
	seen := 0
	err = filepath.WalkDir(d.Path(), func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		want := fs.FileMode(0o600)
		if e.IsDir() {
			want = 0o700
		}
		if seen++; info.Mode().Perm() != want {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		return nil
	})
	if err != nil || seen < 8 {
		t.Fatal(seen, err)
	}
	for mode, path := range map[fs.FileMode]string{0o750: d.Path(), 0o777: root} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Open(root, "data"); migrate.KindOf(err) != migrate.IsRefused {
		t.Errorf("mode 0750: %v", err)
	}
	if _, err := Create(root, testPlan("mail")); migrate.KindOf(err) != migrate.IsRefused {
		t.Errorf("root of mode 0777: %v", err)
	}
	if err := errors.Join(os.Chmod(d.Path(), 0o700), os.Chown(d.Path(), 12345, -1)); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(root, "data"); migrate.KindOf(err) != migrate.IsRefused || !strings.Contains(err.Error(), "uid 12345") {
		t.Errorf("another owner: %v", err)
	}
}

func TestStateRoundTrip(t *testing.T) {
	d, _ := newDir(t)
	now := time.Now().UTC().Round(0)
	s := migrate.State{
		Version: migrate.StateVersion, Phase: migrate.Cutover, Since: now, Service: "stopping", Attempt: 3, Seq: 2, Failures: 1, NotBefore: now,
		Timeline: []migrate.Step{{Phase: migrate.Hold, At: now, Note: "n"}},
		Report:   migrate.Report{ID: "data", Proof: migrate.Proof{Kind: "xfs-bulkstat", Examples: []string{"a\nb"}}, Waived: []migrate.Waiver{{Class: "c", Reason: "r"}}},
	}
	if err := d.Save(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	got, err := d.Load(t.Context())
	if err != nil || !reflect.DeepEqual(got, s) {
		t.Fatalf("%+v\n%+v\n%v", s, got, err)
	}
}

// TestDoubts: what cannot be read is ambiguous, with the command that decides it, and
// the operator's decision ends the doubt.
func TestDoubts(t *testing.T) {
	sw := func(d *Dir, seq int) string { return filepath.Join(d.Path(), switchDir, recordName(seq)) }
	for _, tc := range []struct {
		name, exact string
		harm        func(d *Dir) error
	}{
		{"torn", "torn: the checksum", func(d *Dir) error { return os.Truncate(sw(d, 2), 120) }},
		{"empty", "torn", func(d *Dir) error { return os.Truncate(sw(d, 2), 0) }},
		{"flipped", "checksum", func(d *Dir) error {
			data, err := os.ReadFile(sw(d, 2))
			return errors.Join(err, os.WriteFile(sw(d, 2), bytes.Replace(data, []byte(`"shadow"`), []byte(`"source"`), 1), 0o600))
		}},
		{"older torn", "switch record 1: torn", func(d *Dir) error { return os.Truncate(sw(d, 1), 9) }},
		{"gap", "switch record 1 is missing, 2 is there", func(d *Dir) error { return os.Remove(sw(d, 1)) }},
		{"no first", "switch record 0 is missing, 1 is there", func(d *Dir) error { return os.Remove(sw(d, 0)) }},
		{"none", "there is no switch record", func(d *Dir) error { return errors.Join(os.Remove(sw(d, 0)), os.Remove(sw(d, 1)), os.Remove(sw(d, 2))) }},
		{"last lost", "says reverse, its newest switch record (1", func(d *Dir) error { return os.Remove(sw(d, 2)) }},
		{"misnumbered", "it says number 1", func(d *Dir) error {
			data, err := os.ReadFile(sw(d, 1))
			return errors.Join(err, os.WriteFile(sw(d, 2), data, 0o600))
		}},
		{"state lost", "the state file cannot be read", func(d *Dir) error { return os.Remove(filepath.Join(d.Path(), stateFile)) }},
		{"state torn", "the state file cannot be understood", func(d *Dir) error { return os.Truncate(filepath.Join(d.Path(), stateFile), 20) }},
		{"marked", "could not be synced", func(d *Dir) error {
			return os.WriteFile(filepath.Join(d.Path(), switchDir, doubtName(2)), nil, 0o600)
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d, root := newDir(t)
			ctx := t.Context()
			s := migrate.NewState(time.Now())
			s.Phase = migrate.Cutover
			if err := d.Save(ctx, s); err != nil {
				t.Fatal(err)
			}
			for seq, side := range []migrate.Side{1: migrate.Source, 2: migrate.Shadow} {
				if seq == 0 {
					continue
				}
				if _, err := d.Commit(ctx, migrate.Record{Seq: seq, Truth: side, By: "engine"}); err != nil {
					t.Fatal(err)
				}
			}
			s.Phase = migrate.Reverse
			if err := d.Save(ctx, s); err != nil {
				t.Fatal(err)
			}
			if r, err := d.Truth(ctx); err != nil || r.Truth != migrate.Shadow {
				t.Fatal(r, err)
			}
			if err := tc.harm(d); err != nil {
				t.Fatal(err)
			}
			d, err := Open(root, "data")
			if err != nil {
				t.Fatal(err)
			}
			_, err = d.Truth(ctx)
			var a *migrate.Ambiguous
			if !errors.As(err, &a) || !strings.Contains(a.Exact, tc.exact) || a.Decide != "fsmigrate resume data --truth source|shadow" {
				t.Fatalf("%v", err)
			}
			r, err := d.Decide(ctx, migrate.Shadow, "looked at both")
			if err != nil || r.By != migrate.Operator {
				t.Fatal(r, err)
			}
			if got, err := d.Truth(ctx); err != nil || got.Truth != migrate.Shadow || got.Seq != r.Seq {
				t.Fatal(got, err)
			}
			if s, err := d.Load(ctx); err != nil || s.Phase != migrate.Reverse {
				t.Fatal(s.Phase, err)
			}
			if _, err := d.Commit(ctx, migrate.Record{Seq: r.Seq + 1, Truth: migrate.Source, By: "engine"}); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestCommitIsExclusive(t *testing.T) {
	d, _ := newDir(t)
	ctx := t.Context()
	a, err := d.Commit(ctx, migrate.Record{Seq: 1, Truth: migrate.Source, By: "watchdog", Why: "deadline"})
	if err != nil || a.By != "watchdog" {
		t.Fatal(a, err)
	}
	b, err := d.Commit(ctx, migrate.Record{Seq: 1, Truth: migrate.Shadow, By: "engine"})
	if err != nil || b.By != "watchdog" || b.Truth != migrate.Source {
		t.Fatalf("the second won: %+v, %v", b, err)
	}
	if _, err := d.Commit(ctx, migrate.Record{Seq: 3, Truth: migrate.Shadow}); err == nil {
		t.Fatal("a gap was committed")
	}
	if r, err := d.Truth(ctx); err != nil || r.Seq != 1 {
		t.Fatal(r, err)
	}
}

const racerEnv = "STATEDIR_TEST_RACER"

// TestMain is also the racer of TestTwoProcesses: one process that commits numbers 1 to 40
// as fast as it can and prints what each was decided to be.
func TestMain(m *testing.M) {
	spec := os.Getenv(racerEnv)
	if spec == "" {
		os.Exit(m.Run())
	}
	who, root, _ := strings.Cut(spec, "=")
	d, err := Open(root, "data")
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	side := migrate.Source
	if who == "engine" {
		side = migrate.Shadow
	}
	enc := json.NewEncoder(os.Stdout)
	for seq := 1; seq <= 40; seq++ {
		r, err := d.Commit(context.Background(), migrate.Record{Seq: seq, Truth: side, By: who, At: time.Now()})
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		_ = enc.Encode(r)
	}
	os.Exit(0)
}

func TestTwoProcesses(t *testing.T) {
	_, root := newDir(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var out [2]bytes.Buffer
	var cmds [2]*exec.Cmd
	for i, who := range []string{"engine", "watchdog"} {
		cmds[i] = exec.Command(self)
		cmds[i].Env = append(os.Environ(), racerEnv+"="+who+"="+root)
		cmds[i].Stdout, cmds[i].Stderr = &out[i], os.Stderr
		if err := cmds[i].Start(); err != nil {
			t.Fatal(err)
		}
	}
	for i := range cmds {
		if err := cmds[i].Wait(); err != nil {
			t.Fatalf("%v: %s", err, out[i].String())
		}
	}
	if out[0].String() != out[1].String() {
		t.Errorf("two processes disagree:\n%s\n%s", out[0].String(), out[1].String())
	}
	d, err := Open(root, "data")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(out[0].String()) {
		var r migrate.Record
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatal(line, err)
		}
		if got, err := d.readRecord(r.Seq); err != nil || !reflect.DeepEqual(got, r) {
			t.Errorf("%+v is %+v on disk, %v", r, got, err)
		}
	}
	names, _ := os.ReadDir(d.switchPath())
	if len(names) != 41 {
		t.Errorf("%d files in switch, 41 records", len(names))
	}
}

func TestLocks(t *testing.T) {
	d, root := newDir(t)
	if err := d.Lock(); err != nil {
		t.Fatal(err)
	}
	other, err := Open(root, "data")
	if err != nil {
		t.Fatal(err)
	}
	if pid := other.LockedBy(); pid != os.Getpid() {
		t.Errorf("locked by %d", pid)
	}
	if err := other.Lock(); migrate.KindOf(err) != migrate.IsRefused || !strings.Contains(err.Error(), fmt.Sprint(os.Getpid())) {
		t.Errorf("second lock: %v", err)
	}
	if err := errors.Join(d.Unlock(), d.Unlock()); err != nil {
		t.Fatal(err)
	}
	if pid := other.LockedBy(); pid != 0 {
		t.Errorf("locked by %d", pid)
	}
	if err := errors.Join(other.Lock(), other.Unlock()); err != nil {
		t.Fatal(err)
	}

	unlock, err := d.SettleLock(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Millisecond)
	defer cancel()
	if _, err := other.SettleLock(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("settling twice: %v", err)
	}
	unlock()
	if again, err := other.SettleLock(t.Context()); err != nil {
		t.Error(err)
	} else {
		again()
	}
}

func TestAudit(t *testing.T) {
	d, root := newDir(t)
	t.Setenv("SUDO_USER", "alice")
	d.who = Me()
	ctx := t.Context()
	if err := d.Audit(ctx, "phase", map[string]any{"to": "copy"}); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(d.Path(), auditFile)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	// A crash tore the second line.
	if err := os.WriteFile(path, append(whole, `{"at":"20`...), 0o600); err != nil {
		t.Fatal(err)
	}
	d, err = Open(root, "data")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(d.Audit(ctx, "hook", nil), d.Audit(ctx, "end", nil)); err != nil {
		t.Fatal(err)
	}
	events, err := d.ReadAudit()
	if err != nil || len(events) != 3 {
		t.Fatalf("%+v, %v", events, err)
	}
	e := events[0]
	if e.Event != "phase" || e.Fields["to"] != "copy" || e.Who.SudoUser != "alice" || e.Who.PID != os.Getpid() || e.Who.UID != os.Getuid() || e.Plan != d.Digest() || len(e.Argv) == 0 {
		t.Errorf("%+v", e)
	}
	if events[1].Event != "hook" || events[2].Event != "end" {
		t.Errorf("%+v", events)
	}
}

func TestRetire(t *testing.T) {
	d, root := newDir(t)
	if _, err := d.Retire(t.Context()); migrate.KindOf(err) != migrate.IsRefused {
		t.Fatal(err)
	}
	s := migrate.NewState(time.Now())
	s.Phase = migrate.Aborted
	if err := d.Save(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	to, err := d.Retire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(to, planFile)); err != nil {
		t.Error(err)
	}
	if ids, _ := List(root); len(ids) != 0 {
		t.Error(ids)
	}
	if _, err := Create(root, testPlan("data")); err != nil {
		t.Error(err)
	}
}

// TestDoubtIsKept: a directory that could not be synced once can be synced a moment
// later, and that proves nothing.
func TestDoubtIsKept(t *testing.T) {
	ctx := t.Context()
	for skip := 0; skip < 20; skip++ {
		f := newMemFS()
		d, err := create(f, "/", testPlan("data"))
		if err != nil {
			t.Fatal(err)
		}
		f.at, f.mode = f.calls+skip, "fail"
		_, err = d.Commit(ctx, migrate.Record{Seq: 1, Truth: migrate.Source})
		if !strings.HasPrefix(f.fired, "sync directory") || f.find("/data/switch/0001.json") == nil {
			continue
		}
		var a *migrate.Ambiguous
		if !errors.As(err, &a) {
			t.Fatalf("%s: %v", f.fired, err)
		}
		if d, err = open(f, "/", "data"); err != nil {
			t.Fatal(err)
		}
		if r, err := d.Truth(ctx); !errors.As(err, &a) {
			t.Fatalf("believed %+v, %v", r, err)
		}
		return
	}
	t.Fatal("the sync of the directory was not reached")
}

func FuzzRecord(f *testing.F) {
	for _, r := range []migrate.Record{{Truth: migrate.Source, By: "engine"}, {Seq: 7, Truth: migrate.Shadow, By: "watchdog", Why: "deadline\n", BootID: "b"}} {
		data, err := encodeRecord(r)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
		f.Add(data[:len(data)-3])
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if _, err := parseRecord(data); err == nil {
			for cut := range len(data) {
				if r, err := parseRecord(data[:cut]); err == nil {
					t.Fatalf("torn at %d, accepted as %+v", cut, r)
				}
			}
		}
		// With a checksum that is right, so that what is behind it is reached.
		line, _, _ := bytes.Cut(data, []byte("\n"))
		r, err := parseRecord(seal(line))
		if err != nil {
			return
		}
		out, err := encodeRecord(r)
		if err != nil {
			t.Fatalf("%+v: %v", r, err)
		}
		if again, err := parseRecord(out); err != nil || !again.At.Equal(r.At) || again.Truth != r.Truth || again.Seq != r.Seq || again.By != r.By {
			t.Fatalf("%+v became %+v, %v", r, again, err)
		}
	})
}
