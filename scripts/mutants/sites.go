package main

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/printer"
	"go/token"
	"go/types"
	"regexp"
	"slices"
	"strings"
)

// module is the import path of the repository.
const module = "github.com/fsmigrate/fsmigrate/"

// kinds are the calls that keep the invariants, by what they do. Names are those of
// types.Func.FullName, our own without the module's path. Calls that only tell somebody (events, lines
// of the audit log from the engine) are none; the writer of the audit log is.
var kinds = []struct {
	kind  string
	calls []string
}{
	{"sync", []string{
		"(*os.File).Sync", "golang.org/x/sys/unix.Fsync", "golang.org/x/sys/unix.Fdatasync",
		"golang.org/x/sys/unix.Sync", "golang.org/x/sys/unix.Syncfs", "golang.org/x/sys/unix.Msync",
		"(github.com/cockroachdb/pebble/v2/vfs.File).Sync", "(github.com/cockroachdb/pebble/v2/vfs.File).SyncData",
		"(github.com/cockroachdb/pebble/v2/vfs.File).SyncTo",
		"(statedir.file).Sync", "(statedir.fsys).syncDir", "blockdev.Syncfs",
		"shadow.syncDir", "shadow.syncDevice", "(*shadow.pair).syncTo", "(*shadow.pair).syncFrom",
		"(*shadow.pair).checkpoint", "(*shadow.Journal).syncLog",
	}},
	{"rename", []string{
		"os.Rename", "os.Link", "golang.org/x/sys/unix.Rename", "golang.org/x/sys/unix.Renameat",
		"golang.org/x/sys/unix.Renameat2", "golang.org/x/sys/unix.Link", "golang.org/x/sys/unix.Linkat",
		"(github.com/cockroachdb/pebble/v2/vfs.FS).Rename", "(github.com/cockroachdb/pebble/v2/vfs.FS).Link",
		"(statedir.fsys).rename", "(statedir.fsys).link",
	}},
	{"record", []string{
		"(migrate.Store).Save", "(migrate.Store).Commit", "(migrate.Store).Audit",
		"(*migrate.Migration).save", "(*migrate.Migration).commit", "(*migrate.Migration).closeRecord",
		"statedir.replace", "statedir.writeTemp", "(*statedir.Dir).link", "(*statedir.Dir).doubt",
		"(*statedir.Dir).Save", "(*statedir.Dir).Commit", "(*statedir.Dir).Audit",
		"shadow.writeDurably", "(*shadow.Place).saveRecord", "(*shadow.Place).saveLedger",
		"(*shadow.Place).mark", "(*shadow.Place).setLabel", "formats.SetLabel",
		"(*shadow.Store).SetMeta", "(*shadow.Store).apply", "(*shadow.Store).Drop",
		"(*github.com/cockroachdb/pebble/v2.DB).Apply", "(*github.com/cockroachdb/pebble/v2.Batch).Set",
		"(*github.com/cockroachdb/pebble/v2.Batch).Delete", "(*github.com/cockroachdb/pebble/v2.Batch).DeleteRange",
		"(*shadow.NodeMap).Put", "(*shadow.NodeMap).Delete", "(*shadow.NodeMap).PutRanges", "(*shadow.NodeMap).Distrust", "(*shadow.NodeMap).Doubt",
		"(*shadow.Batch).Put", "(*shadow.Batch).Delete", "(*shadow.Batch).Commit",
		"(*shadow.worker).put", "(*shadow.worker).commit",
		"(*shadow.pair).record", "(*shadow.pair).recordPlace", "(*shadow.pair).lostData",
		"(*shadow.pair).outdated", "(*shadow.pair).disclaim", "(*shadow.Journal).Commit", "(*shadow.Journal).Discard",
		"(*fstab.replacement).write", "(*fstab.replacement).replace",
		"(control/host.Extras).Save", "(*service/watchdog.dog).commit",
	}},
	{"mark", []string{
		"(*shadow.Journal).Begin", "(*shadow.Journal).Mark", "(*shadow.Journal).MarkAll", "(*shadow.Journal).markAllLocked",
		"(*shadow.Journal).began", "(*shadow.Journal).beginCoarse", "shadow.MarkFrom",
		"(*shadow.dirtyNames).add", "(*shadow.dirtyNames).allOf", "(*shadow.dirtyNames).full",
		"(*shadow.pair).markRacy", "(*shadow.pair).dueRacy", "(*shadow.pair).retry", "(*shadow.pair).redo",
		"(*shadow.Tree).rewatch", "(*shadow.Watch).Barrier",
	}},
}

