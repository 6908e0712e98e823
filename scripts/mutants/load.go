package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// code is one package of the product, checked.
type code struct {
	path  string // import path
	dir   string // absolute
	files []*source
	info  *types.Info
	types *types.Package
}

// source is one file of it.
type source struct {
	name string // from the root of the repository, with slashes
	text []byte
	ast  *ast.File
}

// foreign are the parts of the repository that are no product: they judge, show or measure.
var foreign = []string{"e2e", "demo", "bench", "docs", "scripts", "fuzz", "formats/formattest", "blockdev/blocktest", "blockdev/record"}

// load checks the product's packages below root. What they import is read from the
// compiler's export data, which the go command makes or has in its cache.
func load(root string) (*token.FileSet, []*code, error) {
	type listed struct {
		ImportPath, Export, Dir string
		GoFiles                 []string
		Standard, DepOnly       bool
	}
	cmd := exec.Command(goCommand(), "list", "-export", "-deps", "-json=ImportPath,Export,Dir,GoFiles,Standard,DepOnly", "./...")
	cmd.Dir, cmd.Stderr = root, os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, nil, fmt.Errorf("go list: %w", err)
	}
	exports := map[string]string{}
	var ours []listed
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var l listed
		if err := dec.Decode(&l); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, nil, fmt.Errorf("go list: %w", err)
		}
		exports[l.ImportPath] = l.Export
		if !l.DepOnly && !isForeign(root, l.Dir) {
			ours = append(ours, l)
		}
	}
	fset := token.NewFileSet()
	from := importer.ForCompiler(fset, "gc", func(path string) (io.ReadCloser, error) {
		if exports[path] == "" {
			return nil, fmt.Errorf("no export data of %s", path)
		}
		return os.Open(exports[path])
	})
	var all []*code
	for _, l := range ours {
		c, err := check(fset, from, root, l.ImportPath, l.Dir, l.GoFiles)
		if err != nil {
			return nil, nil, err
		}
		all = append(all, c)
	}
	return fset, all, nil
}

func isForeign(root, dir string) bool {
	rel, err := filepath.Rel(root, dir)
	if err != nil {
		return true
	}
	return slices.ContainsFunc(foreign, func(f string) bool { return rel == f || strings.HasPrefix(rel, f+"/") })
}

func check(fset *token.FileSet, from types.Importer, root, path, dir string, files []string) (*code, error) {
	c := &code{path: path, dir: dir, info: &types.Info{
		Types: map[ast.Expr]types.TypeAndValue{}, Uses: map[*ast.Ident]types.Object{},
		Selections: map[*ast.SelectorExpr]*types.Selection{}, Defs: map[*ast.Ident]types.Object{},
	}}
	var asts []*ast.File
	for _, f := range files {
		full := filepath.Join(dir, f)
		text, err := os.ReadFile(full)
		if err != nil {
			return nil, err
		}
		tree, err := parser.ParseFile(fset, full, text, parser.ParseComments)
		if err != nil {
			return nil, err
		}
		name, err := filepath.Rel(root, full)
		if err != nil {
			return nil, err
		}
		c.files = append(c.files, &source{name: filepath.ToSlash(name), text: text, ast: tree})
		asts = append(asts, tree)
	}
	var err error
	c.types, err = (&types.Config{Importer: from}).Check(path, fset, asts, c.info)
	if err != nil {
		return nil, fmt.Errorf("check %s: %w", path, err)
	}
	return c, nil
}

// goCommand is the go command that make uses.
func goCommand() string {
	if g := os.Getenv("GO"); g != "" {
		return g
	}
	return "go"
}
