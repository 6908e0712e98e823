package docs

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// walk calls do with the path of every file of the repository that ends in suffix.
func walk(t *testing.T, suffix string, do func(path string)) {
	t.Helper()
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == ".git" || d.Name() == "bin" || d.Name() == "demo-out" || d.Name() == "testdata"):
			return filepath.SkipDir
		case !d.IsDir() && strings.HasSuffix(path, suffix):
			do(path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// sources is all Go code of the product, or all of its tests.
func sources(t *testing.T, tests bool) string {
	t.Helper()
	var b strings.Builder
	walk(t, ".go", func(path string) {
		if strings.HasSuffix(path, "_test.go") == tests || tests && strings.Contains(path, "formattest") {
			b.WriteString(read(t, path))
		}
	})
	return b.String()
}

// Whoever opens a document for operators reads this first.
func TestBackupIsSaidFirst(t *testing.T) {
	paths := []string{"../README.md", "../CHANGELOG.md", "../ARCHITECTURE.md"}
	all, err := filepath.Glob("*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range append(paths, all...) {
		n := 0
		for line := range strings.Lines(read(t, path)) {
			line = strings.TrimSpace(line)
			if line == "" || line[0] == '#' || strings.HasPrefix(line, "<!--") {
				continue
			}
			if n++; n == 1 && !regexp.MustCompile(`^Take a backup( first)?; fsmigrate isn't one\.`).MatchString(line) {
				t.Errorf("%s begins with %q", path, line)
			}
		}
	}
}

var (
	link   = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	fenced = regexp.MustCompile("(?ms)^```[a-z]*\n.*?^```$")
)

// anchor is the name that a heading gets where documents are shown.
func anchor(heading string) string {
	heading = strings.ToLower(strings.TrimSpace(strings.TrimLeft(heading, "#")))
	heading = regexp.MustCompile(`[^\p{L}\p{N} _-]`).ReplaceAllString(heading, "")
	return strings.ReplaceAll(heading, " ", "-")
}

func anchors(text string) (out []string) {
	for line := range strings.Lines(fenced.ReplaceAllString(text, "")) {
		if strings.HasPrefix(line, "#") {
			out = append(out, anchor(line))
		}
	}
	return out
}

// Every relative link leads to a file that is there, and to a heading in it.
func TestLinks(t *testing.T) {
	links := 0
	walk(t, ".md", func(path string) {
		text := fenced.ReplaceAllString(read(t, path), "")
		for _, m := range link.FindAllStringSubmatch(text, -1) {
			file, heading, _ := strings.Cut(m[1], "#")
			if strings.Contains(m[1], "://") {
				continue
			}
			links++
			to := path
			if file != "" {
				to = filepath.Join(filepath.Dir(path), file)
			}
			info, err := os.Stat(to)
			if err != nil {
				t.Errorf("%s: a link to %s: %v", path, m[1], err)
				continue
			}
			if heading != "" && (info.IsDir() || !slices.Contains(anchors(read(t, to)), heading)) {
				t.Errorf("%s: a link to %s: there is no such heading", path, m[1])
			}
		}
	})
	if links < 20 {
		t.Errorf("only %d links: the test sees nothing", links)
	}
}

// The README shows the two commands, and what it says of make is so.
func TestReadmeCommands(t *testing.T) {
	readme, makefile := read(t, "../README.md"), read(t, "../Makefile")
	for _, want := range []string{"\nmake demo ", "\nmake test ", "\nmake install "} {
		if !strings.Contains(readme, want) {
			t.Errorf("the README does not show %q", strings.TrimSpace(want))
		}
	}
	for _, m := range regexp.MustCompile("(?m)(?:^|`)make ([a-z-]+)").FindAllStringSubmatch(readme+read(t, "testing.md"), -1) {
		if !regexp.MustCompile(`(?m)^` + m[1] + `:`).MatchString(makefile) {
			t.Errorf("there is no make %s", m[1])
		}
	}
}

// help is what the built command says of itself.
func help(t *testing.T) func(args ...string) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "fsmigrate")
	if out, err := exec.Command("go", "build", "-o", bin, "../cmd/fsmigrate").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return func(args ...string) string {
		out, err := exec.Command(bin, append(args, "--help")...).CombinedOutput()
		if err != nil {
			t.Errorf("fsmigrate %s --help: %v\n%s", strings.Join(args, " "), err, out)
		}
		return string(out)
	}
}

