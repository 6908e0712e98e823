package shadow

import (
	"context"
	"errors"
	"fmt"
	"sort"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fsmigrate/fsmigrate/copier"
)

// chunk is how many entries of a directory one task handles: enough to keep its
// directory open cheaply, few enough to spread a directory of 500,000 over the workers.
const chunk = 256

// entry is one name of a directory.
type entry struct {
	name string
	ino  uint64
	typ  uint8 // DT_*
}

// listing is a directory's entries, sorted by name. Names share one arena, so
// that a directory of 500,000 entries costs tens of megabytes and no garbage.
func (p *pair) listing(fd int, w *worker, root bool) ([]entry, error) {
	var out []entry
	var names arena
	err := copier.ListDir(fd, w.bufs, func(d copier.Dirent) error {
		if root && p.ours(d.Name) {
			return nil
		}
		out = append(out, entry{name: names.keep(d.Name), ino: d.Ino, typ: d.Type})
		return nil
	})
	sort.Slice(out, func(i, j int) bool { return out[i].name < out[j].name })
	return out, err
}

// reconcile makes the entries of directory n on `to` equal to those on `from`.
// It looks objects up by identity, so that a rename is a rename whatever is
// below it; what is new it copies, with all that is below it.
func (p *pair) reconcile(ctx context.Context, w *worker, n Node) error {
	names, some := p.names.take(n)
	err := p.reconcileNames(ctx, w, n, names, some)
	if err != nil {
		p.names.allOf(n) // also after a whole comparison: what it did not come to is in no list
	}
	if errors.Is(err, errUnread) {
		return nil
	}
	return err
}

// errUnread says that a directory of `from` could not be read, and that this was recorded.
var errUnread = errors.New("directory cannot be read")

func (p *pair) reconcileNames(ctx context.Context, w *worker, n Node, names map[string]struct{}, some bool) error {
	rec, known, err := p.nodes.Get(n)
	if err != nil || !known {
		return err // not copied yet: its parent's reconciliation will, with all below it
	}
	from, err := p.from.open(n, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOATIME)
	if vanished(err) {
		return nil // its parent's reconciliation takes its name away
	}
	if errors.Is(err, unix.ENOTDIR) {
		return p.remake(n) // an object never changes its type: the record is wrong
	}
	if err != nil {
		return errors.Join(errUnread, p.sourceFailed(n, "open", err))
	}
	defer unix.Close(from)
	to, err := p.to.open(rec.To, unix.O_RDONLY|unix.O_DIRECTORY)
	if vanished(err) {
		return p.lostTarget(n, from)
	}
	if err != nil {
		return &copier.TargetError{Op: "open directory", Off: -1, Err: err}
	}
	defer unix.Close(to)
	state, err := p.statDir(from, n)
	if err != nil {
		return errors.Join(errUnread, p.sourceFailed(n, "stat", err))
	}
	if err := p.undress(to); err != nil {
		return err
	}
	p.dressLater(n)
	// The fingerprint is the one from before the listing: a change since then shows.
	left := &entriesLeft{all: func() { p.settleDir(n, state) }}
	left.n.Store(1)
	d := &dirTask{p: p, node: n, from: from, to: to, root: n == p.from.root, left: left}
	if some {
		err = d.namesOnly(ctx, w, names)
	} else {
		err = d.whole(ctx, w)
	}
	if err != nil {
		return err
	}
	left.done()
	return nil
}

// dirTask is one directory while its entries are made equal.
type dirTask struct {
	p        *pair
	node     Node
	from, to int
	root     bool
	left     *entriesLeft // nil: large files are copied by this task
	crowded  []crowdedName
}

// crowdedName is a name that found its directory full on `to`.
type crowdedName struct {
	node Node
	name string
}

func (d *dirTask) whole(ctx context.Context, w *worker) error {
	have, err := d.p.listing(d.to, w, d.root)
	if err != nil {
		return &copier.TargetError{Op: "list directory", Off: -1, Err: err}
	}
	want, err := d.p.listing(d.from, w, d.root)
	if err != nil {
		return errors.Join(errUnread, d.p.sourceFailed(d.node, "list", err))
	}
	i := 0
	for _, h := range have {
		for i < len(want) && want[i].name < h.name {
			i++
		}
		if i < len(want) && want[i].name == h.name {
			continue
		}
		if err := d.remove(h.name); err != nil {
			return err
		}
	}
	// In inode order: the disk likes it better than the order of names.
	sort.Slice(want, func(i, j int) bool { return want[i].ino < want[j].ino })
	for k, e := range want {
		if k%chunk == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		if err := d.place(ctx, w, e.name, e.typ); err != nil {
			return err
		}
	}
	return nil
}

