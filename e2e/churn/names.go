package churn

import (
	"bytes"
	"fmt"
	"math/rand/v2"
)

// newName invents a name that dir does not hold: mostly plain, sometimes with
// newlines, quotes, invalid UTF-8, or as long as a name can be.
func newName(rng *rand.Rand, dir *Node) string {
	for {
		name := inventName(rng)
		if _, taken := dir.Entries[name]; !taken && !ignored[name] && name != "." && name != ".." {
			return name
		}
	}
}

func inventName(rng *rand.Rand) string {
	id := fmt.Sprintf("%x", rng.Uint32())
	switch k := rng.IntN(100); {
	case k < 80:
		return "n" + id
	case k < 84:
		return "line\n" + id + "\n"
	case k < 88:
		return []string{"-", ".", " ", "\"'", "\\012", "*?", "\x7f\x01"}[rng.IntN(7)] + id
	case k < 94:
		raw := make([]byte, 1+rng.IntN(12))
		for i := range raw {
			raw[i] = byte(128 + rng.IntN(128)) // never '/' or NUL, hardly ever UTF-8
		}
		return string(raw) + id
	case k < 97:
		return "ünïcode-✓-" + id
	}
	return id + string(bytes.Repeat([]byte{'L'}, 255-len(id)-rng.IntN(40)))
}

// ignored are names at the root that are not the churn's: mkfs makes one, the
// append workload the other.
var ignored = map[string]bool{"lost+found": true, AppendDir: true}

// pathBytes is the length of the path to a directory.
func pathBytes(dir *Node) (n int) {
	for _, name := range path(dir) {
		n += len(name) + 1
	}
	return n
}

// beneath reports whether dir is top or lies below it.
func beneath(dir, top *Node) bool {
	for {
		if dir == top {
			return true
		}
		if len(dir.Places) == 0 {
			return false
		}
		dir = dir.Places[0].Dir
	}
}