// Every command, flag and exit code that the documents show is one that the command knows.
func TestCommandsFlagsAndExitCodes(t *testing.T) {
	ask := help(t)
	root := ask()
	_, list, _ := strings.Cut(root, "Commands:\n")
	list, _, _ = strings.Cut(list, "\n\n")
	helps := map[string]string{}
	for _, m := range regexp.MustCompile(`(?m)^  ([a-z]+) `).FindAllStringSubmatch(list, -1) {
		helps[m[1]] = ask(m[1])
	}
	var all strings.Builder
	for _, h := range helps {
		all.WriteString(h)
	}
	helps["watchdog"] = "--seq --deadline" // not for people, and named in the runbook as a process
	invoked := regexp.MustCompile("(?m)(?:^|[`#$] ?|'|: |then |or )fsmigrate ([a-z]+)((?:[^\n`|;,()]|\\|)*)")
	flag := regexp.MustCompile(`--[a-z][a-z-]+`)
	seen := 0
	for _, path := range []string{"../README.md", "runbook.md", "support-matrix.md", "what-changes.md", "testing.md"} {
		text := read(t, path)
		for _, m := range invoked.FindAllStringSubmatch(text, -1) {
			h, known := helps[m[1]]
			if !known {
				t.Errorf("%s: there is no command fsmigrate %s", path, m[1])
				continue
			}
			seen++
			for _, f := range flag.FindAllString(m[2], -1) {
				if !strings.Contains(h, f) {
					t.Errorf("%s: fsmigrate %s has no flag %s", path, m[1], f)
				}
			}
		}
		for _, f := range regexp.MustCompile("`(--[a-z][a-z-]+)").FindAllStringSubmatch(text, -1) {
			foreign := []string{"--checksum", "--listed-incremental", "--no-check-device", "--ignore-inode", "--ignore-ctime"}
			if !strings.Contains(all.String(), f[1]) && !slices.Contains(foreign, f[1]) {
				t.Errorf("%s: no command has a flag %s", path, f[1])
			}
		}
	}
	if seen < 30 {
		t.Errorf("only %d commands found: the test sees nothing", seen)
	}
	_, exits, _ := strings.Cut(root, "EXIT STATUS\n")
	codes := func(text, form string) (out []string) {
		for _, m := range regexp.MustCompile(form).FindAllStringSubmatch(text, -1) {
			out = append(out, m[1])
		}
		return out
	}
	if got, want := codes(read(t, "../README.md"), `(?m)^\| (\d) \|`), codes(exits, `(?m)^  (\d)  `); !slices.Equal(got, want) || len(want) == 0 {
		t.Errorf("the README lists the exit codes %v, the command %v", got, want)
	}
}

// What the support matrix and its kin name as evidence exists.
func TestEvidenceExists(t *testing.T) {
	tests, code := sources(t, true), sources(t, false)
	for _, path := range []string{"support-matrix.md", "testing.md", "threat-model.md"} {
		text := read(t, path)
		for _, m := range regexp.MustCompile("`(Test[A-Za-z0-9]+)`").FindAllStringSubmatch(text, -1) {
			if !strings.Contains(tests, "func "+m[1]+"(t *testing.T)") {
				t.Errorf("%s: there is no test %s", path, m[1])
			}
		}
		for _, m := range regexp.MustCompile("checks? ((?:`[a-z-]+`(?:, )?)+)").FindAllStringSubmatch(text, -1) {
			for _, name := range regexp.MustCompile("[a-z-]+").FindAllString(m[1], -1) {
				if !strings.Contains(code, `"`+name+`"`) && !strings.Contains(code, `"`+strings.TrimPrefix(name, "source-")) {
					t.Errorf("%s: there is no check %s", path, name)
				}
			}
		}
	}
}

// A test that a document names together with its package is in that package.
func TestEvidenceIsWhereItIsSaidToBe(t *testing.T) {
	seen := 0
	for _, path := range []string{"testing.md", "threat-model.md"} {
		for _, m := range regexp.MustCompile("`([a-z0-9]+(?:/[a-z0-9]+)*)`: ((?:`Test\\w+`(?:, )?)+)").FindAllStringSubmatch(read(t, path), -1) {
			files, err := filepath.Glob("../" + m[1] + "/*_test.go")
			if err != nil || len(files) == 0 {
				t.Errorf("%s: %s has no tests: %v", path, m[1], err)
				continue
			}
			var tests strings.Builder
			for _, f := range files {
				tests.WriteString(read(t, f))
			}
			for _, name := range regexp.MustCompile(`Test\w+`).FindAllString(m[2], -1) {
				seen++
				if !strings.Contains(tests.String(), "func "+name+"(t *testing.T)") {
					t.Errorf("%s: %s has no test %s", path, m[1], name)
				}
			}
		}
	}
	if seen < 100 {
		t.Errorf("only %d tests found: this one sees nothing", seen)
	}
}

