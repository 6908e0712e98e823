package fstab

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
)

// Table is the file, line by line. Printing a table that was not changed gives
// back the bytes that were parsed, whatever they were.
type Table struct {
	lines []string // each with its newline, the last perhaps without
}

// Entry is one line's meaning. Fields are decoded: a blank is a blank.
type Entry struct {
	Spec    string // device path, UUID=…, LABEL=…, or a migration's id
	Dir     string
	Type    string
	Options string // "defaults" when the line has none
	Dump    int
	Pass    int
}

// TypeMigrate is the type of an entry that mount.fsmigrate mounts.
const TypeMigrate = "fsmigrate"

// Errors of Find.
var (
	ErrNoEntry     = errors.New("no entry for this directory")
	ErrManyEntries = errors.New("more than one entry for this directory")
)

// Parse cuts a file into lines. It accepts everything: a line that is no entry is kept as it is.
func Parse(data []byte) *Table {
	t := &Table{}
	for line := range bytes.Lines(data) {
		t.lines = append(t.lines, string(line))
	}
	return t
}

// Bytes prints the table.
func (t *Table) Bytes() []byte { return []byte(strings.Join(t.lines, "")) }

// Len is the number of lines.
func (t *Table) Len() int { return len(t.lines) }

// Line is line i without its newline.
func (t *Table) Line(i int) string { return strings.TrimSuffix(t.lines[i], "\n") }

// Entry is the meaning of line i; false for comments, blank lines and what has too few fields.
func (t *Table) Entry(i int) (Entry, bool) { return ParseLine(t.lines[i]) }

// ParseLine reads one line.
func ParseLine(line string) (Entry, bool) {
	fields := strings.FieldsFunc(line, isBlank)
	if len(fields) < 3 || strings.HasPrefix(fields[0], "#") {
		return Entry{}, false
	}
	e := Entry{Spec: unescape(fields[0]), Dir: unescape(fields[1]), Type: unescape(fields[2]), Options: "defaults"}
	if len(fields) > 3 {
		e.Options = unescape(fields[3])
	}
	number := func(i int) int {
		if len(fields) <= i {
			return 0
		}
		n, err := strconv.Atoi(fields[i])
		if err != nil || n < 0 {
			return 0
		}
		return n
	}
	e.Dump, e.Pass = number(4), number(5)
	return e, true
}

// String prints the entry as a line without newline.
func (e Entry) String() string {
	return fmt.Sprintf("%s %s %s %s %d %d", escape(e.Spec), escape(e.Dir), escape(e.Type), escape(e.options()), e.Dump, e.Pass)
}

func (e Entry) options() string {
	if e.Options == "" {
		return "defaults"
	}
	return e.Options
}

// Find is the one line whose entry is mounted at dir.
func (t *Table) Find(dir string) (int, Entry, error) {
	at, found := -1, Entry{}
	for i := range t.lines {
		e, ok := t.Entry(i)
		if !ok || !samePath(e.Dir, dir) {
			continue
		}
		if at >= 0 {
			return -1, Entry{}, fmt.Errorf("%s, lines %d and %d: %w", dir, at+1, i+1, ErrManyEntries)
		}
		at, found = i, e
	}
	if at < 0 {
		return -1, Entry{}, fmt.Errorf("%s: %w", dir, ErrNoEntry)
	}
	return at, found, nil
}

func samePath(a, b string) bool {
	return filepath.IsAbs(a) && filepath.Clean(a) == filepath.Clean(b)
}

// Set replaces the fields of line i by those of e. The blanks between them stay, so
// that columns do.
func (t *Table) Set(i int, e Entry) {
	want := []string{escape(e.Spec), escape(e.Dir), escape(e.Type), escape(e.options()), strconv.Itoa(e.Dump), strconv.Itoa(e.Pass)}
	line := t.lines[i]
	var b strings.Builder
	for n := 0; ; n++ {
		blank := len(line) - len(strings.TrimLeftFunc(line, isBlank))
		end := strings.IndexFunc(line[blank:], isBlank)
		if end < 0 {
			end = len(line) - blank
		}
		if end == 0 { // no further field: the rest is blank
			for ; n < len(want); n++ {
				b.WriteString(" " + want[n])
			}
			b.WriteString(line)
			break
		}
		b.WriteString(line[:blank])
		if n < len(want) {
			b.WriteString(want[n])
		} else {
			b.WriteString(line[blank : blank+end])
		}
		line = line[blank+end:]
	}
	t.lines[i] = b.String()
}

// SetLine replaces line i as a whole. raw has no newline; the line's own is kept.
func (t *Table) SetLine(i int, raw string) {
	newline := ""
	if strings.HasSuffix(t.lines[i], "\n") {
		newline = "\n"
	}
	t.lines[i] = raw + newline
}

// isBlank is what separates fields: blank and tab, and the newline that ends the line. A
// carriage return is not, as for libmount.
func isBlank(r rune) bool { return r == ' ' || r == '\t' || r == '\n' }

// escape writes what would end a field, or begin a comment, in octal.
func escape(s string) string {
	if !strings.ContainsAny(s, " \t\n\\#") {
		return s
	}
	var b strings.Builder
	for i := range len(s) {
		switch c := s[i]; c {
		case ' ', '\t', '\n', '\\', '#':
			fmt.Fprintf(&b, "\\%03o", c)
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}

// unescape reads \ooo; a backslash that begins none stands for itself.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
