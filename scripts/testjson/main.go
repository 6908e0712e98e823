// Command testjson reads `go test -json` and prints what a person wants of it:
// the output of what failed, the closing line of every package, and a count. It
// exits 1 when anything failed, when a test was skipped that -allow does not name,
// or when no test ran at all.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
)

// event is a line of `go test -json`.
type event struct {
	Action  string
	Package string
	Test    string
	Output  string
	Elapsed float64
}

func main() {
	allow := flag.String("allow", "", "file of tests that may be skipped")
	flag.Parse()
	allowed := map[string]bool{}
	if *allow != "" {
		b, err := os.ReadFile(*allow)
		if err != nil {
			fmt.Fprintln(os.Stderr, "testjson:", err)
			os.Exit(2)
		}
		allowed = parseAllowed(string(b))
	}
	if !report(os.Stdin, os.Stdout, allowed) {
		os.Exit(1)
	}
}

func parseAllowed(text string) map[string]bool {
	out := map[string]bool{}
	for _, line := range strings.Split(text, "\n") {
		line, _, _ = strings.Cut(line, "#")
		if f := strings.Fields(line); len(f) == 2 {
			out[f[0]+" "+f[1]] = true
		}
	}
	return out
}

// report answers whether everything that must run ran and passed.
func report(in io.Reader, out io.Writer, allowed map[string]bool) bool {
	output := map[string][]string{} // of a test, until it is known to have passed
	passed, failed, ok := 0, 0, true
	var skipped []string
	s := bufio.NewScanner(in)
	s.Buffer(nil, 16<<20)
	for s.Scan() {
		var e event
		if json.Unmarshal(s.Bytes(), &e) != nil || e.Action == "" {
			fmt.Fprintln(out, s.Text()) // the go command's own words
			continue
		}
		key := e.Package + " " + e.Test
		switch e.Action {
		case "output", "build-output":
			closing := e.Test == "" && !strings.HasPrefix(e.Output, "PASS")
			if closing {
				fmt.Fprint(out, e.Output)
			} else {
				output[key] = append(output[key], e.Output)
			}
		case "pass":
			delete(output, key)
			if e.Test != "" {
				passed++
			}
		case "skip":
			if e.Test != "" && !allowed[key] {
				skipped = append(skipped, key+": "+strings.Join(output[key], ""))
			}
			delete(output, key)
		case "fail", "build-fail":
			ok = false
			if e.Test != "" {
				failed++
			}
			fmt.Fprint(out, strings.Join(output[key], ""))
			delete(output, key)
		}
	}
	fmt.Fprintf(out, "tests: %d passed, %d failed, %d skipped that must run\n", passed, failed, len(skipped))
	for _, k := range skipped {
		fmt.Fprintln(out, "skipped, but must run:", strings.TrimSpace(k))
	}
	return ok && failed == 0 && len(skipped) == 0 && passed > 0 && s.Err() == nil
}