// The runbook's tables of hints quote what the program says.
func TestRunbookHints(t *testing.T) {
	code := sources(t, false)
	_, rest, _ := strings.Cut(read(t, "runbook.md"), "## Plan and preflight")
	quoted := 0
	for _, table := range strings.Split(rest, "| hint | do |\n|---|---|\n")[1:] {
		for line := range strings.Lines(table) {
			m := regexp.MustCompile("^\\| `([^`]+)`").FindStringSubmatch(line)
			if m == nil {
				break
			}
			quoted++
			// The ID is put in by the program; what stands around it is in its code.
			for _, part := range strings.Split(strings.ReplaceAll(m[1], "NAME=REASON", "data"), "data") {
				part = strings.Trim(part, " ,;")
				if len(part) > 12 && !strings.Contains(code, part) && !strings.Contains(code, strings.TrimPrefix(part, "fsmigrate ")) {
					t.Errorf("no hint says %q", part)
				}
			}
		}
	}
	if quoted < 20 {
		t.Errorf("only %d hints found: the test sees nothing", quoted)
	}
}

// ARCHITECTURE.md stays two pages, and the files that it names are there.
func TestArchitecture(t *testing.T) {
	text := read(t, "../ARCHITECTURE.md")
	if n := strings.Count(text, "\n"); n > 125 {
		t.Errorf("ARCHITECTURE.md has %d lines: two pages are about 120", n)
	}
	if !strings.Contains(text[:400], "## Glossary") {
		t.Error("the glossary does not come first")
	}
	for _, m := range regexp.MustCompile("`([a-z]+/[a-z_]+(?:/[a-z_]+)?\\.go)`").FindAllStringSubmatch(text, -1) {
		if _, err := os.Stat(filepath.Join("..", m[1])); err != nil {
			t.Errorf("ARCHITECTURE.md: %v", err)
		}
	}
	steps := regexp.MustCompile(`(?m)^\| \*{0,2}([a-z-]+)(?:\*\*)?(?:, ([a-z]+))? \|`)
	_, table, _ := strings.Cut(text, "## Cutover, step by step")
	table, _, _ = strings.Cut(table, "\n## ")
	var got []string
	for _, m := range steps.FindAllStringSubmatch(table, -1) {
		got = append(got, m[1])
		if m[2] != "" {
			got = append(got, m[2])
		}
	}
	want := []string{"step", "stop-intent", "stop", "arm", "fence", "drain", "swap-in", "follow", "record", "settle", "start", "health", "disarm"}
	if !slices.Equal(got, want) {
		t.Errorf("the steps of the cutover are %v, want %v", got, want)
	}
	code := sources(t, false)
	for _, s := range want[1:] {
		if !strings.Contains(code, `"`+s+`"`) {
			t.Errorf("the engine has no step %s", s)
		}
	}
}

// Every module that is imported has a line that says what it replaces and costs, and is what
// go.mod requires directly; and nothing else has or is.
func TestDependenciesAreExplained(t *testing.T) {
	sorted := func(text, form string) (out []string) {
		for _, m := range regexp.MustCompile(form).FindAllStringSubmatch(text, -1) {
			out = append(out, m[1])
		}
		slices.Sort(out)
		return out
	}
	explained := sorted(read(t, "adr/0010-dependencies.md"), "(?m)^\\| `([^`]+)` \\|")
	required := sorted(read(t, "../go.mod"), `(?m)^(?:require )?\t?([^\s/]+\.[^\s]+) v\S+$`)
	imported := map[string]string{}
	walk(t, ".go", func(path string) {
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			t.Error(err)
			return
		}
		for _, i := range f.Imports {
			name := strings.Trim(i.Path.Value, `"`)
			first, _, _ := strings.Cut(name, "/")
			if !strings.Contains(first, ".") || strings.HasPrefix(name, "github.com/fsmigrate/") {
				continue
			}
			module := name
			for _, m := range required {
				if name == m || strings.HasPrefix(name, m+"/") {
					module = m
				}
			}
			imported[module] = path
		}
	})
	for module, path := range imported {
		if !slices.Contains(required, module) {
			t.Errorf("%s imports %s: go.mod does not require it directly (go mod tidy)", path, module)
		}
	}
	for _, module := range required {
		if imported[module] == "" {
			t.Errorf("go.mod requires %s directly, and nothing imports it (go mod tidy)", module)
		}
	}
	if !slices.Equal(explained, required) || len(required) < 10 {
		t.Errorf("docs/adr/0010-dependencies.md says what these replace and cost:\n%s\ngo.mod requires directly:\n%s",
			strings.Join(explained, "\n"), strings.Join(required, "\n"))
	}
}

// Every decision has a date, and the options that were rejected.
func TestDecisionsAreWhole(t *testing.T) {
	all, err := filepath.Glob("adr/[0-9]*.md")
	if err != nil || len(all) < 10 {
		t.Fatalf("%d decisions, %v", len(all), err)
	}
	for _, path := range all {
		text := read(t, path)
		for _, want := range []string{"\n2026-", "accepted", "ost"} {
			if !strings.Contains(text, want) {
				t.Errorf("%s lacks %q", path, want)
			}
		}
		if !strings.Contains(text, "**Rejected.**") && !strings.Contains(text, "| instead of |") {
			t.Errorf("%s does not say what was rejected", path)
		}
	}
}
