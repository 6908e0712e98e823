package shadow

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fsmigrate/fsmigrate/copier"
)

// A record that waits in one worker's batch while another drops it, or makes the object anew,
// must not come back when the batch is committed.
func TestPairDroppedRecordStaysDropped(t *testing.T) {
	for _, c := range []struct {
		name  string
		again bool // made anew by another worker
		links bool // with a second name by then: its record is in no batch
	}{{"dropped", false, false}, {"made anew", true, false}, {"made anew with a link", true, true}} {
		t.Run(c.name, func(t *testing.T) {
			r := newSyncRig(t, "ext4", "ext4")
			ctx := context.Background()
			must(t, r.p.walk(ctx))
			r.quiet()
			r.sh("echo f > f")
			n := r.node("f")
			newWorker := func() *worker { return &worker{q: &workQueue{}, bufs: copier.NewBuffers(), recs: r.p.nodes.Batch()} }
			first, second := newWorker(), newWorker()
			defer first.recs.Close()
			defer second.recs.Close()
			d := &dirTask{p: r.p, node: r.p.from.root, from: r.p.from.fd, to: r.p.to.fd, root: true}
			must(t, d.place(ctx, first, "f", unix.DT_REG))
			must(t, os.Remove(filepath.Join(r.dst, "f"))) // as a power cut would
			if c.links {
				r.sh("ln f g")
			}
			if c.again {
				must(t, d.place(ctx, second, "f", unix.DT_REG))
			} else {
				must(t, r.p.drop(n))
			}
			_, before, err := r.p.get(n)
			must(t, err)
			must(t, second.commit(r.p))
			must(t, first.commit(r.p))
			rec, known, err := r.p.get(n)
			must(t, err)
			if known != c.again || before != c.again {
				t.Fatalf("known %v before the commits and %v after, want %v", before, known, c.again)
			}
			if c.again {
				is, err := r.p.to.codec.NodeAt(r.p.to.fd, "f", 0)
				must(t, err)
				if rec.To != is {
					t.Errorf("the record says %v, the file is %v", rec.To, is)
				}
			}
			if got := r.p.nodes.Count(); got != r.records() {
				t.Errorf("the map counts %d records and has %d", got, r.records())
			}
			r.settle()
			r.equal()
		})
	}
}

func (r *syncRig) records() (n int64) {
	r.t.Helper()
	must(r.t, r.p.nodes.Iterate(func(Node, *Record) error { n++; return nil }))
	return n
}
