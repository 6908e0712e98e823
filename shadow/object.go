package shadow

import (
	"context"
	"errors"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fsmigrate/fsmigrate/copier"
	"github.com/fsmigrate/fsmigrate/migrate"
)

// create makes the counterpart of n, which has none yet, under name of d.
func (p *pair) create(ctx context.Context, w *worker, d *dirTask, n Node, name string, typ uint8) error {
	// The type is the listing's, and another object may have the name by now: each of
	// these looks at n itself before it makes something of that type.
	switch typ {
	case unix.DT_REG:
		return p.createFile(ctx, w, d, n, name)
	case unix.DT_DIR:
		return p.createDir(w, d, n, name)
	case unix.DT_UNKNOWN:
		var st unix.Stat_t
		if err := unix.Fstatat(d.from, name, &st, unix.AT_SYMLINK_NOFOLLOW); vanished(err) {
			return nil
		} else if err != nil {
			return p.sourceFailed(d.node, "stat "+name+" in", err)
		}
		return p.create(ctx, w, d, n, name, uint8(st.Mode&unix.S_IFMT>>12))
	default:
		return p.createOther(w, d, n, name)
	}
}

// reader is an object of `from` that is being copied, with what was true before
// its content was read: a change since then shows in ctime, or was heard.
type reader struct {
	fd     int
	attr   copier.Attr
	at     time.Time // before attr was read
	synced bool      // its holes can be trusted
}

// read reads the attributes of a file that is about to be read, after the sync that
// makes a later store through a mapping visible in its ctime (FACTS: "Times as
// a second witness"), and that makes its holes true.
func (p *pair) read(w *worker, fd int) (reader, error) {
	r := reader{fd: fd, at: time.Now()}
	var err error
	r.attr, err = copier.ReadAttr(fd, w.bufs)
	if err != nil || r.attr.Mode&unix.S_IFMT != unix.S_IFREG {
		return r, err
	}
	sparse := r.attr.Blocks*512 < r.attr.Size
	if !sparse && !p.young(r.attr.Ctime.Sec, uint32(r.attr.Ctime.Nsec)) {
		return r, nil
	}
	// The stamp is judged by the moment before the sync: a page that was written early in
	// it may be dirty again at its end, and the next store into it moves no ctime.
	r.at = time.Now()
	if err := unix.Fdatasync(fd); err != nil && !errors.Is(err, unix.EROFS) && !errors.Is(err, unix.EBADF) {
		if err := p.lostData(fdPath(fd), "its data could not be written to the source device: "+err.Error()); err != nil {
			return r, err
		}
	}
	if err := p.touch("source-synced"); err != nil {
		return r, err
	}
	r.synced = true
	r.attr, err = copier.ReadAttr(fd, w.bufs)
	return r, err
}

// print is the fingerprint of what was read; zero when it would prove nothing yet.
func (p *pair) print(n Node, r *reader) Print {
	if p.isRacy(r.attr.Ctime.Sec, uint32(r.attr.Ctime.Nsec), r.at) {
		return 0
	}
	return p.printOf(n, &r.attr)
}

func (p *pair) printOf(n Node, a *copier.Attr) Print {
	return PrintOf(n.Gen, a.Ctime.Sec, uint32(a.Ctime.Nsec), uint64(a.Size), a.Mode, a.Nlink)
}

// record remembers a copied object. It comes after all writes to `to`.
func (p *pair) record(w *worker, n Node, rec *Record, r *reader) error {
	rec.Epoch = p.epoch.Load()
	rec.Type = uint8(r.attr.Mode & unix.S_IFMT >> 12)
	p.left.remove(n)
	if !p.fails.empty() {
		p.fails.clearNode(n, isUnread)
	}
	rec.Size = r.attr.Size
	rec.Print = p.print(n, r)
	p.unverify(rec)
	rec.Flags &^= Racy
	if rec.Print == 0 {
		rec.Flags |= Racy
		p.markRacy(n, r.at)
	}
	p.prints.Set(n.Ino, p.printOf(n, &r.attr))
	if rec.Print == 0 && !p.fenced {
		p.prints.Set(n.Ino, 0)
	}
	p.fresh.add(n)
	if w != nil && r.attr.Nlink == 1 && rec.Type != unix.S_IFDIR>>12 {
		return w.put(p, n, rec)
	}
	if p.pending.amend(n, rec) {
		return nil
	}
	return p.nodes.Put(n, rec)
}

