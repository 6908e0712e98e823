package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"go/token"
	"go/types"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// activeVar is the environment variable that says which mutant a test binary is. All of
// them are in one binary, each behind a question, so that it is built once.
const activeVar = "FSMIGRATE_MUTANT"

// cameVar names the file that takes the names of the mutants that were come by, one a line.
const cameVar = "FSMIGRATE_MUTANT_CAME"

// switchSource answers the question; it is added to every package that is changed.
const switchSource = `package %s

import (
	mutantOS "os"
	mutantSync "sync"
)

var (
	activeMutant = mutantOS.Getenv("` + activeVar + `")
	mutantsCame  mutantSync.Map
)

func mutantIs(name string) bool {
	if activeMutant == "` + tracing + `" {
		if _, known := mutantsCame.Load(name); known {
			return false
		}
		if _, known := mutantsCame.LoadOrStore(name, true); !known {
			if f, err := mutantOS.OpenFile(mutantOS.Getenv("` + cameVar + `"), mutantOS.O_WRONLY|mutantOS.O_APPEND|mutantOS.O_CREATE, 0o666); err == nil {
				_, _ = f.WriteString(name + "\n")
				_ = f.Close()
			}
		}
		return false
	}
	return activeMutant == name
}
`

// overlay is the go command's: file → file that is read in its place.
type overlay struct {
	dir     string
	Replace map[string]string
}

func newOverlay(dir string) *overlay { return &overlay{dir: dir, Replace: map[string]string{}} }

// put has text read in the place of path.
func (o *overlay) put(path string, text []byte) error {
	to := filepath.Join(o.dir, strconv.Itoa(len(o.Replace))+"-"+filepath.Base(path))
	if err := os.WriteFile(to, text, 0o600); err != nil {
		return err
	}
	o.Replace[path] = to
	return nil
}

func (o *overlay) addSwitch(c *code) error {
	return o.put(filepath.Join(c.dir, "zz_mutant.go"), fmt.Appendf(nil, switchSource, c.types.Name()))
}

// write writes the overlay's own file and answers its name.
func (o *overlay) write() (string, error) {
	b, err := json.Marshal(o)
	if err != nil {
		return "", err
	}
	name := filepath.Join(o.dir, "overlay.json")
	return name, os.WriteFile(name, b, 0o600)
}

// overlayOf puts every site and every fault behind its question.
func overlayOf(dir string, fset *token.FileSet, all []*code, sites []*site, faults []fault) (*overlay, error) {
	o := newOverlay(dir)
	byFile := map[*source][]change{}
	pkgOf := map[*source]*code{}
	for _, s := range sites {
		head, tail, err := question(s)
		if err != nil {
			return nil, err
		}
		from, to := fset.Position(s.node.Pos()).Offset, fset.Position(s.node.End()).Offset
		byFile[s.in] = append(byFile[s.in], change{at: from, text: head, order: from - to}, change{at: to, text: tail, order: to - from - 1<<30})
		pkgOf[s.in] = s.pkg
	}
	for i := range faults {
		in, pkg, c, err := faults[i].place(fset, all)
		if err != nil {
			return nil, err
		}
		byFile[in] = append(byFile[in], c)
		pkgOf[in] = pkg
	}
	switched := map[*code]bool{}
	for f, changes := range byFile {
		text, err := changed(f, changes)
		if err != nil {
			return nil, err
		}
		c := pkgOf[f]
		if err := o.put(filepath.Join(c.dir, filepath.Base(f.name)), text); err != nil {
			return nil, err
		}
		if !switched[c] {
			switched[c] = true
			if err := o.addSwitch(c); err != nil {
				return nil, err
			}
		}
	}
	return o, nil
}

// change is text that goes into a file at an offset, in the place of the cut bytes there.
type change struct {
	at, cut int
	text    string
	// Of two at one offset the outer call begins first, the inner one ends first, and a fault comes last.
	order int
}

// changed is the text of f with its changes.
func changed(f *source, changes []change) ([]byte, error) {
	slices.SortStableFunc(changes, func(a, b change) int {
		if a.at != b.at {
			return a.at - b.at
		}
		return a.order - b.order
	})
	var out bytes.Buffer
	last := 0
	for _, c := range changes {
		if c.at < last {
			return nil, fmt.Errorf("a fault in %s changes what another mutant needs: choose a smaller text", f.name)
		}
		out.Write(f.text[last:c.at])
		out.WriteString(c.text)
		last = c.at + c.cut
	}
	out.Write(f.text[last:])
	return out.Bytes(), nil
}

// question is what stands before and after a call that is left out when its mutant is
// active: it then answers that all went well, with the argument of its result's type
// where there is one (a commit answers the record that it was given).
func question(s *site) (head, tail string, err error) {
	results := s.typed.Results()
	var types_, values []string
	for r := range results.Variables() {
		name, err := typeName(s, r.Type())
		if err != nil {
			return "", "", err
		}
		types_ = append(types_, name)
		values = append(values, value(s, r.Type(), name))
	}
	name := strconv.Quote("site-" + strconv.Itoa(s.n))
	if len(types_) == 0 {
		return "func() { if mutantIs(" + name + ") { return }; ", " }()", nil
	}
	return fmt.Sprintf("func() (%s) { if mutantIs(%s) { return %s }; return ", strings.Join(types_, ", "), name, strings.Join(values, ", ")), " }()", nil
}

func value(s *site, t types.Type, name string) string {
	if t.String() == "error" {
		return "nil"
	}
	if _, isStruct := t.Underlying().(*types.Struct); isStruct {
		for _, a := range s.node.Args {
			if types.Identical(s.pkg.info.Types[a].Type, t) {
				// As it is written there: types.ExprString leaves out what stands between braces.
				begin := s.in.ast.FileStart
				return string(s.in.text[a.Pos()-begin : a.End()-begin])
			}
		}
	}
	if t.String() == "bool" {
		return "true"
	}
	return "*new(" + name + ")"
}

// typeName is how the site's file names a type.
func typeName(s *site, t types.Type) (name string, err error) {
	name = types.TypeString(t, func(p *types.Package) string {
		if p == s.pkg.types {
			return ""
		}
		for _, i := range s.in.ast.Imports {
			path, _ := strconv.Unquote(i.Path.Value)
			if path != p.Path() {
				continue
			}
			if i.Name != nil {
				return i.Name.Name
			}
			return p.Name()
		}
		err = fmt.Errorf("%s: its file does not import %s", s.id(), p.Path())
		return p.Name()
	})
	return name, err
}
