package shadow

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fsmigrate/fsmigrate/copier"
	"github.com/fsmigrate/fsmigrate/migrate"
)

// freshSet is what was copied since it was last verified, while it is few; more than
// maxFresh is found by going through the node map.
type freshSet struct {
	mu    sync.Mutex
	nodes map[Node]struct{}
	over  bool
}

const maxFresh = 100_000

func (f *freshSet) add(n Node) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.over {
		return
	}
	if f.nodes == nil {
		f.nodes = map[Node]struct{}{}
	}
	f.nodes[n] = struct{}{}
	if len(f.nodes) > maxFresh {
		f.nodes, f.over = nil, true
	}
}

// unknown says that only the node map knows what was not verified.
func (f *freshSet) unknown() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.nodes, f.over = nil, true
}

func (f *freshSet) len() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.over {
		return maxFresh
	}
	return len(f.nodes)
}

// take removes and returns the nodes; ok is false when the node map must be asked.
func (f *freshSet) take() (nodes []Node, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	ok = !f.over
	for n := range f.nodes {
		nodes = append(nodes, n)
	}
	f.nodes, f.over = nil, false
	return nodes, ok
}

// unverify takes the claim from a record that its object changes.
func (p *pair) unverify(rec *Record) {
	if rec.Flags&Verified != 0 {
		rec.Flags &^= Verified
		p.verified.Add(-1)
	}
}

func (p *pair) verifiedCount() int64 { return p.verified.Load() }

// check is one comparison of many objects.
type check struct {
	direct    bool // bypass the cache: what was just written must come from the device
	different atomic.Int64
	bytes     atomic.Int64
	mu        sync.Mutex
	examples  []string
}

func (c *check) differs(path, what string) {
	c.different.Add(1)
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.examples) < 20 {
		c.examples = append(c.examples, path+": "+what)
	}
}

// verifyAll compares every object that is not verified-clean. The caller has mounted
// `to` anew, so that it is read from its device.
func (p *pair) verifyAll(ctx context.Context) (migrate.Proof, error) {
	return p.verifyEach(ctx, new(check))
}

func (p *pair) verifyEach(ctx context.Context, c *check) (migrate.Proof, error) {
	began := time.Now()
	p.fresh.take()
	var tasks []task
	batch := make([]checkNode, 0, chunk)
	flush := func() {
		if len(batch) > 0 {
			tasks = append(tasks, p.checkTask(c, batch))
			batch = make([]checkNode, 0, chunk)
		}
	}
	run := func() error {
		flush()
		err := p.run(ctx, tasks)
		tasks = tasks[:0]
		return err
	}
	err := p.nodes.Iterate(func(n Node, r *Record) error {
		if r.Flags&Verified != 0 {
			return nil
		}
		e := checkNode{Node: n}
		if r.Type == unix.S_IFREG>>12 {
			rec := *r
			e.rec = &rec
		}
		if batch = append(batch, e); len(batch) == chunk {
			flush()
		}
		if len(tasks) >= 64 {
			return run()
		}
		return ctx.Err()
	})
	if err == nil {
		err = run()
	}
	return p.checked(c, began), err
}

// readBack compares what was copied since it was last verified, from the device.
func (p *pair) readBack(ctx context.Context) (migrate.Proof, error) {
	began := time.Now()
	nodes, ok := p.fresh.take()
	c := &check{direct: true}
	if !ok {
		return p.verifyEach(ctx, c)
	}
	var tasks []task
	units := int64(len(nodes))
	for len(nodes) > 0 {
		part := make([]checkNode, min(chunk, len(nodes)))
		for i := range part {
			part[i].Node = nodes[i]
		}
		nodes = nodes[len(part):]
		tasks = append(tasks, p.checkTask(c, part))
	}
	err := p.run(ctx, tasks)
	if err == nil {
		p.learnCheck(time.Since(began), units, c.bytes.Load())
	}
	return p.checked(c, began), err
}

func (p *pair) checked(c *check, began time.Time) migrate.Proof {
	waived, none := p.left.len() // without a record, hence in no count of records
	return migrate.Proof{Kind: "read-back", Objects: p.nodes.Count() + none, Verified: p.verifiedCount(), Waived: waived,
		Different: c.different.Load(), Bytes: c.bytes.Load(), Took: time.Since(began), Examples: c.examples}
}

