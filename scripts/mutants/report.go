package main

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// The part of the document that this program writes, and reads again.
const (
	document = "docs/testing.md"
	begins   = "<!-- make mutants writes from here -->"
	ends     = "<!-- to here -->"
	reasons  = "scripts/mutants/reasons.txt"
)

// catch is the test that fails when a mutant is active.
type catch struct{ pkg, test string }

// row is one mutant with what became of it.
type row struct {
	id      string // of the site, or the fault's name
	file    string // that it is in, from the root
	kind    string // of the site; "" for a fault
	what    string // of the fault
	cutover bool
	by      catch
	asked   bool   // without anybody seeing it
	reason  string // why no test can see it
}

func (r *row) known() bool { return r.by.test != "" || r.reason != "" }

// rows are all mutants, as the code is now, with what is known of them from the document.
func rows(sites []*site, root string) ([]*row, error) {
	var all []*row
	for _, s := range sites {
		all = append(all, &row{id: s.id(), file: s.file, kind: s.kind, cutover: s.cutover()})
	}
	for _, f := range faults {
		all = append(all, &row{id: f.name, file: f.file, what: f.what})
	}
	text, err := os.ReadFile(filepath.Join(root, document))
	if err != nil {
		return nil, err
	}
	caught, missed := written(string(text))
	why, err := readReasons(root)
	if err != nil {
		return nil, err
	}
	for _, r := range all {
		r.by, r.asked = caught[r.id], missed[r.id]
		r.reason = why[r.id]
		if r.reason != "" && r.cutover {
			return nil, fmt.Errorf("%s: on the cutover path there is no excuse, but %s has one", r.id, reasons)
		}
		delete(why, r.id)
	}
	for id := range why {
		return nil, fmt.Errorf("%s speaks of %q, which is not there", reasons, id)
	}
	return all, nil
}

// What a row says of a mutant that nothing caught, and of one that was never asked.
const (
	uncaught = "**nothing**"
	unasked  = "not asked yet"
)

var (
	tableRow  = regexp.MustCompile("(?m)^\\| ``? ?(.+?) ?``? \\|(?: [^|]+ \\|)? (.+) \\|$")
	namedTest = regexp.MustCompile("^`([a-z/]+)`: `(Test\\w+)`$")
)

// written is what the document says of mutants by name.
func written(text string) (caught map[string]catch, missed map[string]bool) {
	caught, missed = map[string]catch{}, map[string]bool{}
	for _, m := range tableRow.FindAllStringSubmatch(text, -1) {
		id := strings.ReplaceAll(m[1], `\|`, "|")
		if n := namedTest.FindStringSubmatch(m[2]); n != nil {
			caught[id] = catch{pkg: n[1], test: n[2]}
		}
		missed[id] = m[2] == uncaught
	}
	return caught, missed
}

// readReasons reads the file of mutants that no test can see: a line with the name, an
// indented one with the reason.
func readReasons(root string) (map[string]string, error) {
	b, err := os.ReadFile(filepath.Join(root, reasons))
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	id := ""
	for sc := bufio.NewScanner(bytes.NewReader(b)); sc.Scan(); {
		switch line := sc.Text(); {
		case line == "", strings.HasPrefix(line, "#"):
		case strings.HasPrefix(line, "\t"):
			if id == "" {
				return nil, fmt.Errorf("%s: a reason without a name: %s", reasons, line)
			}
			out[id] = strings.TrimSpace(out[id] + " " + strings.TrimSpace(line))
		default:
			id = line
		}
	}
	return out, nil
}

// render is the generated part.
func render(all []*row) string {
	var b strings.Builder
	count := func(is func(*row) bool) (n int) {
		for _, r := range all {
			if is(r) {
				n++
			}
		}
		return n
	}
	calls := count(func(r *row) bool { return r.kind != "" })
	open := count(func(r *row) bool { return !r.known() })
	fmt.Fprintf(&b, "%d calls, of which %d lie on the path of a cutover, and %d faults: %d caught by the test that is named, %d invisible for the reason given",
		calls, count(func(r *row) bool { return r.cutover }), len(all)-calls,
		count(func(r *row) bool { return r.reason == "" && r.by.test != "" }), count(func(r *row) bool { return r.reason != "" }))
	if open > 0 {
		fmt.Fprintf(&b, ", %d not yet", open)
	}
	b.WriteString(".\n")
	section := func(title string, is func(*row) bool) {
		fmt.Fprintf(&b, "\n### %s\n\n| call left out | kind | caught by |\n|---|---|---|\n", title)
		for _, r := range all {
			if is(r) {
				fmt.Fprintf(&b, "| %s | %s | %s |\n", quoted(r.id), r.kind, r.verdict())
			}
		}
	}
	section("Calls from the fence to the settled volume", func(r *row) bool { return r.kind != "" && r.cutover })
	section("All other calls", func(r *row) bool { return r.kind != "" && !r.cutover })
	b.WriteString("\n### Faults of our own\n\n| fault | what goes wrong | caught by |\n|---|---|---|\n")
	for _, r := range all {
		if r.kind == "" {
			fmt.Fprintf(&b, "| %s | %s | %s |\n", quoted(r.id), r.what, r.verdict())
		}
	}
	return b.String()
}

func quoted(id string) string {
	id = strings.ReplaceAll(id, "|", `\|`)
	if strings.Contains(id, "`") {
		return "`` " + id + " ``"
	}
	return "`" + id + "`"
}

func (r *row) verdict() string {
	switch {
	case r.reason != "":
		return r.reason
	case r.by.test != "":
		return fmt.Sprintf("`%s`: `%s`", r.by.pkg, r.by.test)
	}
	if r.asked {
		return uncaught
	}
	return unasked
}

// update writes the rows into the document.
func update(root string, all []*row) error {
	path := filepath.Join(root, document)
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	next, err := replaced(string(text), render(all))
	if err != nil {
		return err
	}
	return os.WriteFile(path, []byte(next), 0o644)
}

func replaced(text, part string) (string, error) {
	head, rest, ok := strings.Cut(text, begins+"\n")
	_, tail, ok2 := strings.Cut(rest, ends)
	if !ok || !ok2 {
		return "", fmt.Errorf("%s lacks the lines %q and %q", document, begins, ends)
	}
	return head + begins + "\n\n" + part + "\n" + ends + tail, nil
}

// listed are the mutants that the document names, in its order.
func listed(text string) (ids []string) {
	_, part, _ := strings.Cut(text, begins)
	part, _, _ = strings.Cut(part, ends)
	for _, m := range regexp.MustCompile("(?m)^\\| ``? ?(.+?) ?``? \\| ").FindAllStringSubmatch(part, -1) {
		ids = append(ids, strings.ReplaceAll(m[1], `\|`, "|"))
	}
	slices.Sort(ids)
	return ids
}