// createFile copies a file that `to` does not have.
func (p *pair) createFile(ctx context.Context, w *worker, d *dirTask, n Node, name string) error {
	src, err := d.openFile(name)
	if err != nil {
		var st unix.Stat_t
		if unix.Fstatat(d.from, name, &st, unix.AT_SYMLINK_NOFOLLOW) == nil && st.Mode&unix.S_IFMT != unix.S_IFREG {
			p.redo(d, name) // a device has the name by now, which this mount does not open
			return nil
		}
		return p.vanishedOr(d, name, "open", err)
	}
	defer unix.Close(src)
	if same, err := p.from.codec.NodeAt(src, "", unix.AT_EMPTY_PATH); err != nil || same != n {
		p.redo(d, name) // another object has the name by now
		return nil
	}
	return p.copyFile(ctx, w, d, n, name, src)
}

// copyFile is createFile for n opened as src.
func (p *pair) copyFile(ctx context.Context, w *worker, d *dirTask, n Node, name string, src int) error {
	r, err := p.read(w, src)
	if err != nil {
		p.unread(d, n, name)
		return p.sourceUnread(n, d.pathOf(name), "read attributes of", err)
	}
	if !r.attr.IsRegular() {
		p.redo(d, name) // it took the name since it was listed
		return nil
	}
	if d.left != nil && r.attr.Size >= largeFile {
		d.later(w, name)
		return nil
	}
	want, ok := p.fitted(n, fdName{d.from, name}, &r.attr)
	if !ok {
		return p.unfit(d, n, name)
	}
	if err := p.touch("create"); err != nil {
		return err
	}
	dst, err := p.makeFile(d, name, want.Mode&0o777)
	if err != nil {
		return err
	}
	defer unix.Close(dst)
	if want.Flags != 0 || want.XFlags != 0 {
		if err := copier.Prime(dst, want, p.dressOptions(w.bufs)); err != nil {
			return err
		}
	}
	res, err := p.content(ctx, w, n, &r, dst, nil, false)
	if err == nil {
		err = p.extras(ctx, &r, dst)
	}
	if err != nil {
		if err := p.contentFailed(n, src, err); err != nil {
			return err
		}
		p.unread(d, n, name)
		return p.discardPart(d, name)
	}
	if err := p.dress(w, dst, &want); err != nil {
		return err
	}
	to, err := p.to.codec.NodeAt(dst, "", unix.AT_EMPTY_PATH)
	if err != nil {
		return &copier.TargetError{Op: "identify " + name, Off: -1, Err: err}
	}
	rec := Record{To: to, Digest: res.Digest}
	p.copied(1, res.Read)
	return p.record(w, n, &rec, &r)
}

// makeFile creates an empty file. A leftover of a crash in its place goes to limbo. The
// mode is the final one where the umask leaves it, which saves dressing a transaction;
// nobody else can reach the file through a private mount.
func (p *pair) makeFile(d *dirTask, name string, mode uint32) (int, error) {
	const flags = unix.O_CREAT | unix.O_EXCL | unix.O_RDWR | unix.O_NOFOLLOW | unix.O_CLOEXEC
	dst, err := unix.Openat(d.to, name, flags, mode)
	if errors.Is(err, unix.EEXIST) {
		if err := p.displace(d, name); err != nil {
			return -1, err
		}
		dst, err = unix.Openat(d.to, name, flags, mode)
	}
	if err != nil {
		return -1, &copier.TargetError{Op: "create " + name, Off: -1, Err: err}
	}
	return dst, nil
}

// displace moves what has a name on `to`, and should not, to limbo.
func (p *pair) displace(d *dirTask, name string) error {
	old, err := p.to.codec.NodeAt(d.to, name, 0)
	if err != nil {
		return &copier.TargetError{Op: "look up " + name, Off: -1, Err: err}
	}
	return p.toLimbo(d.to, name, old)
}

