package pledge

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"

	"golang.org/x/sys/unix"
)

// History is everything that the workers did: models of any moment come of it.
type History struct{ byWorker [][]Op }

// ReadHistory reads the log of an application.
func ReadHistory(log string) (*History, error) {
	ops, err := ReadLog(log)
	return &History{ops}, err
}

// Script makes the history that workers with the seed have made who acknowledged so many
// operations each, and perhaps began one more: for a log that is gone with its machine.
func Script(seed uint64, acked []int) (*History, error) {
	h := &History{}
	for w, n := range acked {
		m, ops := NewModel(w), []Op(nil)
		for range n + 1 {
			op := mixes["files"].next(seed, m)
			if err := m.Apply(op); err != nil {
				return nil, err
			}
			ops = append(ops, op)
		}
		h.byWorker = append(h.byWorker, ops)
	}
	return h, nil
}

// Workers is how many there are.
func (h *History) Workers() int { return len(h.byWorker) }

// expected is one worker's part of the volume at a cut.
type expected struct {
	model, after *Model
	flying       *Op // may be done, or in part
}

// at is what a worker's part must be when it had acknowledged acked operations.
func (h *History) at(worker, acked int) (expected, error) {
	e := expected{model: NewModel(worker)}
	ops := h.byWorker[worker]
	if acked > len(ops) {
		return e, fmt.Errorf("worker %d acknowledged operation %d, its log has %d", worker, acked, len(ops))
	}
	for _, o := range ops[:acked] {
		if err := e.model.Apply(o); err != nil {
			return e, err
		}
	}
	if acked < len(ops) {
		e.flying, e.after = &ops[acked], e.model.Clone()
		return e, e.after.Apply(ops[acked])
	}
	return e, nil
}

// found is what is at a path of the volume.
type found struct {
	Node
	inode uint64
	links int
}

// Judge compares a volume with what the workers had acknowledged, and answers what is
// wrong. Names at the top that begin with one of foreign are somebody else's.
func (h *History) Judge(dir string, acked []int, foreign ...string) (wrong []string, err error) {
	have, err := look(dir, foreign)
	if err != nil {
		return nil, err
	}
	for w := range h.byWorker {
		e, err := h.at(w, acked[w])
		if err != nil {
			return nil, err
		}
		wrong = append(wrong, e.judge(have)...)
	}
	for p := range have {
		wrong = append(wrong, p+unexpected)
	}
	sort.Strings(wrong)
	return wrong, nil
}

const unexpected = ": nobody made it, or it was removed"

// Revived says of something that is wrong that it is nothing but one name too many: the
// one under which a replacement was written, which was renamed since.
func Revived(wrong string) bool { return strings.HasSuffix(wrong, newSuffix+unexpected) }

// judge takes what belongs to the worker out of have.
func (e expected) judge(have map[string]found) (wrong []string) {
	loose := map[string]bool{}
	if e.flying != nil {
		for _, p := range []string{e.flying.Path, e.flying.To, e.flying.newTmp()} {
			loose[p] = true
		}
		for _, p := range e.model.names(e.flying.Path) {
			loose[p] = true
		}
		wrong = append(wrong, e.judgeFlying(have)...)
	}
	inodes := map[string]uint64{}
	for p, want := range e.model.Nodes {
		got, there := have[p]
		delete(have, p)
		switch {
		case loose[p]:
			continue
		case !there:
			wrong = append(wrong, fmt.Sprintf("%s: acknowledged, and not there", p))
			continue
		}
		for _, d := range differences(want, got.Node) {
			wrong = append(wrong, p+": "+d)
		}
		if want.Type == File {
			if other, seen := inodes[want.Object]; seen && other != got.inode {
				wrong = append(wrong, p+": is no longer the same file as its other name")
			}
			inodes[want.Object] = got.inode
			if n := len(e.model.names(p)); n != got.links {
				wrong = append(wrong, fmt.Sprintf("%s: %d links, want %d", p, got.links, n))
			}
		}
	}
	for p := range loose {
		delete(have, p)
	}
	return wrong
}

