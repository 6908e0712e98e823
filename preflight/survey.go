package preflight

import (
	"context"
	"fmt"
	"slices"
	"sort"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fsmigrate/fsmigrate/blockdev"
	"github.com/fsmigrate/fsmigrate/formats"
)

// Volume is a mounted volume with what its superblock says of its future.
type Volume struct {
	Mount, Device, Format, Version string
	Bytes                          int64
	Findings                       []formats.Finding
	Error                          string // why it could not be looked at
}

// Survey looks at every mounted volume of a known format, or at those that the
// paths are on. It only reads superblocks.
func Survey(ctx context.Context, paths []string) ([]Volume, error) {
	mounts, err := surveyed(paths)
	if err != nil {
		return nil, err
	}
	var out []Volume
	seen := map[string]bool{}
	for _, m := range mounts {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if _, known := formats.Lookup(m.FSType); !known || seen[m.Source] || !strings.HasPrefix(m.Source, "/dev/") {
			continue
		}
		seen[m.Source] = true
		out = append(out, surveyOne(m))
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Mount < out[j].Mount })
	return out, nil
}

func surveyOne(m blockdev.Mount) Volume {
	v := Volume{Mount: m.Point, Device: m.Source, Format: m.FSType}
	sb, f, err := probe(m.Source)
	if err != nil {
		v.Error = err.Error()
		return v
	}
	v.Format, v.Version, v.Bytes = f.Name(), sb.Version, sb.Bytes
	for _, g := range f.Findings(sb) {
		g.Do = named(g.Do, m)
		v.Findings = append(v.Findings, g)
	}
	return v
}

// named puts the volume's own names into a command: DIR is where it is mounted, DEVICE
// what it is on, but for the spare, which only the operator can name.
func named(do string, m blockdev.Mount) string {
	const spare = "--spare DEVICE"
	parts := strings.Split(do, spare)
	for i, p := range parts {
		words := strings.Split(p, " ")
		for j, w := range words {
			name := strings.TrimRight(w, ",;:")
			switch rest := w[len(name):]; name {
			case "DIR", "/data":
				words[j] = quote(m.Point) + rest
			case "DEVICE":
				words[j] = quote(m.Source) + rest
			}
		}
		parts[i] = strings.Join(words, " ")
	}
	return strings.Join(parts, spare)
}

// quote makes a path one word of a shell.
func quote(s string) string {
	if strings.ContainsFunc(s, func(r rune) bool { return !strings.ContainsRune("/._-+:@%=", r) && !isWord(r) }) {
		return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
	}
	return s
}

func isWord(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
}

// surveyed lists the mounts to look at.
func surveyed(paths []string) ([]blockdev.Mount, error) {
	if len(paths) == 0 {
		return blockdev.OwnMounts()
	}
	var out []blockdev.Mount
	mounts, err := blockdev.OwnMounts()
	if err != nil {
		return nil, err
	}
	for _, p := range paths {
		var st unix.Statx_t
		if err := unix.Statx(unix.AT_FDCWD, p, 0, unix.STATX_MNT_ID, &st); err != nil {
			return nil, fmt.Errorf("find the volume of %s: %w", p, err)
		}
		i := slices.IndexFunc(mounts, func(m blockdev.Mount) bool { return m.ID == int(st.Mnt_id) })
		if i < 0 {
			return nil, fmt.Errorf("find the volume of %s: its mount is not in this namespace", p)
		}
		out = append(out, mounts[i])
	}
	return out, nil
}