// checkNode is an object to be compared, and the record of a file whose counterpart is to be
// read at once with others. Nobody but its check changes it meanwhile.
type checkNode struct {
	Node
	rec *Record
}

func (p *pair) checkTask(c *check, nodes []checkNode) task {
	return func(ctx context.Context, w *worker) error {
		for len(nodes) > 0 {
			some := nodes[:min(p.atOnce, len(nodes))]
			done, err := p.checkSome(ctx, w, c, some)
			if err != nil {
				for _, n := range nodes[done:] {
					p.fresh.add(n.Node)
				}
				return err
			}
			nodes = nodes[len(some):]
		}
		return nil
	}
}

// checkSome compares objects whose files on `to` it has opened and started to read all at once.
func (p *pair) checkSome(ctx context.Context, w *worker, c *check, nodes []checkNode) (done int, err error) {
	fds := w.files[:len(nodes)]
	for i := range nodes {
		fds[i] = -1
		if nodes[i].rec == nil {
			continue
		}
		// What cannot be opened is found out, and said, when its turn comes.
		if fd, err := p.to.open(nodes[i].rec.To, readTo); err == nil {
			fds[i] = fd
		}
	}
	p.readAhead(w, fds)
	for i := range nodes {
		if err == nil {
			err = ctx.Err()
		}
		if err == nil {
			err = p.checkOne(ctx, w, c, nodes[i], fds[i])
			if err == nil {
				done++
			}
		}
		if fds[i] >= 0 {
			unix.Close(fds[i])
		}
	}
	return done, err
}

// readTo opens a file of `to` to be compared.
const readTo = unix.O_RDONLY | unix.O_NOFOLLOW | unix.O_NOATIME

// checkOne compares one object of both sides. What is dirty is left to the next
// pass. The content of `from` is read again only where a power cut came over it: else its digest was
// taken when it was, and its fingerprint says that it has not changed since. dst is what
// e.rec.To was opened as, or -1.
func (p *pair) checkOne(ctx context.Context, w *worker, c *check, e checkNode, dst int) error {
	n := e.Node
	l := p.lock(n)
	l.Lock()
	defer l.Unlock()
	rec, err := p.toCheck(e)
	if err != nil || rec == nil {
		return err
	}
	if p.journal.Dirty(n) != 0 {
		p.fresh.add(n) // its mark may end without a copy: with all others, or by a scan
		return nil
	}
	flags := unix.O_PATH | unix.O_NOFOLLOW
	if rec.Type == unix.S_IFDIR>>12 {
		flags = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOATIME
	}
	src, err := p.from.open(n, flags)
	if vanished(err) {
		p.settled(n)
		return p.dropIfGone(n, rec.To)
	}
	if errors.Is(err, unix.ENOTDIR) {
		return p.remake(n)
	}
	if err != nil {
		return p.sourceFailed(n, "open", err)
	}
	defer unix.Close(src)
	attr, err := copier.ReadAttr(src, w.bufs)
	if err != nil {
		return p.sourceFailed(n, "read attributes of", err)
	}
	if attr.Nlink == 0 {
		// Unlinked and still open: no name leads to it, and the fence waits until nobody
		// has it. If it gets a name again its ctime changes, and it is copied.
		return p.verifiedAs(w, n, rec)
	}
	if rec.Print != 0 && p.printOf(n, &attr) != rec.Print {
		p.markChanged(n, rec)
		return nil
	}
	want, ok := p.fitted(n, fdName{fd: src}, &attr)
	if !ok {
		return nil
	}
	if rec.Flags&NoDigest != 0 {
		p.markChanged(n, rec) // what it was copied as is not known: nothing can be compared with that
		return nil
	}
	if rec.Flags&Doubted != 0 {
		holds, err := p.holds(ctx, w, c, n, rec)
		if err != nil {
			return err
		}
		if !holds {
			p.journal.Mark(n, Data|Attrs|Firm)
			return nil
		}
		rec.Flags &^= Doubted
	}
	what, err := p.compare(ctx, w, c, n, rec, src, dst, &want)
	if err != nil {
		return err
	}
	if what == "" {
		return p.verifiedAs(w, n, rec)
	}
	if strings.HasPrefix(what, "links: ") && p.journal.Len() > 0 {
		p.journal.Mark(n, Attrs|Firm) // a directory that names it is dirty
		return nil
	}
	// It may have changed while it was compared; then it is dirty and no difference.
	now, err := copier.ReadStat(src)
	if err == nil && (p.printOf(n, &now) != p.printOf(n, &attr) || p.journal.Dirty(n) != 0 || rec.Print == 0) {
		p.markChanged(n, rec)
		return nil
	}
	c.differs(fdPath(src), what)
	p.differs(n, fdPath(src), what)
	return nil
}

