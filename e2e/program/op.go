package program

import (
	"fmt"
	"math/rand/v2"
	"path"
	"slices"
	"strconv"
)

// Kind is what an operation does.
type Kind string

// Operations that change something.
const (
	Create   Kind = "create" // a file with content; EEXIST where there is one
	Mkdir    Kind = "mkdir"
	Symlink  Kind = "symlink"
	Link     Kind = "link"
	Unlink   Kind = "unlink"
	Rmdir    Kind = "rmdir"    // ENOTEMPTY where something is in it
	Rename   Kind = "rename"   // to a fresh name, over another file, or into itself: EINVAL
	Exchange Kind = "exchange" // two files
	Write    Kind = "write"    // in place, perhaps past the end
	Append   Kind = "append"   // O_APPEND
	Store    Kind = "store"    // through a shared mapping
	Truncate Kind = "truncate" // shorter or longer
	Punch    Kind = "punch"
	Copy     Kind = "copy" // copy_file_range from another file
	Chmod    Kind = "chmod"
	Chown    Kind = "chown"
	Utimes   Kind = "utimes"
	SetXattr Kind = "setxattr"
	DelXattr Kind = "delxattr" // ENODATA where there is none
)

// Operations that look.
const (
	Read     Kind = "read"
	Stat     Kind = "stat"
	List     Kind = "list"
	Readlink Kind = "readlink"
	Xattrs   Kind = "xattrs"
	Missing  Kind = "missing" // opens what is not there
)

// Op is one operation. Paths are relative to the volume.
type Op struct {
	N        int // the worker's first is 1
	Kind     Kind
	Path, To string // To: the new name, the other file, a symlink's text
	Off, Len int64
	Seed     uint64 // of data and attributes
}

func (o Op) String() string {
	s := fmt.Sprintf("%d %s %q", o.N, o.Kind, o.Path)
	if o.To != "" {
		s += fmt.Sprintf(" %q", o.To)
	}
	if o.Off != 0 || o.Len != 0 {
		s += fmt.Sprintf(" %d+%d", o.Off, o.Len)
	}
	return s
}

func (o Op) mode() uint32          { return []uint32{0o600, 0o640, 0o644, 0o664, 0o700, 0o751, 0o555}[o.Seed%7] }
func (o Op) uid() int              { return int(o.Seed % 60_000) }
func (o Op) gid() int              { return int(o.Seed / 60_000 % 60_000) }
func (o Op) sec() int64            { return int64(o.Seed % (1<<31 - 10)) } // every format holds it
func (o Op) xattr() string         { return "user.p" + strconv.Itoa(int(o.Seed%3)) }
func (o Op) value() []byte         { return fmt.Appendf(nil, "%x", o.Seed) }
func (o Op) data() []byte          { return fill(o.Seed, o.Len) }
func name(o Op) string             { return []string{"f%d", "line\n%d", "ü%d", "-%d", "\xff\xfe%d"}[o.Seed%5] }
func (o Op) fresh(d string) string { return path.Join(d, fmt.Sprintf(name(o), o.N)) }

// fill is n bytes that belong to a seed.
func fill(seed uint64, n int64) []byte {
	src := rand.NewPCG(seed, 0x9406)
	b := make([]byte, (n+7)/8*8)
	for i := 0; i < len(b); i += 8 {
		v := src.Uint64()
		for j := range 8 {
			b[i+j] = byte(v >> (8 * j))
		}
	}
	return b[:n]
}

const (
	wantObjects = 80       // that a worker hovers about
	maxSize     = 96 << 10 // bytes of a file
)

