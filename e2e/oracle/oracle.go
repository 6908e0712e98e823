package oracle

import (
	"bytes"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"sort"
	"strings"
	"time"
)

// Options say what two trees may differ in.
type Options struct {
	Window time.Duration // mtimes are compared in whole multiples of it; 0: nanoseconds
	Skip   []string      // facets left out, by name
}

// exclude are names at the top that belong to a volume and not to its data.
const exclude = "lost+found"

// xfsACL begins the names under which xfs shows ACLs a second time.
const xfsACL = "trusted.SGI_ACL_"

// maxReport bounds what is said of one facet.
const maxReport = 20

// facet is one way to look at a tree: key → what is seen there.
type facet struct {
	name string
	look func(dir string, o Options) (map[string]string, error)
}

var facets = []facet{
	{"stat", statTree},
	{"symlinks", symlinks},
	{"links", linkGroups},
	{"sha256", digests},
	{"lsattr", inodeFlags},
	{"getfattr", xattrs},
	{"getfacl", acls},
	{"getcap", capabilities},
}

// Compare answers the differences between two trees, each with the name of the
// facet that shows it. Nothing may be writing to either.
func Compare(a, b string, o Options) ([]string, error) {
	var out []string
	for _, f := range facets {
		if slices.Contains(o.Skip, f.name) {
			continue
		}
		left, err := f.look(a, o)
		if err != nil {
			return nil, fmt.Errorf("%s of %s: %w", f.name, a, err)
		}
		right, err := f.look(b, o)
		if err != nil {
			return nil, fmt.Errorf("%s of %s: %w", f.name, b, err)
		}
		out = append(out, differences(f.name, left, right)...)
	}
	if !slices.Contains(o.Skip, "rsync") {
		lines, err := rsync(a, b, o)
		if err != nil {
			return nil, err
		}
		out = append(out, lines...)
	}
	return out, nil
}

// Snapshot is all that the facets see of one tree, for comparing it with itself
// at a later time.
type Snapshot map[string]map[string]string

// Take takes a snapshot.
func Take(dir string, o Options) (Snapshot, error) {
	s := Snapshot{}
	for _, f := range facets {
		if slices.Contains(o.Skip, f.name) {
			continue
		}
		seen, err := f.look(dir, o)
		if err != nil {
			return nil, fmt.Errorf("%s of %s: %w", f.name, dir, err)
		}
		s[f.name] = seen
	}
	return s, nil
}

// Compare answers the differences of two snapshots.
func (s Snapshot) Compare(t Snapshot) (out []string) {
	for _, f := range facets {
		out = append(out, differences(f.name, s[f.name], t[f.name])...)
	}
	return out
}

func differences(name string, a, b map[string]string) (out []string) {
	keys := map[string]bool{}
	for k := range a {
		keys[k] = true
	}
	for k := range b {
		keys[k] = true
	}
	sorted := make([]string, 0, len(keys))
	for k := range keys {
		sorted = append(sorted, k)
	}
	sort.Strings(sorted)
	for _, k := range sorted {
		x, inA := a[k]
		y, inB := b[k]
		if inA == inB && x == y {
			continue
		}
		if len(out) == maxReport {
			return append(out, name+": … and more")
		}
		out = append(out, fmt.Sprintf("%s: %q: %s, %s", name, k, shown(x, inA), shown(y, inB)))
	}
	return out
}

func shown(s string, there bool) string {
	if !there {
		return "nothing"
	}
	if len(s) > 200 {
		s = s[:200] + "…"
	}
	return fmt.Sprintf("%q", s)
}

// shell runs a pipeline in dir. Programs that complain about what they cannot
// look at (lsattr on a FIFO) are told so by tolerant.
func shell(dir, script string, tolerant bool) ([]byte, error) {
	cmd := exec.Command("bash", "-c", "set -o pipefail; "+script)
	cmd.Dir = dir
	cmd.Env = append(cmd.Environ(), "LC_ALL=C", "TZ=UTC")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	var exit *exec.ExitError
	if err != nil && (!tolerant || !errors.As(err, &exit)) {
		return nil, fmt.Errorf("%s: %w: %s", script, err, stderr.Bytes())
	}
	return out, nil
}

// rsync asks rsync what it would still have to do.
func rsync(a, b string, o Options) ([]string, error) {
	args := []string{"-naHAXc", "--delete", "--itemize-changes", "--numeric-ids", "--devices", "--specials", "--exclude=/" + exclude,
		"--filter=-x system.*", "--filter=-x " + xfsACL + "*"}
	if o.Window > 0 {
		args = append(args, fmt.Sprintf("--modify-window=%d", max(1, int(o.Window.Seconds()))))
	}
	cmd := exec.Command("rsync", append(args, a+"/", b+"/")...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	b2, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("rsync %s %s: %w: %s", a, b, err, stderr.Bytes())
	}
	var out []string
	for _, line := range strings.Split(strings.TrimRight(string(b2), "\n"), "\n") {
		if line == "" {
			continue
		}
		if len(out) == maxReport {
			return append(out, "rsync: … and more"), nil
		}
		out = append(out, "rsync: "+line)
	}
	return out, nil
}
