package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

// app is one invocation of the command.
type app struct {
	Global
	in   *os.File
	out  io.Writer
	err  io.Writer
	wire wiring
	argv []string
}

// newRoot is the command tree.
func newRoot(a *app) *cobra.Command {
	a.Global = defaultGlobal()
	root := &cobra.Command{
		Use:   "fsmigrate",
		Short: "Change the format of a mounted file system while it is in use",
		Long: `Change the format of a mounted file system while it is in use.

Take a backup first; fsmigrate isn't one.

fsmigrate makes the new file system on a spare device, copies in the background,
follows every change until both sides agree, proves that they do, swaps them in
a pause of about a second, and keeps the way back open until you close it.`,
		Example: `  fsmigrate survey
  fsmigrate run /data --to xfs --spare /dev/vg0/new --unit postgresql.service
  fsmigrate cutover`,
		SilenceErrors: true, SilenceUsage: true,
		Args:        noSuchCommand,
		RunE:        func(c *cobra.Command, _ []string) error { return c.Help() },
		Annotations: map[string]string{"exit": exitHelp(allExits())},
	}
	bind(root.PersistentFlags(), &a.Global)
	root.SetHelpTemplate(helpTemplate)
	root.SetHelpCommand(&cobra.Command{Hidden: true})
	root.CompletionOptions.DisableDefaultCmd = true
	root.SetOut(a.out)
	root.SetErr(a.err)
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return usagef(c.CommandPath()+" --help", "%s", err)
	})
	root.AddCommand(
		newSurvey(a), newPlan(a), newCheck(a), newRun(a),
		newList(a), newStatus(a), newWait(a),
		newPause(a), newResume(a), newCutover(a), newAbort(a), newRollback(a), newFinalize(a),
		newVerify(a), newFormats(a), newDemo(a), newDemoApp(a), newBench(a), newBenchApp(a), newVersion(a), newWatchdog(a),
	)
	return root
}

// spec is what a command is made of.
type spec struct {
	use     string
	short   string
	long    string // starts where short ends; may be empty
	example string
	exits   exits
	args    cobra.PositionalArgs
	options any // pointer to its Options, whose fields become flags
	hidden  bool
	run     func(ctx context.Context, c *cobra.Command, args []string) error
}

// command makes the cobra command of s.
func (a *app) command(s spec) *cobra.Command {
	long := s.short + "."
	if s.long != "" {
		long += "\n\n" + s.long
	}
	c := &cobra.Command{
		Use: s.use, Short: s.short, Long: long, Example: s.example, Hidden: s.hidden,
		DisableFlagsInUseLine: true,
		Annotations:           map[string]string{"exit": exitHelp(s.exits)},
		Args: func(c *cobra.Command, args []string) error {
			if err := s.args(c, args); err != nil {
				return usagef("fsmigrate "+s.use, "%s: %s", c.CommandPath(), err)
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error { return s.run(c.Context(), c, args) },
	}
	if s.options != nil {
		bind(c.Flags(), s.options)
	}
	return c
}

// print writes one whole document on the standard output: v as JSON with --json,
// what human writes otherwise. Nothing is written when it fails.
func (a *app) print(v any, human func(w io.Writer)) error {
	var b bytes.Buffer
	if a.JSON {
		enc := json.NewEncoder(&b)
		enc.SetEscapeHTML(false)
		enc.SetIndent("", "  ")
		if err := enc.Encode(v); err != nil {
			return fmt.Errorf("encode output: %w", err)
		}
	} else {
		human(&b)
	}
	if _, err := a.out.Write(b.Bytes()); err != nil {
		return fmt.Errorf("write standard output: %w", err)
	}
	return nil
}

// terminal reports whether f is one.
func terminal(f any) bool {
	file, ok := f.(*os.File)
	if !ok || file == nil {
		return false
	}
	_, err := unix.IoctlGetTermios(int(file.Fd()), unix.TCGETS)
	return err == nil
}

func noSuchCommand(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	hint := "fsmigrate --help"
	if near := c.SuggestionsFor(args[0]); len(near) > 0 {
		hint = "did you mean: fsmigrate " + strings.Join(near, ", fsmigrate ")
	}
	return usagef(hint, "no command %q", args[0])
}

func allExits() exits {
	all := exits{}
	for _, c := range exitCodes {
		all[c.code] = ""
	}
	return all
}

const helpTemplate = `{{.Long}}

Usage:
  {{if .HasParent}}fsmigrate {{.Use}}{{else}}fsmigrate COMMAND [ARG...]{{end}}

Example:
{{.Example}}
{{if .HasAvailableSubCommands}}
Commands:{{range .Commands}}{{if .IsAvailableCommand}}
  {{rpad .Name .NamePadding}} {{.Short}}{{end}}{{end}}
{{end}}{{if .HasAvailableLocalFlags}}
Flags:
{{.LocalFlags.FlagUsagesWrapped 100 | trimTrailingWhitespaces}}
{{end}}{{if .HasAvailableInheritedFlags}}
Global flags:
{{.InheritedFlags.FlagUsagesWrapped 100 | trimTrailingWhitespaces}}
{{end}}
{{index .Annotations "exit" -}}`
