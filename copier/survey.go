package copier

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/bits"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// TreeStats is what a tree is made of, for estimates and the fit.
type TreeStats struct {
	Files, Dirs, Symlinks, Specials int64
	HardLinks                       int64 // names beyond the first of an object
	Bytes                           int64 // allocated, of files
	Apparent                        int64 // sizes, of files
	NameBytes                       int64
	XattrBytes                      int64     // names and values
	SizeHistogram                   [48]int64 // files by the length in bits of their size: [0] empty, [1] 1 byte, [2] 2–3, …
	LargestDir                      int64     // entries
	MaxName                         int
	MaxXattrValue, MaxXattrTotal    int
	MaxSymlink                      int
	MaxFile                         int64
	MaxLinks                        uint64
	MinTime, MaxTime                int64 // seconds, over mtime and atime
	MaxUID, MaxGID                  uint32
	Reflinked                       bool  // with Extents: some extent is shared
	SharedBytes                     int64 // with Extents: bytes in shared extents, each file's counted
	UnwrittenBytes                  int64 // with Extents: preallocated
	Vanished                        int64 // objects gone between listing and reading
	Boundaries                      int64 // mounts and subvolumes that were not entered
}

// SurveyOptions say how much a survey looks at.
type SurveyOptions struct {
	Workers int // 2 when zero
	// StatOnly leaves out xattrs, flags and projects: several times faster cold.
	StatOnly bool
	// Extents maps every file with blocks, for SharedBytes and UnwrittenBytes.
	Extents  bool
	Throttle *Throttle
}

// SurveyTree walks the tree below fd once, in parallel, and calls fn for every
// object, one call at a time, with its unescaped path; a second name of an
// object is only counted. fn may be nil. The walk reads no data, enters neither
// mounts nor subvolumes, and takes what vanishes meanwhile for not there.
func SurveyTree(ctx context.Context, fd int, o SurveyOptions, fn func(path string, a Attr) error) (TreeStats, error) {
	st, err := ReadStat(fd)
	if err != nil {
		return TreeStats{}, err
	}
	if o.Workers == 0 {
		o.Workers = 2
	}
	s := &survey{root: fd, dev: st.Dev, o: o, fn: fn, linked: make(map[uint64]struct{})}
	s.stats.MinTime, s.stats.MaxTime = math.MaxInt64, math.MinInt64
	err = walk(ctx, o.Workers, s.visit)
	return s.stats, err
}

type survey struct {
	root   int
	dev    uint64
	o      SurveyOptions
	fn     func(string, Attr) error
	mu     sync.Mutex // below it
	stats  TreeStats
	linked map[uint64]struct{} // inodes of more than one name, seen
}

func (s *survey) visit(ctx context.Context, b *Buffers, n *node, push func(*node)) error {
	dir, err := openNode(s.root, n)
	if err != nil {
		if n.parent != nil && Gone(err) {
			s.count(func(t *TreeStats) { t.Vanished++ })
			return nil
		}
		return fmt.Errorf("open directory %s: %w", Escape(n.path()), err)
	}
	defer unix.Close(dir)
	prefix := n.path() + "/"
	if n.parent == nil {
		prefix = ""
		if _, err := s.object(ctx, b, dir, ".", 0); err != nil {
			return err
		}
	}
	entries := int64(0)
	var inside error
	err = ListDir(dir, b, func(d Dirent) error {
		entries++
		var enter bool
		if enter, inside = s.entry(ctx, b, dir, prefix, d); enter {
			push(n.child(strings.Clone(d.Name)))
		}
		return inside
	})
	s.count(func(t *TreeStats) { t.LargestDir = max(t.LargestDir, entries) })
	if inside == nil && Gone(err) { // removed while it was listed
		s.count(func(t *TreeStats) { t.Vanished++ })
		return nil
	}
	if err != nil && ctx.Err() == nil {
		return fmt.Errorf("survey %s: %w", Escape(n.path()), err)
	}
	return err
}