// holds reads a file of `from` again over which a power cut came, and reports whether it is what was
// copied. Its Print is still that of the copy, so it was not stored to since the boot, and its holes are zeros.
func (p *pair) holds(ctx context.Context, w *worker, c *check, n Node, rec *Record) (bool, error) {
	fd, err := p.from.open(n, unix.O_RDONLY|unix.O_NOATIME|unix.O_NONBLOCK|unix.O_NOFOLLOW)
	if vanished(err) || errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENXIO) {
		return false, nil // its mark has the next pass find out
	}
	if err != nil {
		return false, p.sourceFailed(n, "open", err)
	}
	defer unix.Close(fd)
	a, err := copier.ReadStat(fd)
	if err != nil {
		return false, p.sourceFailed(n, "stat", err)
	}
	c.bytes.Add(min(a.Size, a.Blocks*512))
	sum, _, err := copier.DigestFd(ctx, fd, a.Size, copier.DigestOptions{Sparse: a.Sparse() && a.Size > copier.DigestSame, Throttle: p.throttle, Buffers: w.bufs})
	if err != nil {
		return false, p.contentFailed(n, fd, err)
	}
	return sum == rec.Digest, nil
}

// toCheck is the record of what is to be compared; nil when there is nothing to compare.
func (p *pair) toCheck(e checkNode) (*Record, error) {
	if e.rec != nil {
		return e.rec, nil
	}
	rec, known, err := p.nodes.Get(e.Node)
	if err != nil || !known || rec.Flags&Verified != 0 {
		return nil, err
	}
	return &rec, nil
}

// dropIfGone forgets n, which `from` has no more, if `to` has its counterpart no more either:
// after a power cut that took both, nothing else ever would, and what cannot be verified
// forbids the cutover. A counterpart that is there goes by way of limbo.
func (p *pair) dropIfGone(n, to Node) error {
	fd, err := p.to.open(to, unix.O_PATH|unix.O_NOFOLLOW)
	if err == nil {
		return unix.Close(fd)
	}
	if !vanished(err) {
		return &copier.TargetError{Op: "open", Off: -1, Err: err}
	}
	p.names.forget(n)
	return p.drop(n)
}

func (p *pair) markChanged(n Node, rec *Record) {
	if rec.Type == unix.S_IFDIR>>12 {
		p.names.allOf(n)
		p.journal.Mark(n, Entries|Attrs)
		return
	}
	p.journal.Mark(n, Data|Attrs)
}

// maxRecopies is how often an object may be found different before that is a blocker.
const maxRecopies = 2

// differs has an object copied again, by reading every byte, and counts how often.
func (p *pair) differs(n Node, path, what string) {
	p.journal.Mark(n, Object|Firm)
	p.differMu.Lock()
	if p.differ == nil {
		p.differ = map[Node]difference{}
	}
	d := difference{p.differ[n].times + 1, path}
	times := d.times
	p.differ[n] = d
	p.differMu.Unlock()
	if times > maxRecopies {
		p.fails.add(migrate.Blocker{Class: "different", Object: path, Firm: true,
			Why:  fmt.Sprintf("%s, after it was copied %d times", what, times),
			Hint: "the spare does not keep what is written, and no waiver makes that good: check the kernel log, abort, and use another spare"})
	}
}

// difference is how often an object was found different, and where it was then.
type difference struct {
	times int
	path  string
}

// verifiedAs remembers that n was found equal.
func (p *pair) verifiedAs(w *worker, n Node, rec *Record) error {
	rec.Flags |= Verified
	p.verified.Add(1)
	p.settled(n)
	if !p.fails.empty() {
		p.fails.clearNode(n, isUnread)
	}
	return w.amend(p, n, rec)
}

