package shadow

import "sync"

// Limits of the names remembered beside the dirty directories. A directory with more
// dirty names than this is compared whole, which is always right and only slower.
const (
	namesPerDir  = 512
	namesOverall = 100_000
	namesDirs    = 50_000
)

// dirtyNames remembers which names of a dirty directory changed, so that a change in
// a directory of 500,000 entries does not cost a comparison of 500,000. It is an aid,
// not evidence: it is complete only while every event arrived, so
// a directory that was not marked by an event, a lost watch or an overflow
// means "all names".
type dirtyNames struct {
	mu    sync.Mutex
	dirs  map[Node]map[string]struct{} // nil set: all names
	total int
	whole bool // all names of every directory, until the next rescan
}

// add notes that name changed in dir.
func (d *dirtyNames) add(dir Node, name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.whole {
		return
	}
	if d.dirs == nil {
		d.dirs = map[Node]map[string]struct{}{}
	}
	set, known := d.dirs[dir]
	if known && set == nil {
		return
	}
	if set == nil {
		set = map[string]struct{}{}
		d.dirs[dir] = set
	}
	if _, dup := set[name]; dup {
		return
	}
	if name == "" || len(set) >= namesPerDir || d.total >= namesOverall {
		d.total -= len(set)
		d.dirs[dir] = nil
		return
	}
	set[name] = struct{}{}
	d.total++
}

// allOf notes that any name of dir may have changed.
func (d *dirtyNames) allOf(dir Node) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.dirs == nil {
		d.dirs = map[Node]map[string]struct{}{}
	}
	d.total -= len(d.dirs[dir])
	d.dirs[dir] = nil
}

// take removes and returns the changed names of dir. ok is false when all names
// must be compared. From then on the directory is known: what a later take returns
// is all that changed since, so whoever could not use the names says allOf.
func (d *dirtyNames) take(dir Node) (names map[string]struct{}, ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	set := d.dirs[dir]
	d.total -= len(set)
	if d.whole || len(d.dirs) >= namesDirs {
		delete(d.dirs, dir)
		return nil, false
	}
	if d.dirs == nil {
		d.dirs = map[Node]map[string]struct{}{}
	}
	d.dirs[dir] = map[string]struct{}{}
	return set, set != nil
}

// forget drops what is known of a directory that exists no more.
func (d *dirtyNames) forget(dir Node) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.total -= len(d.dirs[dir])
	delete(d.dirs, dir)
}

// full forgets all names: events were lost.
func (d *dirtyNames) full() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.whole, d.dirs, d.total = true, nil, 0
}

// trust begins anew with complete events. The caller has marked every directory that
// may have changed before, with allOf.
func (d *dirtyNames) trust() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.whole = false
}
