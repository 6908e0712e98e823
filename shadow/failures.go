package shadow

import (
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
	mu   sync.Mutex
	byID map[string]migrate.Blocker
	over int
}

func (f *failures) add(b migrate.Blocker) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.byID == nil {
		f.byID = map[string]migrate.Blocker{}
	}
	key := b.Class + "\x00" + b.Object
	if _, known := f.byID[key]; !known && len(f.byID) >= maxFailures {
		f.over++
		return
	}
	f.byID[key] = b
}

// clear takes the failures of object with this class off the list.
func (f *failures) clear(class, object string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.byID, class+"\x00"+object)
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
		out = append(out, b)
	}
	sort.Slice(out, func(i, j int) bool {
		if out[i].Class != out[j].Class {
			return out[i].Class < out[j].Class
		}
		return out[i].Object < out[j].Object
	})
	return out
}