// createDir makes a directory and has its entries copied by tasks of their own.
func (p *pair) createDir(w *worker, d *dirTask, n Node, name string) error {
	// By its handle: a record that calls a file a directory would go with it to every new name.
	src, err := p.from.open(n, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW)
	if vanished(err) || errors.Is(err, unix.ENOTDIR) {
		p.redo(d, name)
		return nil
	}
	if err != nil {
		return p.sourceFailedAt(n, d.pathOf(name), "open", err)
	}
	unix.Close(src)
	if _, ok := p.fitted(n, fdName{d.from, name}, nil); !ok {
		return p.unfit(d, n, name)
	}
	if err := p.touch("mkdir"); err != nil {
		return err
	}
	err = unix.Mkdirat(d.to, name, 0o700)
	if errors.Is(err, unix.EEXIST) {
		if err := p.displace(d, name); err != nil {
			return err
		}
		err = unix.Mkdirat(d.to, name, 0o700)
	}
	if errors.Is(err, unix.EMLINK) {
		return p.crowded(d, n, name)
	}
	if err != nil {
		return &copier.TargetError{Op: "make directory " + name, Off: -1, Err: err}
	}
	to, err := p.to.codec.NodeAt(d.to, name, 0)
	if err != nil {
		return &copier.TargetError{Op: "identify " + name, Off: -1, Err: err}
	}
	return p.adopt(w, n, to, d.to, name)
}

// adopt makes an empty (or mkfs's own) directory the counterpart of n and has it
// filled. Until it is, its record has no print: a crash leaves it dirty.
func (p *pair) adopt(w *worker, n, to Node, parent int, name string) error {
	above, err := p.to.codec.NodeAt(parent, "", unix.AT_EMPTY_PATH)
	if err != nil {
		return &copier.TargetError{Op: "identify parent of " + name, Off: -1, Err: err}
	}
	p.left.remove(n)
	rec := Record{To: to, Type: unix.S_IFDIR >> 12, Parent: above, Name: name, Epoch: p.epoch.Load()}
	if err := p.nodes.Put(n, &rec); err != nil {
		return err
	}
	w.push(func(ctx context.Context, w *worker) error { return p.fill(ctx, w, n, to) })
	return nil
}

// createOther makes a symbolic link, FIFO, socket or device.
func (p *pair) createOther(w *worker, d *dirTask, n Node, name string) error {
	src, err := copier.OpenBeneath(d.from, name, unix.O_PATH|unix.O_NOFOLLOW, 0)
	if err != nil {
		return p.vanishedOr(d, name, "open", err)
	}
	defer unix.Close(src)
	if same, err := p.from.codec.NodeAt(src, "", unix.AT_EMPTY_PATH); err != nil || same != n {
		p.redo(d, name)
		return nil
	}
	r, err := p.read(w, src)
	if err != nil {
		p.unread(d, n, name)
		return p.sourceUnread(n, d.pathOf(name), "read attributes of", err)
	}
	if r.attr.IsRegular() || r.attr.IsDir() {
		p.redo(d, name) // it took the name since it was listed
		return nil
	}
	target := ""
	if r.attr.Mode&unix.S_IFMT == unix.S_IFLNK {
		if target, err = copier.ReadLink(src, w.bufs); err != nil {
			p.unread(d, n, name)
			return p.sourceUnread(n, d.pathOf(name), "read link", err)
		}
	}
	want, ok := p.fitted(n, fdName{d.from, name}, &r.attr)
	if !ok {
		return p.unfit(d, n, name)
	}
	make := func() error {
		if r.attr.Mode&unix.S_IFMT == unix.S_IFLNK {
			return unix.Symlinkat(target, d.to, name)
		}
		return unix.Mknodat(d.to, name, r.attr.Mode&unix.S_IFMT|0o600, int(r.attr.Rdev))
	}
	if err := p.touch("make"); err != nil {
		return err
	}
	err = make()
	if errors.Is(err, unix.EEXIST) {
		if err := p.displace(d, name); err != nil {
			return err
		}
		err = make()
	}
	if err != nil {
		return &copier.TargetError{Op: "make " + name, Off: -1, Err: err}
	}
	dst, err := unix.Openat(d.to, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return &copier.TargetError{Op: "open " + name, Off: -1, Err: err}
	}
	defer unix.Close(dst)
	if err := p.dress(w, dst, &want); err != nil {
		return err
	}
	to, err := p.to.codec.NodeAt(dst, "", unix.AT_EMPTY_PATH)
	if err != nil {
		return &copier.TargetError{Op: "identify " + name, Off: -1, Err: err}
	}
	p.copied(1, 0)
	return p.record(w, n, &Record{To: to}, &r)
}

