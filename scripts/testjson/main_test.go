package main

import (
	"strings"
	"testing"
)

func TestReport(t *testing.T) {
	line := func(action, test, output string) string {
		return `{"Action":"` + action + `","Package":"p","Test":"` + test + `","Output":"` + output + `"}` + "\n"
	}
	pass := line("output", "TestA", `noise\n`) + line("pass", "TestA", "")
	skip := line("output", "TestB", `why\n`) + line("skip", "TestB", "")
	closing := line("output", "", `ok  \tp\t0.1s\n`)
	cases := []struct {
		name, in string
		allowed  string
		ok       bool
		says     string
	}{
		{"passed", pass + closing, "", true, "ok  \tp\t0.1s\n"},
		{"skipped", pass + skip, "", false, "skipped, but must run: p TestB: why"},
		{"allowed", pass + skip, "p TestB # no such kernel", true, "0 skipped"},
		{"failed", pass + line("output", "TestC", `broken\n`) + line("fail", "TestC", ""), "", false, "broken"},
		{"does not build", "# p\np.go:1: syntax error\n" + line("fail", "", ""), "", false, "syntax error"},
		{"nothing ran", closing, "", false, "0 passed"},
	}
	for _, c := range cases {
		var out strings.Builder
		if ok := report(strings.NewReader(c.in), &out, parseAllowed(c.allowed)); ok != c.ok {
			t.Errorf("%s: %t\n%s", c.name, ok, &out)
		}
		if !strings.Contains(out.String(), c.says) {
			t.Errorf("%s: does not say %q but\n%s", c.name, c.says, &out)
		}
		if strings.Contains(out.String(), "noise") {
			t.Errorf("%s: says what a passing test said", c.name)
		}
	}
}
