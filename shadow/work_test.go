package shadow

import (
	"context"
	"sync/atomic"
	"testing"
)

// A gentle copy's workers give way to the application, but not while it waits for them.
func TestWorkersBehindTheFence(t *testing.T) {
	r := newSyncRig(t, "ext4", "xfs")
	var low atomic.Int32
	r.p.setup = func() { low.Add(1) }
	must(t, r.p.run(context.Background(), nil))
	if n := int(low.Load()); n != r.p.workers {
		t.Errorf("%d of %d workers give way", n, r.p.workers)
	}
	low.Store(0)
	r.p.fenced = true
	must(t, r.p.run(context.Background(), nil))
	if n := low.Load(); n != 0 {
		t.Errorf("behind the fence %d workers give way", n)
	}
}