// cutoverPath are the functions between the fence and the settled volume, the fence and the
// settling included. No call in them may be without a test that misses it.
var cutoverPath = []string{
	"migrate.attempt.", "migrate.Migration.swap", "migrate.Migration.commit", "migrate.Migration.closeRecord",
	"migrate.Migration.recover", "migrate.Migration.save",
	"statedir.Dir.Commit", "statedir.Dir.link", "statedir.Dir.doubt", "statedir.Dir.newest", "statedir.Dir.Save", "statedir.replace",
	"statedir.writeTemp", "statedir.osFS.",
	"shadow.Place.Fence", "shadow.Place.sealOnce", "shadow.Place.saveLedger", "shadow.Place.mark", "shadow.Place.setLabel",
	"shadow.Place.SwapIn", "shadow.Place.putBeneath", "shadow.Place.Settle", "shadow.Place.finishSettle",
	"shadow.Tree.Fence", "shadow.Tree.Drain", "shadow.Tree.Follow", "shadow.Tree.Settle",
	"shadow.pair.drain", "shadow.pair.checkpoint", "shadow.pair.syncTo", "shadow.pair.syncFrom", "shadow.Journal.Commit",
	"service/watchdog.dog.",
}

// site is one call that can be left out.
type site struct {
	kind  string
	file  string // from the root
	fn    string // the function that it stands in, as "Type.Method" or "function"
	call  string // its text, on one line
	nth   int    // of the same text in the same function, from 1
	n     int    // number in this run
	node  *ast.CallExpr
	in    *source
	pkg   *code
	typed *types.Signature
}

// id names a site as long as it stands where it stands.
func (s *site) id() string {
	id := s.file + " " + s.fn + ": " + s.call
	if s.nth > 1 {
		id += fmt.Sprintf(" (%d)", s.nth)
	}
	return id
}

// cutover reports whether the site lies between fence and settle.
func (s *site) cutover() bool {
	dir, _, _ := cutLast(s.file, "/")
	name := dir + "." + s.fn
	return slices.ContainsFunc(cutoverPath, func(p string) bool {
		return name == p || strings.HasSuffix(p, ".") && strings.HasPrefix(name, p)
	})
}

func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return "", s, false
}

// enumerate finds every site, in the order of files and lines.
func enumerate(fset *token.FileSet, all []*code) []*site {
	byCall := map[string]string{}
	for _, k := range kinds {
		for _, c := range k.calls {
			byCall[c] = k.kind
		}
	}
	var sites []*site
	for _, c := range all {
		for _, f := range c.files {
			for _, fn := range functions(f) {
				seen := map[string]int{}
				ast.Inspect(fn.Body, func(n ast.Node) bool {
					call, ok := n.(*ast.CallExpr)
					if !ok {
						return true
					}
					callee := calleeOf(c.info, call)
					if callee == nil {
						return true
					}
					kind, ok := byCall[strings.ReplaceAll(callee.FullName(), module, "")]
					if !ok {
						return true
					}
					text := oneLine(fset, call)
					seen[text]++
					sites = append(sites, &site{
						kind: kind, file: f.name, fn: nameOf(fn), call: text, nth: seen[text], node: call, in: f, pkg: c,
						typed: callee.Signature(),
					})
					return true
				})
			}
		}
	}
	for i, s := range sites {
		s.n = i
	}
	return sites
}

func functions(f *source) (all []*ast.FuncDecl) {
	for _, d := range f.ast.Decls {
		if fn, ok := d.(*ast.FuncDecl); ok && fn.Body != nil {
			all = append(all, fn)
		}
	}
	return all
}

func calleeOf(info *types.Info, call *ast.CallExpr) *types.Func {
	switch fun := ast.Unparen(call.Fun).(type) {
	case *ast.Ident:
		f, _ := info.Uses[fun].(*types.Func)
		return f
	case *ast.SelectorExpr:
		f, _ := info.Uses[fun.Sel].(*types.Func)
		return f
	}
	return nil
}

// nameOf is "Type.Method" or "function".
func nameOf(fn *ast.FuncDecl) string {
	if fn.Recv == nil || len(fn.Recv.List) == 0 {
		return fn.Name.Name
	}
	t := fn.Recv.List[0].Type
	if p, ok := t.(*ast.StarExpr); ok {
		t = p.X
	}
	if i, ok := t.(*ast.IndexExpr); ok {
		t = i.X
	}
	if id, ok := t.(*ast.Ident); ok {
		return id.Name + "." + fn.Name.Name
	}
	return fn.Name.Name
}

var space = regexp.MustCompile(`\s+`)

// oneLine is a call's text with long arguments cut: it goes into a table.
func oneLine(fset *token.FileSet, call *ast.CallExpr) string {
	var b bytes.Buffer
	_ = printer.Fprint(&b, fset, call) // to memory: cannot fail
	text := space.ReplaceAllString(b.String(), " ")
	if r := []rune(text); len(r) > 72 {
		text = string(r[:70]) + "…)"
	}
	return text
}
