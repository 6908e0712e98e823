package shadow

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"
)

// A checkpoint that fails while the walk goes on ends the walk at once: what is copied
// after it could not become durable, and a walk may take hours.
func TestPairWalkEndsWithItsCheckpoint(t *testing.T) {
	r := newSyncRig(t, "ext4", "ext4")
	const files = 3000
	r.sh("mkdir d; cd d; seq 3000 | xargs touch")
	r.p.commitEvery = time.Millisecond
	var made atomic.Int64
	r.p.step = func(op string) error {
		if op == "create" {
			made.Add(1)
			r.p.syncFailed.Store(true) // as after an I/O error of the source
			<-time.After(time.Millisecond)
		}
		return nil
	}
	err := r.p.walk(context.Background())
	if !errors.Is(err, errSourceSync) {
		t.Errorf("got %v", err)
	}
	if made.Load() >= files {
		t.Errorf("all %d files were copied", made.Load())
	}
}
