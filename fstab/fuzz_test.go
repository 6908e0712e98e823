package fstab

import (
	"bytes"
	"os"
	"testing"
)

// FuzzTable: printing gives back what was parsed; an entry that is set is the entry that
// is read, and no other line changes by it.
func FuzzTable(f *testing.F) {
	if b, err := os.ReadFile("testdata/fstab"); err == nil {
		f.Add(b, "new spec", "/mnt/a b", "x,y")
	}
	f.Add([]byte("a /b c\n"), "#", `\040`, "")
	f.Add([]byte("a\t/b  c d e f g\n\n\r\n"), "\\", "\t", ",")
	f.Fuzz(func(t *testing.T, data []byte, spec, dir, options string) {
		table := Parse(data)
		if !bytes.Equal(table.Bytes(), data) {
			t.Fatalf("%q prints as %q", data, table.Bytes())
		}
		if spec == "" || dir == "" || table.Len() > 32 { // each entry costs a pass over all lines
			return
		}
		if options == "" {
			options = "defaults"
		}
		for i := range table.Len() {
			was, ok := table.Entry(i)
			if !ok {
				continue
			}
			if _, ok := ParseLine(was.String()); !ok {
				t.Fatalf("%q: %+v prints as %q, which is no entry", table.Line(i), was, was.String())
			}
			want := Entry{Spec: spec, Dir: dir, Type: "fsmigrate", Options: options, Pass: 2}
			changed := Parse(data)
			changed.Set(i, want)
			if changed.Len() != table.Len() {
				t.Fatalf("%d lines became %d", table.Len(), changed.Len())
			}
			for j := range table.Len() {
				if j != i && changed.Line(j) != table.Line(j) {
					t.Fatalf("line %d changed with line %d", j, i)
				}
			}
			if got, ok := changed.Entry(i); !ok || got != want {
				t.Fatalf("set %+v, read %+v from %q", want, got, changed.Line(i))
			}
		}
	})
}