// judgeFlying holds the one operation that was not acknowledged to what it cannot have
// broken: content that it did not touch, and renames, which are whole or not at all.
func (e expected) judgeFlying(have map[string]found) (wrong []string) {
	o := *e.flying
	bad := func(format string, v ...any) {
		wrong = append(wrong, fmt.Sprintf("%s, during %v: ", o.Path, o)+fmt.Sprintf(format, v...))
	}
	before, existed := e.model.Nodes[o.Path]
	got, there := have[o.Path]
	same := func(want Node) bool { return there && len(differences(want, got.Node)) == 0 }
	switch o.Kind {
	case Create, Mkdir, Symlink:
	case Unlink:
		if there && !same(before) {
			bad("neither there nor gone")
		}
	case Rename:
		to, moved := have[o.To]
		if there == moved || there && !same(before) || moved && len(differences(before, to.Node)) > 0 {
			bad("old name there: %t, new name there: %t, or its content is another", there, moved)
		}
	case Replace:
		if !same(before) && !same(e.after.Nodes[o.Path]) {
			bad("neither the old nor the new content")
		}
	default:
		if !there {
			bad("acknowledged before, and not there")
		} else if existed {
			for _, d := range untouched(o, before, got.Node) {
				bad("%s", d)
			}
		}
	}
	return wrong
}

// untouched compares what an operation on a file's inside leaves alone.
func untouched(o Op, before, got Node) (wrong []string) {
	switch o.Kind {
	case Attr:
		got.Mode, got.Xattr = before.Mode, before.Xattr
		return differences(before, got)
	case Link:
		return differences(before, got)
	}
	from, to := o.Off, o.Off+o.Len
	size := max(int64(len(before.Data)), to)
	if o.Kind == Truncate {
		from, to, size = min(o.Len, int64(len(before.Data))), 1<<62, max(o.Len, int64(len(before.Data)))
	}
	if int64(len(got.Data)) > size || int64(len(got.Data)) < min(int64(len(before.Data)), from) {
		return []string{fmt.Sprintf("%d bytes, had %d", len(got.Data), len(before.Data))}
	}
	for i, b := range before.Data[:min(len(before.Data), len(got.Data))] {
		if (int64(i) < from || int64(i) >= to) && got.Data[i] != b {
			return []string{fmt.Sprintf("byte %d changed", i)}
		}
	}
	if o.Kind != Truncate && o.Kind != Append && len(got.Data) != len(before.Data) {
		return []string{fmt.Sprintf("%d bytes, had %d", len(got.Data), len(before.Data))}
	}
	return nil
}

func differences(want, got Node) (d []string) {
	add := func(what string, want, got any) { d = append(d, fmt.Sprintf("%s %v, want %v", what, got, want)) }
	if want.Type != got.Type {
		add("type", want.Type, got.Type)
		return d
	}
	if !bytes.Equal(want.Data, got.Data) {
		at := 0
		for at < len(want.Data) && at < len(got.Data) && want.Data[at] == got.Data[at] {
			at++
		}
		d = append(d, fmt.Sprintf("%d bytes, want %d; the first difference is at %d", len(got.Data), len(want.Data), at))
	}
	if want.Type == File && want.Mode != got.Mode {
		add("mode", fmt.Sprintf("%o", want.Mode), fmt.Sprintf("%o", got.Mode))
	}
	if want.Xattr != got.Xattr {
		add("xattr", want.Xattr, got.Xattr)
	}
	return d
}

// look reads the whole volume.
func look(dir string, foreign []string) (map[string]found, error) {
	all := map[string]found{}
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || p == dir {
			return err
		}
		rel := strings.TrimPrefix(p, dir+"/")
		if slices.ContainsFunc(foreign, func(f string) bool { return strings.HasPrefix(rel, f) }) {
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		f, err := lookAt(p)
		all[rel] = f
		return err
	})
	return all, err
}

func lookAt(p string) (f found, err error) {
	var st unix.Stat_t
	if err := unix.Lstat(p, &st); err != nil {
		return f, &os.PathError{Op: "lstat", Path: p, Err: err}
	}
	f.inode, f.links = st.Ino, int(st.Nlink)
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		f.Type, f.Mode = Directory, st.Mode&0o7777
	case unix.S_IFLNK:
		to, err := os.Readlink(p)
		f.Type, f.Data = Symbolic, []byte(to)
		return f, err
	case unix.S_IFREG:
		f.Type, f.Mode = File, st.Mode&0o7777
		if f.Data, err = os.ReadFile(p); err != nil {
			return f, err
		}
		b := make([]byte, 256)
		n, err := unix.Lgetxattr(p, "user.pledge", b)
		if err != nil && !errors.Is(err, unix.ENODATA) {
			return f, &os.PathError{Op: "getxattr", Path: p, Err: err}
		}
		f.Xattr = string(b[:max(0, n)])
	default:
		f.Type = Type(fmt.Sprintf("mode %o", st.Mode))
	}
	return f, nil
}
