package main

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
)

func main() { os.Exit(execute(os.Args, os.Stdin, os.Stdout, os.Stderr, realWiring())) }

// execute runs the command that argv names and answers its exit code. As
// mount.fsmigrate it is a helper of mount(8), with that program's codes.
func execute(argv []string, in *os.File, out, errw io.Writer, w wiring) int {
	ctx := context.Background()
	a := &app{in: in, out: out, err: errw, wire: w, argv: argv}
	if filepath.Base(argv[0]) == "mount.fsmigrate" {
		return mountHelper(ctx, a, argv[1:])
	}
	root := newRoot(a)
	root.SetArgs(argv[1:])
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	// Flags may not have been read when the command line is what is wrong.
	for _, arg := range argv[1:] {
		if arg == "--" {
			break
		}
		if arg == "--json" || strings.HasPrefix(arg, "--json=t") {
			a.JSON = true
		}
	}
	return a.fail(err)
}
