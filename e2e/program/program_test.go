package program

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

func options(t *testing.T) Options {
	t.Helper()
	dir := t.TempDir()
	o := Options{Dir: filepath.Join(dir, "volume"), Log: filepath.Join(dir, "log"), Limit: filepath.Join(dir, "limit"), Seed: 7, Workers: 2, Ops: 2500}
	if err := os.Mkdir(o.Dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return o
}

func allow(t *testing.T, o Options, n int) {
	t.Helper()
	if err := os.WriteFile(o.Limit, []byte(strconv.Itoa(n)), 0o600); err != nil {
		t.Fatal(err)
	}
}

func run(t *testing.T, o Options) {
	t.Helper()
	if err := Run(t.Context(), o); err != nil {
		t.Fatal(err)
	}
}

func transcripts(t *testing.T, o Options) (all []string) {
	t.Helper()
	for w := range o.Workers {
		b, err := os.ReadFile(Transcript(o.Log, w))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, string(b))
	}
	return all
}

func same(a, b []string) bool { return strings.Join(a, "\n") == strings.Join(b, "\n") }

// tree is what a volume holds, with the times that Stamp gave.
func tree(t *testing.T, o Options) string {
	t.Helper()
	if err := Stamp(o); err != nil {
		t.Fatal(err)
	}
	var all []string
	err := filepath.WalkDir(o.Dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || p == o.Dir {
			return err
		}
		s, err := stat(p, true)
		if err == nil && d.Type().IsRegular() {
			var f string
			f, err = facts(p)
			s += f
		}
		all = append(all, p[len(o.Dir):]+" "+s)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(all, "\n")
}

// The same program gives the same answers and leaves the same tree: in one go, and in
// many pieces.
func TestTheSameEachTime(t *testing.T) {
	whole := options(t)
	allow(t, whole, whole.Ops)
	run(t, whole)
	want := transcripts(t, whole)
	kinds := map[string]int{}
	for line := range strings.Lines(want[0]) {
		kinds[strings.Fields(line)[1]]++
	}
	if len(kinds) != 25 {
		t.Errorf("of 25 kinds of operations there are %d: %v", len(kinds), kinds)
	}
	pieces := options(t)
	for n := 0; n < pieces.Ops; {
		n = min(n+97, pieces.Ops)
		allow(t, pieces, n)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- Run(ctx, pieces) }()
		for n < pieces.Ops {
			done, err := Done(pieces)
			if err != nil {
				t.Fatal(err)
			}
			if done >= n {
				cancel()
				break
			}
			select {
			case err := <-ended:
				t.Fatalf("it ended at %d: %v", done, err)
			case <-time.After(time.Millisecond):
			}
		}
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
		cancel()
	}
	if got := transcripts(t, pieces); !same(got, want) {
		t.Error("in pieces it answers something else")
	}
	if a, b := tree(t, whole), tree(t, pieces); a != b {
		t.Error("in pieces it leaves another tree")
	}
}

// Whatever was done already, wholly or not, can be done again: that is what happens to
// the operation in which the program was killed.
func TestDoneTwice(t *testing.T) {
	once, twice := options(t), options(t)
	once.Workers, twice.Workers, once.Limit = 1, 1, ""
	run(t, once)
	r, _, err := open(twice, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer r.transcript.Close()
	m := newModel(0)
	for m.done < twice.Ops {
		o := next(twice.Seed, m)
		first, err := r.do(m, o, false)
		if o.Kind == Exchange { // killed before it was noted that it is done
			before, ferr := facts(filepath.Join(twice.Dir, o.To))
			note := r.transcript.Name() + ".exchange" + strconv.Itoa(o.N)
			err = errors.Join(err, ferr, os.WriteFile(note, []byte(before), 0o600))
		}
		if err != nil {
			t.Fatal(err)
		}
		again, err := r.do(m, o, true)
		if err != nil || again != first {
			t.Fatalf("%v: first %q, then %q, %v", o, first, again, err)
		}
		m.apply(o)
	}
	if a, b := tree(t, once), tree(t, twice); a != b {
		t.Errorf("done twice it leaves another tree:\n%s\n---\n%s", a, b)
	}
}

// A byte that is wrong, an attribute that is lost, an entry too many: each is in an answer
// before long, or in the tree.
func TestWhatIsWrongShows(t *testing.T) {
	for what, spoil := range map[string]func(p string, d fs.DirEntry) error{
		"a byte": func(p string, d fs.DirEntry) error {
			if !d.Type().IsRegular() {
				return nil
			}
			f, err := os.OpenFile(p, os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			_, err = f.WriteAt([]byte("X"), 0)
			return errors.Join(err, f.Close())
		},
		"a mode": func(p string, d fs.DirEntry) error {
			if d.Type()&fs.ModeSymlink != 0 {
				return nil
			}
			return os.Chmod(p, 0o733)
		},
		"an entry too many": func(p string, d fs.DirEntry) error {
			if !d.IsDir() {
				return nil
			}
			return os.WriteFile(filepath.Join(p, "more"), nil, 0o644)
		},
	} {
		t.Run(what, func(t *testing.T) {
			good, bad := options(t), options(t)
			for _, o := range []*Options{&good, &bad} {
				o.Ops, o.Limit = 1200, ""
				run(t, *o)
			}
			if err := filepath.WalkDir(filepath.Join(bad.Dir, "p0"), func(p string, d fs.DirEntry, err error) error {
				if err != nil {
					return err
				}
				return spoil(p, d)
			}); err != nil {
				t.Fatal(err)
			}
			for _, o := range []*Options{&good, &bad} {
				o.Ops = 1600
			}
			run(t, good)
			err := Run(t.Context(), bad)
			if err == nil && same(transcripts(t, good), transcripts(t, bad)) {
				t.Error("no answer shows it")
			}
			if err == nil && tree(t, good) == tree(t, bad) {
				t.Error("the tree does not show it")
			}
		})
	}
}
