package oracle

import (
	"fmt"
	"slices"
	"sort"
	"strconv"
	"strings"
)

// all finds everything but what mkfs made.
const all = `find . -path './` + exclude + `' -prune -o `

// statTree is type, mode, owner, link count, size, device number and mtime of
// every object. Directories have sizes and link counts of their volume's own.
func statTree(dir string, o Options) (map[string]string, error) {
	out, err := shell(dir, all+`-print0 | xargs -0 -r stat --printf='%f %u %g %h %s %t,%T %.9Y %n\0'`, false)
	if err != nil {
		return nil, err
	}
	seen := map[string]string{}
	for _, rec := range strings.Split(strings.TrimRight(string(out), "\x00"), "\x00") {
		f := strings.SplitN(rec, " ", 8)
		if len(f) != 8 {
			return nil, fmt.Errorf("stat said %q", rec)
		}
		mode, err := strconv.ParseUint(f[0], 16, 32)
		if err != nil {
			return nil, fmt.Errorf("stat said %q: %w", rec, err)
		}
		if mode&0o170000 == 0o040000 {
			f[3], f[4] = "-", "-"
		}
		if o.Window > 0 {
			f[6] = wholeSecond(f[6])
		}
		seen[f[7]] = fmt.Sprintf("mode %o owner %s:%s links %s size %s rdev %s mtime %s", mode, f[1], f[2], f[3], f[4], f[5], f[6])
	}
	return seen, nil
}

// wholeSecond rounds what stat prints for %.9Y down, as kernels do: before 1970 the
// fraction is not just cut off.
func wholeSecond(stamp string) string {
	sec, frac, _ := strings.Cut(stamp, ".")
	n, err := strconv.ParseInt(sec, 10, 64)
	if err != nil || !strings.HasPrefix(stamp, "-") || strings.Trim(frac, "0") == "" {
		return sec
	}
	return strconv.FormatInt(n-1, 10)
}

func symlinks(dir string, _ Options) (map[string]string, error) {
	return pairs(dir, all+`-type l -printf '%p\0%l\0'`)
}

// linkGroups names, for every name of an object that has several, the first of
// its group: inode numbers are not compared, groups are.
func linkGroups(dir string, _ Options) (map[string]string, error) {
	byName, err := pairs(dir, all+`! -type d -links +1 -printf '%p\0%i\0'`)
	if err != nil {
		return nil, err
	}
	names := make([]string, 0, len(byName))
	for n := range byName {
		names = append(names, n)
	}
	sort.Strings(names)
	first := map[string]string{}
	seen := map[string]string{}
	for _, n := range names {
		if _, ok := first[byName[n]]; !ok {
			first[byName[n]] = n
		}
		seen[n] = first[byName[n]]
	}
	return seen, nil
}

func digests(dir string, _ Options) (map[string]string, error) {
	out, err := shell(dir, all+`-type f -print0 | xargs -0 -r sha256sum -z`, false)
	if err != nil {
		return nil, err
	}
	seen := map[string]string{}
	for _, rec := range strings.Split(strings.TrimRight(string(out), "\x00"), "\x00") {
		if sum, name, ok := strings.Cut(rec, "  "); ok {
			seen[name] = sum
		}
	}
	return seen, nil
}

// pairs runs a script that prints NUL-separated keys and values.
func pairs(dir, script string) (map[string]string, error) {
	out, err := shell(dir, script, false)
	if err != nil {
		return nil, err
	}
	seen := map[string]string{}
	parts := strings.Split(string(out), "\x00")
	for i := 0; i+1 < len(parts); i += 2 {
		seen[parts[i]] = parts[i+1]
	}
	return seen, nil
}

// inodeFlags is lsattr with project ids, reduced to the flags that a user sets:
// extents, inline data and the like belong to a format. Names with newlines
// make several lines of which only the first is decorated; as the same happens
// on both sides, lines are counted, not understood.
func inodeFlags(dir string, _ Options) (map[string]string, error) {
	out, err := shell(dir, `lsattr -p -a -R .`, true)
	if err != nil {
		return nil, err
	}
	lines := map[string][]string{}
	for _, line := range strings.Split(string(out), "\n") {
		if strings.HasSuffix(line, "/.") || strings.HasSuffix(line, "/..") || strings.Contains(line, "./"+exclude) {
			continue
		}
		// "    0 --------------e------- ./name"
		f := strings.SplitN(strings.TrimLeft(line, " "), " ", 3)
		if len(f) != 3 || len(f[1]) < 16 {
			continue
		}
		flags := strings.Map(func(r rune) rune {
			if strings.ContainsRune("aidAS", r) {
				return r
			}
			return -1
		}, f[1])
		lines[f[2]] = append(lines[f[2]], fmt.Sprintf("project %s flags %q", f[0], flags))
	}
	// Several names that begin alike before their newline are in the order of the
	// directory, which is the volume's own.
	seen := map[string]string{}
	for name, l := range lines {
		sort.Strings(l)
		seen[name] = strings.Join(l, ";")
	}
	return seen, nil
}

// blocks parses what getfattr and getfacl print: a "# file: name" line, lines,
// and an empty one. Both escape newlines in names.
func blocks(out string) map[string]string {
	seen := map[string]string{}
	for _, block := range strings.Split(out, "\n\n") {
		lines := strings.Split(strings.TrimSpace(block), "\n")
		name, ok := strings.CutPrefix(lines[0], "# file: ")
		if !ok || name == exclude || name == "./"+exclude {
			continue
		}
		lines = slices.DeleteFunc(lines[1:], func(l string) bool { return strings.HasPrefix(l, xfsACL) })
		if len(lines) > 0 {
			sort.Strings(lines)
			seen[name] = strings.Join(lines, "\n")
		}
	}
	return seen
}

func xattrs(dir string, _ Options) (map[string]string, error) {
	out, err := shell(dir, `getfattr -d -m- -R -h -e hex --absolute-names .`, false)
	return blocks(string(out)), err
}

func acls(dir string, _ Options) (map[string]string, error) {
	out, err := shell(dir, `getfacl -R -n -P -p .`, false)
	return blocks(string(out)), err
}

func capabilities(dir string, _ Options) (map[string]string, error) {
	out, err := shell(dir, `getcap -r .`, true)
	if err != nil {
		return nil, err
	}
	seen := map[string]string{}
	for _, line := range strings.Split(string(out), "\n") {
		seen[line] += "once;"
	}
	return seen, nil
}