// next chooses a worker's next operation, by nothing but the seed and the model.
func next(seed uint64, m *model) Op {
	n := m.done + 1
	rng := rand.New(rand.NewPCG(seed, uint64(m.worker)<<32|uint64(n)))
	o := Op{N: n, Seed: rng.Uint64()}
	root := "p" + strconv.Itoa(m.worker)
	if n == 1 {
		o.Kind, o.Path = Mkdir, root
		return o
	}
	dirs, files := m.sorted(directory), m.sorted(file)
	dir := dirs[rng.IntN(len(dirs))]
	if len(files) < wantObjects/2 && rng.IntN(4) > 0 || len(files) == 0 {
		o.Kind, o.Path, o.Len = Create, o.fresh(dir), 1+rng.Int64N([]int64{200, 8_000, maxSize / 2}[rng.IntN(3)])
		return o
	}
	pick := func(paths []string) string { return paths[rng.IntN(len(paths))] }
	if rng.IntN(2) == 0 {
		return m.look(o, rng, dirs, files)
	}
	o.Path = pick(files)
	size := m.at[o.Path].size
	switch k := rng.IntN(34); k {
	case 0, 1, 2:
		o.Kind, o.Path, o.Len = Create, o.fresh(dir), 1+rng.Int64N(20_000)
	case 3: // there already
		o.Kind, o.Len = Create, 10
	case 4, 5:
		o.Kind, o.Path = Mkdir, o.fresh(dir)
	case 6:
		o.Kind, o.Path, o.To = Symlink, o.fresh(dir), fmt.Sprintf("../to/%x", o.Seed)
	case 7, 8:
		o.Kind, o.To = Link, o.fresh(dir)
	case 9, 10, 11, 12:
		o.Kind = Unlink
		if links := m.sorted(symlink); len(links) > 0 && k == 9 {
			o.Path = pick(links)
		}
	case 13:
		o.Kind, o.Path = Rmdir, dir
		if dir == root {
			o.Kind, o.Len = List, 0
		}
	case 14, 15:
		o.Kind, o.To = Rename, o.fresh(dir)
	case 16: // over another
		o.Kind, o.To = Rename, pick(files)
		if m.at[o.To] == m.at[o.Path] {
			o.Kind, o.To = Stat, ""
		}
	case 17, 18: // a directory, perhaps into itself
		o.Kind, o.Path, o.To = Rename, pick(dirs), o.fresh(dir)
		if o.Path == root {
			o.Kind, o.To = List, ""
		}
	case 19:
		o.Kind, o.To = Exchange, pick(files)
		if m.at[o.To] == m.at[o.Path] {
			o.Kind, o.To = Stat, ""
		}
	case 20, 21:
		o.Kind, o.Off, o.Len = Write, rng.Int64N(size+size/8+1), 1+rng.Int64N(20_000)
	case 22, 23:
		o.Kind, o.Off, o.Len = Append, size, 1+rng.Int64N(9_000)
	case 24, 25:
		o.Kind, o.Off = Store, rng.Int64N(max(size, 1))
		if o.Len = 1 + rng.Int64N(9_000); size < o.Off+o.Len {
			o.Kind = Read
			o.Off, o.Len = 0, 0
		}
	case 26:
		o.Kind, o.Len = Truncate, rng.Int64N(min(2*size+1, maxSize))
	case 27:
		o.Kind, o.Off, o.Len = Punch, rng.Int64N(size+1), 1+rng.Int64N(20_000)
	case 28:
		o.Kind, o.To = Copy, pick(files)
		if m.at[o.To] == m.at[o.Path] {
			o.Kind, o.To = Read, ""
		}
	default:
		return m.dress(o, rng, k)
	}
	if o.Kind == Write || o.Kind == Append {
		if o.Off+o.Len > 2*maxSize {
			o.Kind, o.Off, o.Len = Truncate, 0, rng.Int64N(size)
		}
	}
	return o
}

// look chooses an operation that changes nothing.
func (m *model) look(o Op, rng *rand.Rand, dirs, files []string) Op {
	o.Path = files[rng.IntN(len(files))]
	all := m.sorted("")
	switch rng.IntN(10) {
	case 0, 1, 2:
		o.Kind = Read
	case 3, 4:
		o.Kind, o.Path = Stat, all[rng.IntN(len(all))]
	case 5, 6:
		o.Kind, o.Path = List, dirs[rng.IntN(len(dirs))]
	case 7:
		o.Kind, o.Path = Missing, o.fresh(dirs[rng.IntN(len(dirs))])
	case 8:
		o.Kind = Xattrs
	case 9:
		o.Kind = Stat
		if links := m.sorted(symlink); len(links) > 0 {
			o.Kind, o.Path = Readlink, links[rng.IntN(len(links))]
		}
	}
	return o
}

// dress chooses a change of attributes.
func (m *model) dress(o Op, rng *rand.Rand, k int) Op {
	paths := slices.DeleteFunc(m.sorted(""), func(p string) bool { return m.at[p].kind == symlink })
	o.Path = paths[rng.IntN(len(paths))]
	o.Kind = []Kind{Chmod, Chown, Utimes, SetXattr, DelXattr}[k%5]
	return o
}
