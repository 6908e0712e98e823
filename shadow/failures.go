package shadow

import (
	"fmt"
	"sort"
	"sync"

	"github.com/fsmigrate/fsmigrate/migrate"
)

// maxFailures bounds the list; what is over it is counted in one more blocker.
const maxFailures = 1000

// failures are the objects that could not be copied or compared, each a reason
// against a cutover (I5). A later success takes its object off the list; a failed
// sync stays for good (I6).
type failures struct {
	mu     sync.Mutex
	byID   map[string]failure
	byNode map[Node]map[string]struct{}
	over   int
}

type failure struct {
	migrate.Blocker
	node Node // zero: only its path is known
}

func (f *failures) add(b migrate.Blocker) { f.addNode(Node{}, b) }

// addNode is add for an object that is known: what is said of it ends with it.
func (f *failures) addNode(n Node, b migrate.Blocker) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.byID == nil {
		f.byID, f.byNode = map[string]failure{}, map[Node]map[string]struct{}{}
	}
	key := b.Class + "\x00" + b.Object
	old, known := f.byID[key]
	if !known && len(f.byID) >= maxFailures && b.Class != syncError {
		f.over++
		return
	}
	if known {
		f.removeLocked(key, old)
	}
	f.byID[key] = failure{b, n}
	if !n.IsZero() {
		if f.byNode[n] == nil {
			f.byNode[n] = map[string]struct{}{}
		}
		f.byNode[n][key] = struct{}{}
	}
}

func (f *failures) removeLocked(key string, old failure) {
	delete(f.byID, key)
	delete(f.byNode[old.node], key)
	if len(f.byNode[old.node]) == 0 {
		delete(f.byNode, old.node)
	}
}

// clear takes the failures of object with this class off the list.
func (f *failures) clear(class, object string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	key := class + "\x00" + object
	if old, ok := f.byID[key]; ok {
		f.removeLocked(key, old)
	}
}

// clearNode takes those failures of n off the list whose class `which` accepts.
func (f *failures) clearNode(n Node, which func(class string) bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for key := range f.byNode[n] {
		if b := f.byID[key]; which(b.Class) {
			f.removeLocked(key, b)
		}
	}
}

func (f *failures) has(n Node) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.byNode[n]) > 0
}

func (f *failures) nodes() []Node {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := make([]Node, 0, len(f.byNode))
	for n := range f.byNode {
		out = append(out, n)
	}
	return out
}

func (f *failures) empty() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.byID) == 0
}

func (f *failures) list() []migrate.Blocker {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := make([]migrate.Blocker, 0, len(f.byID))
	for _, b := range f.byID {
		out = append(out, b.Blocker)
	}
	sort.Slice(out, func(i, j int) bool {
		if out[i].Class != out[j].Class {
			return out[i].Class < out[j].Class
		}
		return out[i].Object < out[j].Object
	})
	if f.over > 0 {
		out = append(out, migrate.Blocker{Class: "more", Object: "further objects",
			Why:  fmt.Sprintf("%d more failures than the %d that are kept", f.over, maxFailures),
			Hint: "settle those that are named, then resume: the others are looked at again"})
	}
	return out
}
