package pledge

import (
	"maps"
	"math/rand/v2"
	"slices"
)

// mix says what kind of application it is: how many files a worker hovers about, how
// large they become, and what it does with them, a kind as often as it is named.
type mix struct {
	files   int
	maxSize int64 // bytes
	small   bool  // new files have a few hundred bytes
	kinds   []Kind
}

// mixes are the applications. All of them create and remove what they need.
var mixes = map[string]mix{
	"files": {60, 96 << 10, false, []Kind{Append, Append, Append, Overwrite, Overwrite, Overwrite, Store, Store,
		Truncate, Replace, Replace, Rename, Link, Unlink, Unlink, Attr}},
	// Mail, package managers: many names, little in them.
	"names": {150, 8 << 10, true, []Kind{Rename, Rename, Rename, Rename, Replace, Replace, Replace, Link, Link, Unlink, Unlink, Attr, Append}},
	// Databases: few files, changed inside, half of it through mappings.
	"pages": {10, 1 << 20, false, []Kind{Store, Store, Store, Store, Overwrite, Overwrite, Overwrite, Overwrite, Append, Truncate}},
	// Logs: appended to, rotated, removed.
	"logs": {15, 256 << 10, true, []Kind{Append, Append, Append, Append, Append, Append, Append, Append, Rename, Rename, Unlink, Truncate}},
}

// Mixes are the names of the applications that there are.
func Mixes() []string { return slices.Sorted(maps.Keys(mixes)) }

// size chooses the size of a new file, in bytes.
func (x mix) size(rng *rand.Rand) int64 {
	if x.small {
		return 1 + rng.Int64N(600)
	}
	return 1 + rng.Int64N([]int64{200, 20_000, x.maxSize / 2}[rng.IntN(3)])
}