// entry takes one entry in and says whether it is a directory to enter.
func (s *survey) entry(ctx context.Context, b *Buffers, dir int, prefix string, d Dirent) (bool, error) {
	if err := s.o.Throttle.Wait(ctx, 0); err != nil {
		return false, err
	}
	typ := d.Type
	if s.o.StatOnly && !s.o.Extents {
		typ = unix.DT_UNKNOWN // an O_PATH descriptor is cheaper, and will do
	}
	fd, err := openEntry(dir, d.Name, typ)
	switch {
	case errors.Is(err, unix.EXDEV):
		s.count(func(t *TreeStats) { t.Boundaries++ })
		return false, nil
	case Gone(err):
		s.count(func(t *TreeStats) { t.Vanished++ })
		return false, nil
	case err != nil:
		return false, fmt.Errorf("open %s: %w", Escape(d.Name), err)
	}
	defer unix.Close(fd)
	// Cloned: at the root the sum is the name itself, and that lies in the listing's buffer.
	return s.object(ctx, b, fd, strings.Clone(prefix+d.Name), len(d.Name))
}

func (s *survey) object(ctx context.Context, b *Buffers, fd int, path string, nameLen int) (enter bool, err error) {
	var a Attr
	if s.o.StatOnly {
		a, err = ReadStat(fd)
	} else {
		a, err = ReadAttr(fd, b)
	}
	if err != nil {
		return false, fmt.Errorf("read attributes of %s: %w", Escape(path), err)
	}
	if a.Dev != s.dev { // a subvolume: no mount, but a volume of its own
		s.count(func(t *TreeStats) { t.Boundaries++ })
		return false, nil
	}
	var shared, unwritten int64
	if s.o.Extents && a.IsRegular() && a.Blocks > 0 {
		shared, unwritten, err = mapExtents(ctx, fd)
		if err != nil {
			return false, fmt.Errorf("map extents of %s: %w", Escape(path), err)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	t := &s.stats
	t.NameBytes += int64(nameLen)
	t.MaxName = max(t.MaxName, nameLen)
	if a.Nlink > 1 && !a.IsDir() {
		if _, again := s.linked[a.Ino]; again {
			t.HardLinks++
			return false, nil
		}
		s.linked[a.Ino] = struct{}{}
	}
	t.SharedBytes += shared
	t.UnwrittenBytes += unwritten
	t.Reflinked = t.Reflinked || shared > 0
	t.add(&a)
	if s.fn != nil {
		err = s.fn(path, a)
	}
	return a.IsDir(), err
}

func (s *survey) count(f func(*TreeStats)) {
	s.mu.Lock()
	f(&s.stats)
	s.mu.Unlock()
}

func (t *TreeStats) add(a *Attr) {
	switch a.Type() {
	case unix.S_IFREG:
		t.Files++
		t.Bytes += a.Blocks * 512
		t.Apparent += a.Size
		t.MaxFile = max(t.MaxFile, a.Size)
		t.SizeHistogram[min(bits.Len64(uint64(a.Size)), len(t.SizeHistogram)-1)]++
	case unix.S_IFDIR:
		t.Dirs++
	case unix.S_IFLNK:
		t.Symlinks++
		t.MaxSymlink = max(t.MaxSymlink, int(a.Size))
	default:
		t.Specials++
	}
	if !a.IsDir() {
		t.MaxLinks = max(t.MaxLinks, uint64(a.Nlink))
	}
	t.MinTime = min(t.MinTime, a.Mtime.Sec, a.Atime.Sec)
	t.MaxTime = max(t.MaxTime, a.Mtime.Sec, a.Atime.Sec)
	t.MaxUID, t.MaxGID = max(t.MaxUID, a.UID), max(t.MaxGID, a.GID)
	total := 0
	for _, x := range a.Xattrs {
		total += len(x.Name) + len(x.Value)
		t.MaxXattrValue = max(t.MaxXattrValue, len(x.Value))
	}
	t.XattrBytes += int64(total)
	t.MaxXattrTotal = max(t.MaxXattrTotal, total)
}

func mapExtents(ctx context.Context, fd int) (shared, unwritten int64, err error) {
	fd, done, err := realFd(fd)
	if err != nil {
		return 0, 0, err
	}
	defer done.close()
	err = Extents(ctx, fd, func(e Extent) error {
		if e.Flags&ExtentShared != 0 {
			shared += e.Len
		}
		if e.Flags&ExtentUnwritten != 0 {
			unwritten += e.Len
		}
		return nil
	})
	return shared, unwritten, err
}
