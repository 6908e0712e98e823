package shadow

import (
	"errors"
	"fmt"
	iofs "io/fs"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// Store is the durable memory of one migration: node maps and journals (one of each a
// name space: 'f' for the way there, 'r' for the way back), and a few named values.
//
// Its keys begin with the name space and a kind:
//
//	ns 'n' ino gen       → record of the object       (node map)
//	ns 'i' ino gen       → ino gen                    (node map, from the other side's Node to this side's)
//	ns 'x' ino gen       → digests of a file's ranges (node map)
//	ns 'd' ino gen       → what may differ            (journal: durable dirty marks)
//	ns 'e'               → durable epoch, boot id     (journal)
//	ns 'q'               → empty: any unit may differ (journal, when the marks are over quota)
//	'm' name             → named value
//
// ino is 8 and gen 4 bytes, big-endian, so that keys sort by inode number.
//
// A Store is safe for concurrent use. Only one process can have it open.
type Store struct {
	db    *pebble.DB
	quota int64
	fail  storeFailure

	mu       sync.Mutex
	maps     map[byte]*NodeMap
	journals map[byte]*Journal
	usageAt  time.Time
	usage    int64
}

// StoreOptions are the options of a Store. The zero value has the defaults.
type StoreOptions struct {
	CacheBytes int64 // of Pebble's block cache; default 16 MiB
	QuotaBytes int64 // of disk space, past which the journal keeps coarse marks only; 0: none

	fs vfs.FS
}

func (o StoreOptions) withDefaults() StoreOptions {
	if o.CacheBytes == 0 {
		o.CacheBytes = 16 << 20
	}
	if o.fs == nil {
		o.fs = vfs.Default
	}
	return o
}

// memTableBytes is what is collected in memory before it is written as a table.
// Writers wait when four such tables, 32 MiB, are not written yet.
const memTableBytes = 8 << 20

// OpenStore opens the store whose files are in dir (by convention "journal" in
// the migration's state directory), and makes it when there is none.
func OpenStore(dir string, o StoreOptions) (*Store, error) {
	o = o.withDefaults()
	s := &Store{quota: o.QuotaBytes, fail: storeFailure{ended: make(chan struct{})}, maps: map[byte]*NodeMap{}, journals: map[byte]*Journal{}}
	po := &pebble.Options{
		FS:                          &strictFS{o.fs, &s.fail},
		CacheSize:                   o.CacheBytes,
		MemTableSize:                memTableBytes,
		MemTableStopWritesThreshold: 4,
		MaxOpenFiles:                128,
		L0CompactionThreshold:       4,
		CompactionConcurrencyRange:  func() (int, int) { return 1, 1 },
		FormatMajorVersion:          pebble.FormatNewest,
		Logger:                      &s.fail,
		EventListener:               s.fail.listener(),
	}
	if err := s.open(dir, o.fs, po); err != nil {
		return nil, fmt.Errorf("open store %s: %w", dir, err)
	}
	return s, nil
}

// open opens the store in dir. A store is made beside its place and moved there
// when it is whole: what a crash left of making one never held anything, and is thrown away.
func (s *Store) open(dir string, fs vfs.FS, po *pebble.Options) error {
	open := func(dir string) error {
		return s.fail.await(func() error {
			db, err := pebble.Open(dir, po)
			if err == nil {
				s.db = db
			}
			return err
		})
	}
	names, err := fs.List(dir)
	if err != nil && !errors.Is(err, iofs.ErrNotExist) {
		return err
	}
	if len(names) > 0 {
		return open(dir)
	}
	if err == nil {
		if err := fs.Remove(dir); err != nil {
			return err
		}
	}
	making := dir + ".making"
	if err := fs.RemoveAll(making); err != nil {
		return err
	}
	if err := open(making); err != nil {
		return err
	}
	if err := s.fail.await(s.db.Close); err != nil {
		return err
	}
	if err := errors.Join(syncDir(fs, making), fs.Rename(making, dir), syncDir(fs, fs.PathDir(dir))); err != nil {
		return err
	}
	return open(dir)
}

func syncDir(fs vfs.FS, dir string) error {
	d, err := fs.OpenDir(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Close writes what is in memory and closes the store. A store that failed is
// abandoned: the next process to open it finds what was durable.
func (s *Store) Close() error {
	if err := s.fail.err(); err != nil {
		return fmt.Errorf("close store: %w", err)
	}
	if err := s.fail.await(s.db.Close); err != nil {
		return fmt.Errorf("close store: %w", err)
	}
	return nil
}

// Map is the node map of the name space ns: the same one for every call.
func (s *Store) Map(ns byte) *NodeMap {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.maps[ns]
	if m == nil {
		m = newNodeMap(s, ns)
		s.maps[ns] = m
	}
	return m
}

// Journal is the journal of the name space ns, with the default options when it
// was not opened before: the same one for every call. It reads the durable epoch, not the
// marks: see Recover.
func (s *Store) Journal(ns byte) (*Journal, error) {
	return s.OpenJournal(ns, JournalOptions{})
}

// OpenJournal is Journal with options, which count only for the first call.
func (s *Store) OpenJournal(ns byte, o JournalOptions) (*Journal, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if j := s.journals[ns]; j != nil {
		return j, nil
	}
	j, err := newJournal(s, ns, o)
	if err != nil {
		return nil, err
	}
	s.journals[ns] = j
	return j, nil
}

// Meta reads the value named key, and whether there is one.
func (s *Store) Meta(key string) ([]byte, bool, error) {
	v, ok, err := s.get(append([]byte{'m'}, key...), nil)
	if err != nil {
		return nil, false, fmt.Errorf("read %q from store: %w", key, err)
	}
	return v, ok, nil
}

// SetMeta writes the value named key, durably when sync is set.
func (s *Store) SetMeta(key string, val []byte, sync bool) error {
	b := s.db.NewBatch()
	defer s.release(b)
	err := b.Set(append([]byte{'m'}, key...), val, nil)
	if err == nil {
		err = s.apply(b, sync)
	}
	if err != nil {
		return fmt.Errorf("write %q to store: %w", key, err)
	}
	return nil
}

// Drop forgets a whole name space, durably: its node map and its journal, in
// memory and on disk. Nobody may be using them.
func (s *Store) Drop(ns byte) error {
	b := s.db.NewBatch()
	defer s.release(b)
	err := b.DeleteRange([]byte{ns}, []byte{ns + 1}, nil)
	if err == nil {
		err = s.apply(b, true)
	}
	if err != nil {
		return fmt.Errorf("drop name space %q: %w", ns, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if m := s.maps[ns]; m != nil {
		m.forget()
	}
	if j := s.journals[ns]; j != nil {
		j.forget()
	}
	return nil
}

// Usage is the disk space that the store takes, at most a second old.
func (s *Store) Usage() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now := time.Now(); now.Sub(s.usageAt) > time.Second {
		var used int64
		if s.fail.await(func() error { used = int64(s.db.Metrics().DiskSpaceUsage()); return nil }) == nil {
			s.usageAt, s.usage = now, used
		}
	}
	return s.usage
}

func (s *Store) overQuota() bool { return s.quota > 0 && s.Usage() > s.quota }

// get appends the value of key to buf. The value returned is buf's memory.
func (s *Store) get(key, buf []byte) (val []byte, ok bool, err error) {
	err = s.fail.guard(func() error {
		v, closer, err := s.db.Get(key)
		if errors.Is(err, pebble.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		val, ok = append(buf, v...), true
		return closer.Close()
	})
	return val, ok, err
}

// apply writes b. With sync it returns when b, and everything applied before it,
// is on disk.
func (s *Store) apply(b *pebble.Batch, sync bool) error {
	if err := s.fail.trouble(); err != nil {
		return err
	}
	o := pebble.NoSync
	if sync {
		o = pebble.Sync
	}
	return s.fail.await(func() error { return s.db.Apply(b, o) })
}

// release gives a batch back. A store that failed may still be using it.
func (s *Store) release(b *pebble.Batch) {
	if s.fail.err() == nil {
		b.Close()
	}
}

// scan calls fn for every key with the prefix, in order, over a snapshot.
// Key (without the prefix) and value are valid during the call.
func (s *Store) scan(prefix []byte, fn func(key, val []byte) error) error {
	upper := append([]byte(nil), prefix...)
	upper[len(upper)-1]++
	var it *pebble.Iterator
	err := s.fail.guard(func() (err error) {
		it, err = s.db.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: upper})
		return err
	})
	if err != nil {
		return err
	}
	for ok := it.First(); ok && err == nil; ok = it.Next() {
		var v []byte
		if v, err = it.ValueAndErr(); err == nil {
			err = fn(it.Key()[len(prefix):], v)
		}
	}
	return errors.Join(err, s.fail.await(it.Close))
}
