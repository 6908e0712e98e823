package main

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// current is the code as it is, with what the document knows of its mutants.
func current(t *testing.T) (sites []*site, all []*code, table []*row, text string) {
	t.Helper()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	fset, all, err := load(root)
	if err != nil {
		t.Fatal(err)
	}
	sites = enumerate(fset, all)
	if table, err = rows(sites, root); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(root, document))
	if err != nil {
		t.Fatal(err)
	}
	for i := range faults {
		if _, _, _, err := faults[i].place(fset, all); err != nil {
			t.Error(err)
		}
	}
	return sites, all, table, string(b)
}

// The document names every call that the code has now, and no other, and none that no test misses. (That the faults'
// anchors are there is looked at on the way.)
func TestDocumentIsCurrent(t *testing.T) {
	sites, _, table, text := current(t)
	if len(sites) < 200 {
		t.Errorf("only %d calls found: the search sees nothing", len(sites))
	}
	var want []string
	path := 0
	for _, r := range table {
		want = append(want, r.id)
		if r.cutover {
			path++
		}
		// Off the path a new call may wait to be asked, but not be known to be missed.
		if !r.known() && (r.cutover || r.asked) {
			t.Errorf("nothing catches %s: write a test, then make mutants", r.id)
		}
	}
	if path < 40 {
		t.Errorf("only %d calls lie on the path of a cutover", path)
	}
	slices.Sort(want)
	if dup := slices.Compact(slices.Clone(want)); len(dup) != len(want) {
		t.Error("two mutants have one name")
	}
	have := listed(text)
	for _, id := range want {
		if !slices.Contains(have, id) {
			t.Errorf("%s does not name %s: make mutants", document, id)
		}
	}
	for _, id := range have {
		if !slices.Contains(want, id) {
			t.Errorf("%s names %s, which is not there: make mutants", document, id)
		}
	}
	if again, err := replaced(text, render(table)); err != nil || again != text {
		t.Errorf("%s is not what make mutants writes: %v", document, err)
	}
}

// Each function of the cutover path is there: one that is renamed must not leave it in silence.
func TestCutoverPathExists(t *testing.T) {
	_, all, _, _ := current(t)
	var names []string
	for _, c := range all {
		for _, f := range c.files {
			dir, _, _ := cutLast(f.name, "/")
			for _, fn := range functions(f) {
				names = append(names, dir+"."+nameOf(fn))
			}
		}
	}
	for _, p := range cutoverPath {
		if !slices.ContainsFunc(names, func(n string) bool { return n == p || strings.HasSuffix(p, ".") && strings.HasPrefix(n, p) }) {
			t.Errorf("there is no %s", p)
		}
	}
}

// product is a program of two durable calls, and tests that miss one of them.
var product = map[string]string{
	"go.mod": "module example.com/product\n\ngo 1.24\n",
	"p.go": `package product

import "os"

func save(f *os.File, to string) (error, int) {
	if err := f.Sync(); err != nil {
		return err, 0
	}
	return os.Rename(f.Name(), to), len(to)
}
`,
	"p_test.go": `package product

import (
	"os"
	"testing"
)

func TestSave(t *testing.T) {
	f, err := os.Create(t.TempDir() + "/a")
	if err != nil {
		t.Fatal(err)
	}
	if err, _ := save(f, f.Name()+".b"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(f.Name() + ".b"); err != nil {
		t.Error(err)
	}
}

func TestNothing(*testing.T) {}

func TestFails(t *testing.T) { t.Error("always") }
`,
}