// update makes the content and the attributes of an object equal that has a
// counterpart already. Directories' entries are reconcile's.
func (p *pair) update(ctx context.Context, w *worker, n Node, what What) error {
	l := p.lock(n)
	l.Lock()
	defer l.Unlock()
	rec, known, err := p.nodes.Get(n)
	if err != nil || !known {
		return err
	}
	isFile := rec.Type == unix.S_IFREG>>12
	flags := unix.O_PATH | unix.O_NOFOLLOW
	if isFile {
		flags = unix.O_RDONLY | unix.O_NOATIME | unix.O_NONBLOCK | unix.O_NOFOLLOW
	}
	src, err := p.from.open(n, flags)
	if vanished(err) {
		return nil // its directory's comparison takes its name away
	}
	if errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENXIO) {
		return p.remake(n) // no file: the record is wrong
	}
	if err != nil {
		return p.sourceFailed(n, "open", err)
	}
	defer unix.Close(src)
	if rec.Type == unix.S_IFDIR>>12 {
		p.dressLater(n)
		return nil
	}
	r, err := p.read(w, src)
	if err != nil {
		return p.sourceFailed(n, "read attributes of", err)
	}
	if uint8(r.attr.Mode&unix.S_IFMT>>12) != rec.Type {
		return p.remake(n)
	}
	want, ok := p.fitted(n, fdName{fd: src}, &r.attr)
	if !ok {
		return p.outdated(n, &rec, p.onLoss == nil && !p.fails.has(n))
	}
	if p.left.thin(n) {
		p.allDirs.Store(true) // any of them may have a name of it that found no place
	}
	dst, err := p.openTarget(rec.To, isFile)
	if vanished(err) {
		return p.remake(n)
	}
	if err != nil {
		return err
	}
	defer unix.Close(dst)
	// An event about attributes moves the ctime as a store through a mapping does, which makes
	// no event: only an unchanged fingerprint says that the content is what was copied.
	same := rec.Print != 0 && p.printOf(n, &r.attr) == rec.Print
	if isFile && (what&(Data|Object) != 0 || !same) {
		res, err := p.content(ctx, w, n, &r, dst, &rec, what&Object != 0)
		if err == nil {
			err = p.extras(ctx, &r, dst)
		}
		if err != nil {
			if err := p.contentFailed(n, src, err); err != nil {
				return err
			}
			return p.outdated(n, &rec, p.waived != nil && p.waived(unreadable))
		}
		rec.Digest, rec.Flags = res.Digest, rec.Flags&^(NoDigest|Doubted)
		p.copied(0, res.Read)
	}
	if err := p.dress(w, dst, &want); err != nil {
		return err
	}
	return p.record(nil, n, &rec, &r)
}

// openTarget opens a counterpart so that it can be changed.
func (p *pair) openTarget(to Node, file bool) (int, error) {
	fd, err := p.to.open(to, unix.O_PATH|unix.O_NOFOLLOW)
	if err != nil {
		if vanished(err) {
			return -1, err
		}
		return -1, &copier.TargetError{Op: "open", Off: -1, Err: err}
	}
	if err := p.undress(fd); err != nil {
		unix.Close(fd)
		return -1, err
	}
	if !file {
		return fd, nil
	}
	unix.Close(fd)
	fd, err = p.to.open(to, unix.O_RDWR|unix.O_NOFOLLOW)
	if err != nil {
		return -1, &copier.TargetError{Op: "open for writing", Off: -1, Err: err}
	}
	return fd, nil
}

// remake forgets a counterpart that a power cut took, or that is of another type. Which directories name it is
// not known from the object, so all of them are compared again.
func (p *pair) remake(n Node) error {
	p.allDirs.Store(true)
	return p.drop(n)
}