// settled takes an object off the list of those that differ: it is equal, or gone.
func (p *pair) settled(n Node) {
	p.differMu.Lock()
	d, was := p.differ[n]
	delete(p.differ, n)
	p.differMu.Unlock()
	if was {
		p.fails.clear("different", d.path)
	}
}

// compare says in what the counterpart of an object differs; "" in nothing. dst is the
// counterpart, or -1 when it is not open yet.
func (p *pair) compare(ctx context.Context, w *worker, c *check, n Node, rec *Record, src, dst int, want *copier.Attr) (string, error) {
	if dst < 0 {
		var err error
		dst, err = p.to.open(rec.To, readFlags(rec))
		if vanished(err) {
			if err := p.remake(n); err != nil {
				return "", err
			}
			return "missing", nil
		}
		if err != nil {
			return "", &copier.TargetError{Op: "open", Off: -1, Err: err}
		}
		defer unix.Close(dst)
	}
	have, err := copier.ReadAttr(dst, w.bufs)
	if err != nil {
		return "", &copier.TargetError{Op: "read attributes", Off: -1, Err: err}
	}
	if ds := p.equalAttr(want, &have); len(ds) > 0 {
		return ds[0].String(), nil
	}
	switch rec.Type {
	case unix.S_IFREG >> 12:
		c.bytes.Add(min(have.Size, have.Blocks*512))
		digest, err := p.digest(ctx, w, dst, &have, c.direct)
		if err != nil {
			return "", err
		}
		if digest != rec.Digest {
			return "content differs", nil
		}
	case unix.S_IFLNK >> 12:
		return p.compareLinks(w, src, dst)
	case unix.S_IFDIR >> 12:
		return p.compareDirs(w, n, src, dst)
	}
	return "", nil
}

// readFlags are those to open a counterpart with that is to be compared.
func readFlags(rec *Record) int {
	switch rec.Type {
	case unix.S_IFREG >> 12:
		return readTo
	case unix.S_IFDIR >> 12:
		return unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOATIME
	}
	return unix.O_PATH | unix.O_NOFOLLOW
}

func (p *pair) compareLinks(w *worker, src, dst int) (string, error) {
	a, err := copier.ReadLink(src, w.bufs)
	if err != nil {
		return "cannot be read", nil
	}
	b, err := copier.ReadLink(dst, w.bufs)
	if err != nil {
		return "", &copier.TargetError{Op: "read link", Off: -1, Err: err}
	}
	if a != b {
		return fmt.Sprintf("link to %q is a link to %q", a, b), nil
	}
	return "", nil
}

// compareDirs compares names, and that each leads to the counterpart. A name whose object has
// a blocker, or is left behind, may be missing: it is the object that is named for it. On the
// way back one that was left behind before may be there.
func (p *pair) compareDirs(w *worker, n Node, src, dst int) (string, error) {
	root := n == p.from.root
	a, err := p.listing(src, w, root)
	if err != nil {
		return "cannot be listed", nil
	}
	b, err := p.listing(dst, w, root)
	if err != nil {
		return "", &copier.TargetError{Op: "list directory", Off: -1, Err: err}
	}
	for i, j := 0, 0; i < len(a) || j < len(b); {
		switch {
		case j == len(b) || i < len(a) && a[i].name < b[j].name:
			if !p.excused(src, a[i].name) {
				return fmt.Sprintf("entry %q is missing", a[i].name), nil
			}
			i++
			continue
		case i == len(a) || b[j].name < a[i].name:
			if p.keeps(dst, b[j].name) {
				j++
				continue
			}
			return fmt.Sprintf("entry %q is one too many", b[j].name), nil
		}
		child, err := p.from.codec.NodeAt(src, a[i].name, 0)
		if err != nil {
			return fmt.Sprintf("entry %q cannot be looked up", a[i].name), nil
		}
		rec, known, err := p.nodes.Get(child)
		if err != nil {
			return "", err
		}
		if !known || rec.To.Ino != b[j].ino {
			return fmt.Sprintf("entry %q is another object", a[i].name), nil
		}
		i++
		j++
	}
	return "", nil
}