// Of two calls the one whose loss a test sees is caught, and the other is not.
func TestMutantsOfAProgram(t *testing.T) {
	root := t.TempDir()
	for name, text := range product {
		if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	fset, all, err := load(root)
	if err != nil {
		t.Fatal(err)
	}
	sites := enumerate(fset, all)
	if len(sites) != 2 || sites[0].id() != "p.go save: f.Sync()" || sites[1].id() != "p.go save: os.Rename(f.Name(), to)" {
		t.Fatalf("found %v", sites)
	}
	o, err := overlayOf(t.TempDir(), fset, all, sites, nil)
	if err != nil {
		t.Fatal(err)
	}
	r, err := newRunner(root, o, map[string]string{"site-0": "sync", "site-1": "rename"})
	if err != nil {
		t.Fatal(err)
	}
	ts := traces{}
	if err := r.trace(context.Background(), ".", ts, func() bool { return false }); err != nil {
		t.Fatal(err)
	}
	if s := ts["."]["TestSave"]; s == nil || !s.Passes || !slices.Equal(s.Reaches, []string{"rename", "sync"}) {
		t.Errorf("TestSave comes by %+v", s)
	}
	if s := ts["."]["TestNothing"]; s == nil || !s.Passes || s.Reaches != nil {
		t.Errorf("TestNothing comes by %+v", s)
	}
	if s := ts["."]["TestFails"]; s == nil || s.Passes {
		t.Errorf("TestFails passes: %+v", s)
	}
	again, err := readTraces(root)
	if err != nil || len(again["."]) != 3 {
		t.Errorf("kept %v, %v", again, err)
	}
	for mutant, want := range map[string]string{"site-0": "", "site-1": "TestSave"} {
		plan := ts.plan(r.names[mutant], []string{"."})
		if len(plan) != 1 || !slices.Equal(plan[0].tests, []string{"TestSave"}) {
			t.Errorf("%s is asked of %v", mutant, plan)
		}
		got, err := r.catcher(context.Background(), mutant, plan)
		if err != nil || got.test != want {
			t.Errorf("%s: caught by %q, %v, want %q", mutant, got.test, err, want)
		}
	}
	if got, err := r.catcher(context.Background(), "site-0", []batch{{pkg: ".", tests: []string{"TestFails"}}}); err != nil || got.test != "" {
		t.Errorf("a test that fails anyway catches %q, %v", got.test, err)
	}
	if _, err := r.catcher(context.Background(), "site-0", []batch{{pkg: ".", tests: []string{"TestOther"}}}); err == nil {
		t.Error("tests that are not there catch nothing, and say so")
	}
}

// Quick tests are asked first, and more at once as they take longer.
func TestPlan(t *testing.T) {
	ts := traces{"a": {}, "b": {"TestB": {Passes: true, Took: time.Minute, Reaches: []string{"x"}}}}
	for i, took := range []time.Duration{30, 1, 300, 400, 2000, 3000, 90000} {
		ts["a"]["Test"+string(rune('A'+i))] = &seen{Passes: true, Took: took * time.Millisecond, Reaches: []string{"x"}}
	}
	ts["a"]["TestBroken"] = &seen{Reaches: []string{"x"}}
	ts["a"]["TestElsewhere"] = &seen{Passes: true, Reaches: []string{"y"}}
	var got []string
	for _, b := range ts.plan("x", []string{"a", "b"}) {
		got = append(got, b.pkg+":"+strings.Join(b.tests, ","))
	}
	if want := []string{"a:TestB,TestA,TestC,TestD", "a:TestE", "a:TestF", "a:TestG", "b:TestB"}; !slices.Equal(got, want) {
		t.Errorf("asked in the order %q, want %q", got, want)
	}
}

// What the document says is read back as it was written.
func TestReportIsReadBack(t *testing.T) {
	all := []*row{
		{id: `a.go f: j.Mark(n, Data|Attrs)`, kind: "mark", cutover: true, by: catch{"shadow", "TestA"}},
		{id: "a.go f: g()", kind: "sync", reason: "for show"},
		{id: "a.go f: h(`x`)", kind: "record", asked: true},
		{id: "a-fault", what: "it fails", by: catch{"control/host", "TestB"}},
	}
	text, err := replaced("head\n"+begins+"\nold\n"+ends+"\ntail\n", render(all))
	if err != nil || !strings.HasPrefix(text, "head\n") || !strings.HasSuffix(text, ends+"\ntail\n") || strings.Contains(text, "old") {
		t.Fatalf("%v\n%s", err, text)
	}
	got, missed := written(text)
	if len(got) != 2 || got[all[0].id] != all[0].by || got[all[3].id] != all[3].by {
		t.Errorf("read back %v", got)
	}
	if !missed[all[2].id] || missed[all[0].id] || missed[all[1].id] {
		t.Errorf("read back as missed %v", missed)
	}
	want := []string{all[0].id, all[1].id, all[2].id, all[3].id}
	slices.Sort(want)
	if ids := listed(text); !slices.Equal(ids, want) {
		t.Errorf("named %q", ids)
	}
	if !strings.Contains(text, "3 calls, of which 1 lie on the path of a cutover, and 1 faults: 2 caught by the test that is named, 1 invisible for the reason given, 1 not yet.") {
		t.Errorf("counted wrongly:\n%s", text)
	}
	if _, err := replaced("nothing", ""); err == nil {
		t.Error("a document without the lines is accepted")
	}
}
