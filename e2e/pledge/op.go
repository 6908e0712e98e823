package pledge

import (
	"fmt"
	"math/rand/v2"
	"path"
	"slices"
	"strconv"
)

// Kind is what an operation does.
type Kind string

// The kinds. Each names what is synced before it is acknowledged.
const (
	Create    Kind = "create"    // a file, perhaps with a hole in front: file, directory
	Append    Kind = "append"    // at the end: file
	Overwrite Kind = "overwrite" // inside: file
	Store     Kind = "store"     // inside, through a mapping: msync
	Truncate  Kind = "truncate"  // to Len, shorter or longer: file
	Replace   Kind = "replace"   // a new file renamed over the old one: new file, directory
	Rename    Kind = "rename"    // to a new name, perhaps elsewhere: both directories
	Link      Kind = "link"      // one more name: file, directory
	Unlink    Kind = "unlink"    // directory
	Symlink   Kind = "symlink"   // directory
	Mkdir     Kind = "mkdir"     // parent
	Attr      Kind = "attr"      // mode and an xattr: file
)

// Op is one operation. Paths are relative to the volume.
type Op struct {
	Worker int    `json:"w"`
	N      int    `json:"n"` // the worker's first is 1
	Kind   Kind   `json:"kind"`
	Path   string `json:"path"`
	To     string `json:"to,omitempty"`  // the new name; the text of a symlink
	Off    int64  `json:"off,omitempty"` // of the data; of a new file: the hole in front of it
	Len    int64  `json:"len,omitempty"`
	Seed   uint64 `json:"seed,omitempty"` // of the data, and of the attributes
	How    string `json:"how,omitempty"`  // fsync, fdatasync, dsync
}

func (o Op) String() string {
	return fmt.Sprintf("%d of worker %d: %s %s %s", o.N, o.Worker, o.Kind, o.Path, o.To)
}

// mode and xattr are what Attr sets.
func (o Op) mode() uint32   { return []uint32{0o600, 0o640, 0o644, 0o664, 0o700, 0o751}[o.Seed%6] }
func (o Op) xattr() string  { return fmt.Sprintf("value %x", o.Seed) }
func (o Op) data() []byte   { return fill(o.Seed, o.Len) }
func (o Op) newTmp() string { return o.Path + newSuffix }

// newSuffix is that of a replacement's name, until it is renamed.
const newSuffix = ".new"

// fill is n bytes that belong to a seed.
func fill(seed uint64, n int64) []byte {
	src := rand.NewPCG(seed, 0x9ed9e)
	b := make([]byte, (n+7)/8*8)
	for i := 0; i < len(b); i += 8 {
		v := src.Uint64()
		for j := range 8 {
			b[i+j] = byte(v >> (8 * j))
		}
	}
	return b[:n]
}

// next chooses a worker's next operation, by nothing but the seed and the model.
func (x mix) next(seed uint64, m *Model) Op {
	n := m.Done + 1
	rng := rand.New(rand.NewPCG(seed, uint64(m.Worker)<<32|uint64(n)))
	o := Op{Worker: m.Worker, N: n, Seed: rng.Uint64(), How: []string{"fsync", "fdatasync", "dsync"}[rng.IntN(3)]}
	dirs, files := m.sorted(Directory), m.sorted(File)
	fresh := func(what string) string { return path.Join(dirs[rng.IntN(len(dirs))], what+strconv.Itoa(n)) }
	if len(dirs) == 0 {
		o.Kind, o.Path = Mkdir, "w"+strconv.Itoa(m.Worker)
		return o
	}
	if len(files) < x.files/2 || rng.IntN(2*x.files) >= len(files)+x.files/2 {
		switch rng.IntN(9) {
		case 0:
			o.Kind, o.Path = Mkdir, fresh("d")
		case 1:
			o.Kind, o.Path, o.To = Symlink, fresh("s"), fmt.Sprintf("../to/%x", o.Seed)
		default:
			o.Kind, o.Path, o.Len = Create, fresh("f"), x.size(rng)
			if rng.IntN(5) == 0 {
				o.Off = rng.Int64N(x.maxSize / 2)
			}
		}
		return o
	}
	o.Kind, o.Path = x.kinds[rng.IntN(len(x.kinds))], files[rng.IntN(len(files))]
	size := int64(len(m.Nodes[o.Path].Data))
	switch o.Kind {
	case Append:
		o.Off, o.Len = size, 1+rng.Int64N(9000)
		if size+o.Len > x.maxSize {
			o.Kind, o.Off, o.Len = Truncate, 0, rng.Int64N(max(1, size))
		}
	case Overwrite, Store:
		o.Kind, o.Off, o.Len = within(rng, o.Kind, size)
	case Truncate:
		o.Len = rng.Int64N(min(2*size+1, x.maxSize))
	case Replace:
		o.Len = x.size(rng)
	case Rename:
		o.To = fresh("r")
	case Link:
		o.To = fresh("l")
	}
	return o
}

// within chooses a range of a file; an empty one gets a first byte instead.
func within(rng *rand.Rand, k Kind, size int64) (Kind, int64, int64) {
	if size == 0 {
		return Append, 0, 1
	}
	off := rng.Int64N(size)
	return k, off, 1 + rng.Int64N(min(size-off, 20_000))
}

func (m *Model) sorted(t Type) (paths []string) {
	for p, n := range m.Nodes {
		if n.Type == t {
			paths = append(paths, p)
		}
	}
	slices.Sort(paths)
	return paths
}