// drop forgets that n has a counterpart.
func (p *pair) drop(n Node) error {
	if p.pending.amend(n, nil) {
		p.settled(n)
		p.prints.Delete(n.Ino)
		return nil
	}
	rec, known, err := p.nodes.Get(n)
	if err != nil || !known {
		return err
	}
	p.unverify(&rec)
	p.settled(n)
	p.prints.Delete(n.Ino)
	return p.nodes.Delete(n)
}

// undress clears what would keep an object of `to` from being changed.
func (p *pair) undress(fd int) error {
	b := spareBuffers.Get().(*copier.Buffers)
	defer spareBuffers.Put(b)
	a, err := copier.ReadAttr(fd, b)
	if err != nil {
		return &copier.TargetError{Op: "read attributes", Off: -1, Err: err}
	}
	if err := p.touch("undress"); err != nil {
		return err
	}
	if err := copier.Undress(fd, a); err != nil {
		return &copier.TargetError{Op: "undress", Off: -1, Err: err}
	}
	return nil
}

// spareBuffers are for what no worker does, or not with its own.
var spareBuffers = sync.Pool{New: func() any { return copier.NewBuffers() }}

func (p *pair) copied(objects, bytes int64) {
	p.objects.Add(objects)
	p.bytes.Add(bytes)
}

// redo has a name looked at again whose object changed while it was looked at.
func (p *pair) redo(d *dirTask, name string) {
	p.names.add(d.node, name)
	p.journal.Mark(d.node, Entries)
}

// vanishedOr is for a name that could not be opened: it vanished or changed its type,
// or the source is damaged.
func (p *pair) vanishedOr(d *dirTask, name, op string, err error) error {
	if vanished(err) || errors.Is(err, unix.ENOTDIR) {
		return nil
	}
	if errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENXIO) || errors.Is(err, unix.EXDEV) {
		p.redo(d, name)
		return nil
	}
	return p.sourceFailedAt(d.node, d.pathOf(name), op, err)
}

// contentFailed tells a file of the source that cannot be read, which is named and
// left behind, from a target that fails, which ends the pass.
func (p *pair) contentFailed(n Node, src int, err error) error {
	var s *copier.SourceError
	if errors.As(err, &s) {
		return p.sourceUnread(n, fdPath(src), "read", err)
	}
	return err
}

// retryAfter is how long an object that could not be read, or not be placed, is left alone.
const retryAfter = 30 * time.Second

func (p *pair) sourceFailed(n Node, op string, err error) error {
	return p.sourceFailedAt(n, p.from.nodePath(n), op, err)
}

func (p *pair) sourceFailedAt(n Node, path, op string, err error) error {
	return p.sourceLost(n, migrate.Blocker{Class: unreachable, Object: path, Why: op + ": " + err.Error(), Firm: true,
		Hint: "repair or remove it: what cannot even be looked at cannot be left behind by name, so no waiver helps"})
}

// sourceUnread names an object that is left behind when the plan waives that.
func (p *pair) sourceUnread(n Node, path, op string, err error) error {
	return p.sourceLost(n, migrate.Blocker{Class: unreadable, Object: path, Why: op + ": " + err.Error(),
		Hint: "repair or remove it, or waive the class source-unreadable to leave it behind: abort, then run again with --waive source-unreadable=REASON"})
}

func (p *pair) sourceLost(n Node, b migrate.Blocker) error {
	p.fails.addNode(n, b)
	p.againLater(n)
	return nil
}

// againLater has n looked at again after a while, although nothing is heard of it.
func (p *pair) againLater(n Node) {
	p.racyMu.Lock()
	p.racy[n] = time.Now().Add(retryAfter)
	p.racyMu.Unlock()
}

// againNow takes back againLater: n is looked at in the next pass.
func (p *pair) againNow(n Node) {
	p.racyMu.Lock()
	p.racy[n] = time.Time{}
	p.racyMu.Unlock()
}

// refuse names an object that the target cannot hold.
func (p *pair) refuse(class, path, why string) error {
	p.fails.add(migrate.Blocker{Class: class, Object: path, Why: why,
		Hint: "change it on the source, or waive the class " + class})
	return nil
}
