package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"syscall"

	"github.com/fsmigrate/fsmigrate/migrate"
)

// The exit codes, for scripts that decide. They are part of the interface.
var exitCodes = []struct {
	kind migrate.Kind
	code int
	says string
}{
	{"", 0, "the phase asked for was reached, or what was asked was printed"},
	{migrate.Failed, 1, "an error"},
	{migrate.Usage, 2, "the command line or the plan file is wrong, or a confirmation is missing"},
	{migrate.IsRefused, 3, "refused: a check forbids it and nothing was changed"},
	{migrate.Impossible, 4, "impossible: this target cannot hold this source, whatever the spare and whatever is waived"},
	{migrate.WasAborted, 5, "aborted: the source is the truth, as before"},
	{migrate.WasReverted, 6, "rolled back, as asked: the source is the truth again"},
	{migrate.Stopped, 7, "stopped, and can be resumed"},
	{migrate.Differs, 8, "differences were found, or survey found something to do"},
}

// exitCode is the code of an error: that of its kind.
func exitCode(err error) int {
	if err == nil {
		return 0
	}
	kind := migrate.KindOf(err)
	for _, c := range exitCodes {
		if c.kind == kind {
			return c.code
		}
	}
	return 1
}

// exitHelp is the EXIT STATUS section of a help: the codes that the command can
// give, with the general wording or its own.
func exitHelp(codes exits) string {
	var b strings.Builder
	b.WriteString("EXIT STATUS\n")
	for _, c := range exitCodes {
		own, ok := codes[c.code]
		if !ok {
			continue
		}
		if own == "" {
			own = c.says
		}
		fmt.Fprintf(&b, "  %d  %s\n", c.code, own)
	}
	return b.String()
}

// exits are the exit codes of a command; an empty text is the general one.
type exits map[int]string

// quiet is an error that says all it has to say through its exit code, because
// what was found has been printed.
type quiet struct{ kind migrate.Kind }

func (q quiet) Error() string { return string(q.kind) }

func (q quiet) As(target any) bool {
	p, ok := target.(**migrate.Problem)
	if ok {
		*p = &migrate.Problem{Kind: q.kind, What: string(q.kind)}
	}
	return ok
}

// failure is an error as --json writes it.
type failure struct {
	Kind migrate.Kind `json:"kind"`
	Exit int          `json:"exit"`
	What string       `json:"what"`
	Why  string       `json:"why,omitempty"`
	Hint string       `json:"hint,omitempty"`
}

func failureOf(err error) failure {
	f := failure{Kind: migrate.KindOf(err), Exit: exitCode(err), What: err.Error(), Hint: migrate.HintOf(err)}
	var p *migrate.Problem
	if errors.As(err, &p) {
		f.What = p.What
		if p.Why != nil {
			f.Why = p.Why.Error()
		}
	}
	var a *migrate.Ambiguous
	switch {
	case f.Hint != "":
	case errors.As(err, &a):
		f.Hint = a.Decide
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		f.Hint = "allow more open files: ulimit -n, or LimitNOFILE= of the unit"
	}
	return f
}

// fail prints err on the standard error and answers its exit code.
func (a *app) fail(err error) int {
	var q quiet
	if errors.As(err, &q) {
		return exitCode(err)
	}
	f := failureOf(err)
	if a.JSON {
		enc := json.NewEncoder(a.err)
		enc.SetEscapeHTML(false)
		_ = enc.Encode(map[string]failure{"error": f}) // stderr is all there is to tell
		return f.Exit
	}
	fmt.Fprintf(a.err, "fsmigrate: %s\n", f.What)
	if f.Why != "" {
		fmt.Fprintf(a.err, "  %s\n", strings.ReplaceAll(f.Why, "\n", "\n  "))
	}
	if f.Hint != "" {
		fmt.Fprintf(a.err, "  hint: %s\n", f.Hint)
	}
	return f.Exit
}

// usagef is a mistake on the command line.
func usagef(hint, format string, args ...any) error {
	return &migrate.Problem{Kind: migrate.Usage, What: fmt.Sprintf(format, args...), Hint: hint}
}