// namesOnly makes the named entries equal. Those that are there come first: a renamed object
// is moved from its old name to the new one, and not through limbo.
func (d *dirTask) namesOnly(ctx context.Context, w *worker, names map[string]struct{}) error {
	var gone []string
	for name := range names {
		there, err := d.placeNow(ctx, w, name)
		if err != nil {
			return err
		}
		if !there {
			gone = append(gone, name)
		}
	}
	for _, name := range gone {
		if err := d.remove(name); err != nil {
			return err
		}
	}
	if len(gone) == 0 {
		return nil
	}
	// What went made room in a directory that was as full as the target allows.
	again := d.crowded
	d.crowded = nil
	for _, c := range again {
		d.p.againNow(c.node)
		if _, err := d.placeNow(ctx, w, c.name); err != nil {
			return err
		}
	}
	return nil
}

// placeNow is place for a name that was not listed. It says whether `from` has it.
func (d *dirTask) placeNow(ctx context.Context, w *worker, name string) (there bool, err error) {
	if d.root && d.p.ours(name) {
		return true, nil
	}
	var st unix.Stat_t
	err = unix.Fstatat(d.from, name, &st, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	if err != nil {
		return true, d.p.sourceFailed(d.node, "stat "+name+" in", err)
	}
	return true, d.place(ctx, w, name, uint8(st.Mode&unix.S_IFMT>>12))
}

// remove takes a name away that `from` does not have (any more).
func (d *dirTask) remove(name string) error {
	to, err := d.p.to.codec.NodeAt(d.to, name, 0)
	if vanished(err) {
		return nil
	}
	if err != nil {
		return &copier.TargetError{Op: "look up " + name, Off: -1, Err: err}
	}
	if _, kept := d.p.kept[to]; kept {
		return nil
	}
	return d.p.toLimbo(d.to, name, to)
}

// place makes name of the directory on `to` the counterpart of what it is on `from`.
func (d *dirTask) place(ctx context.Context, w *worker, name string, typ uint8) error {
	p := d.p
	n, err := p.from.codec.NodeAt(d.from, name, 0)
	if vanished(err) {
		return nil // the event of its removal marks this directory again
	}
	if errors.Is(err, ErrForeign) {
		return p.refuse("subvolume", d.pathOf(name), "it is a subvolume of its own, which this tracker does not follow")
	}
	if err != nil {
		return p.sourceFailed(d.node, "look up "+name+" in", err)
	}
	l := p.lock(n)
	l.Lock()
	defer l.Unlock()
	rec, known, err := p.get(n)
	if err != nil {
		return err
	}
	have, err := p.to.codec.NodeAt(d.to, name, 0)
	switch {
	case err == nil && known && have == rec.To:
		if rec.Type == unix.S_IFDIR>>12 && (rec.Parent.IsZero() || rec.Name != name) {
			return p.recordPlace(n, d.to, name)
		}
		return nil
	case err == nil && d.root && name == lostFound && typ == unix.DT_DIR:
		return p.adopt(w, n, have, d.to, name) // mkfs made one of its own
	case err == nil:
		if err := p.toLimbo(d.to, name, have); err != nil {
			return err
		}
	case !vanished(err):
		return &copier.TargetError{Op: "look up " + name, Off: -1, Err: err}
	}
	if known {
		err := d.fetch(n, &rec, name)
		if !vanished(err) {
			return err
		}
		if err := p.drop(n); err != nil { // a power cut took it from `to`
			return err
		}
	}
	return p.create(ctx, w, d, n, name, typ)
}

// fetch gives a counterpart that exists already the name it has on `from` now.
// An error for which vanished holds says that the counterpart does not exist.
func (d *dirTask) fetch(n Node, rec *Record, name string) error {
	p := d.p
	fd, err := p.to.open(rec.To, unix.O_PATH|unix.O_NOFOLLOW)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if rec.Type == unix.S_IFDIR>>12 {
		return d.fetchDir(n, rec, fd, name)
	}
	if err := p.undress(fd); err != nil {
		return err
	}
	p.journal.Mark(n, Attrs|Firm) // no scan of `from` would find what we undressed
	if err := p.touch("link"); err != nil {
		return err
	}
	limbo, err := p.limboAt(false)
	if err != nil {
		return err
	}
	err = unix.ENOENT
	if limbo >= 0 {
		err = unix.Renameat2(limbo, limboName(rec.To), d.to, name, unix.RENAME_NOREPLACE)
	}
	if errors.Is(err, unix.ENOENT) {
		err = unix.Linkat(fd, "", d.to, name, unix.AT_EMPTY_PATH)
	}
	if errors.Is(err, unix.ENOENT) {
		return ErrGone // its last name is gone
	}
	if errors.Is(err, unix.EMLINK) {
		return d.tooManyLinks(n, name)
	}
	if err != nil {
		return &copier.TargetError{Op: "link " + name, Off: -1, Err: err}
	}
	return nil
}

// fetchDir moves a directory with all that is below it: one rename.
func (d *dirTask) fetchDir(n Node, rec *Record, fd int, name string) error {
	p := d.p
	if err := p.undress(fd); err != nil {
		return err
	}
	p.dressLater(n)
	parent, old, err := p.whereDir(rec, fd)
	if err != nil {
		return err
	}
	defer unix.Close(parent)
	if err := p.undressParent(parent); err != nil {
		return err
	}
	if err := p.touch("rename"); err != nil {
		return err
	}
	err = unix.Renameat2(parent, old, d.to, name, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EINVAL) {
		// The place is below the directory itself on `to`: something between the two has
		// moved on `from`. This directory goes to limbo first, and to where it
		// belongs when its parent is compared, name by name.
		if err := p.evict(d); err != nil {
			return err
		}
		err = unix.Renameat2(parent, old, d.to, name, unix.RENAME_NOREPLACE)
	}
	if errors.Is(err, unix.EMLINK) {
		return p.crowdedOut(d, n, name)
	}
	if err != nil {
		return &copier.TargetError{Op: "rename " + name, Off: -1, Err: err}
	}
	p.left.remove(n)
	return p.recordPlace(n, d.to, name)
}

// evict moves the directory that is being compared to limbo and has it fetched from there.
func (p *pair) evict(d *dirTask) error {
	rec, known, err := p.nodes.Get(d.node)
	if err != nil || !known {
		return fmt.Errorf("evict directory %d: no record: %w", d.node.Ino, err)
	}
	parent, name, err := p.whereDir(&rec, d.to)
	if err != nil {
		return err
	}
	defer unix.Close(parent)
	if err := p.undressParent(parent); err != nil {
		return err
	}
	if err := p.toLimbo(parent, name, rec.To); err != nil {
		return err
	}
	above, err := p.from.codec.NodeAt(d.from, "..", 0)
	if err != nil {
		return p.sourceFailed(d.node, "look up the parent of", err)
	}
	p.names.allOf(above)
	p.journal.Mark(above, Entries)
	return nil
}

// whereDir finds the name that a directory has on `to` now: the recorded one where it
// is still right, else by asking its parent. The caller closes the descriptor.
func (p *pair) whereDir(rec *Record, fd int) (parent int, name string, err error) {
	parent, err = unix.Openat(fd, "..", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, "", &copier.TargetError{Op: "open parent", Off: -1, Err: err}
	}
	for _, guess := range []string{rec.Name, limboName(rec.To)} {
		if guess == "" {
			continue
		}
		if n, err := p.to.codec.NodeAt(parent, guess, 0); err == nil && n == rec.To {
			return parent, guess, nil
		}
	}
	err = copier.ListDir(parent, copier.NewBuffers(), func(e copier.Dirent) error {
		if e.Ino != rec.To.Ino {
			return nil
		}
		if n, err := p.to.codec.NodeAt(parent, e.Name, 0); err == nil && n == rec.To {
			name = strings.Clone(e.Name)
		}
		return nil
	})
	if err == nil && name == "" {
		err = ErrGone
	}
	if err != nil {
		unix.Close(parent)
		return -1, "", err
	}
	return parent, name, nil
}

// undressParent makes a directory of `to` changeable and has it dressed again.
func (p *pair) undressParent(fd int) error {
	n, err := p.to.codec.NodeAt(fd, "", unix.AT_EMPTY_PATH)
	if err != nil {
		return &copier.TargetError{Op: "identify parent", Off: -1, Err: err}
	}
	p.limboMu.Lock()
	limbo := p.limbo
	p.limboMu.Unlock()
	if n == limbo {
		return nil
	}
	if from, ok, err := p.nodes.From(n); err != nil {
		return err
	} else if ok {
		p.dressLater(from)
	}
	return p.undress(fd)
}

// lostTarget forgets a counterpart that a power cut took, and has it made anew.
func (p *pair) lostTarget(n Node, from int) error {
	if err := p.drop(n); err != nil {
		return err
	}
	above, err := p.from.codec.NodeAt(from, "..", 0)
	if err != nil {
		return p.sourceFailed(n, "look up the parent of", err)
	}
	if above == n {
		return &copier.TargetError{Op: "open root", Off: -1, Err: ErrGone}
	}
	p.names.allOf(above)
	p.journal.Mark(above, Entries)
	return nil
}

func (d *dirTask) pathOf(name string) string { return fdPath(d.from) + "/" + name }

// lostFound is the directory that ext's mkfs and e2fsck keep in every root.
const lostFound = "lost+found"

// ours reports whether a name of a root is not the application's: limbo, and
// the lost+found that only one of the formats has.
func (p *pair) ours(name string) bool {
	return name == p.limboDir || (name == lostFound && p.skipLostFound.Load())
}
