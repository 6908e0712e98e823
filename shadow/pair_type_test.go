package shadow

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func (r *syncRig) node(name string) Node {
	r.t.Helper()
	n, err := r.p.from.codec.NodeAt(r.p.from.fd, name, 0)
	must(r.t, err)
	return n
}

// A name that changes hands between the looks at it, so that the object that is looked up
// is of another type than what the name was listed with: an object never changes its type, and
// a record of a wrong one was kept for ever and refused every cutover.
func TestPairTypeChangesBetweenLooks(t *testing.T) {
	for _, c := range []struct {
		name   string
		object string // what the name led to when it was looked up
		typ    uint8  // what it was listed with, and is again
	}{
		{"file for a directory", "file", unix.DT_DIR},
		{"directory for a file", "dir", unix.DT_REG},
		{"link for a directory", "link", unix.DT_DIR},
		{"fifo for a file", "fifo", unix.DT_REG},
		{"device for a file", "null", unix.DT_REG},
		{"directory for a link", "dir", unix.DT_LNK},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newSyncRig(t, "ext4", "ext4")
			ctx := context.Background()
			must(t, r.p.walk(ctx))
			r.quiet()
			r.sh("echo f > file; mkdir -p dir/sub; echo in > dir/sub/f; ln -s x link; mkfifo fifo; mknod null c 1 3")
			name := c.object
			if c.typ == unix.DT_DIR {
				name = "dir" // a directory has the name for all but the handle
			}
			must(t, runTasks(ctx, 1, r.p, []task{func(ctx context.Context, w *worker) error {
				d := &dirTask{p: r.p, node: r.p.from.root, from: r.p.from.fd, to: r.p.to.fd, root: true}
				return r.p.create(ctx, w, d, r.node(c.object), name, c.typ)
			}}))
			r.settle()
			r.equal()
			if b := r.p.fails.list(); len(b) > 0 {
				t.Errorf("blockers: %v", b)
			}
		})
	}
}

// A record that is of a wrong type already is found out and mended.
func TestPairRecordOfAWrongTypeHeals(t *testing.T) {
	for _, c := range []struct{ name, object, wrong string }{
		{"file", "file", "dir"}, {"directory", "dir", "file"}, {"link", "link", "file"}, {"fifo", "fifo", "dir"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newSyncRig(t, "ext4", "ext4")
			ctx := context.Background()
			r.sh("echo f > file; mkdir -p dir/sub; echo in > dir/sub/f; ln -s x link; mkfifo fifo")
			must(t, r.p.walk(ctx))
			r.settle()
			n := r.node(c.object)
			bad := filepath.Join(r.dst, "bad")
			rec := Record{Type: unix.S_IFREG >> 12, Epoch: r.p.epoch.Load()}
			if c.wrong == "dir" {
				rec.Type = unix.S_IFDIR >> 12
				must(t, os.Mkdir(bad, 0o755))
			} else {
				must(t, os.WriteFile(bad, nil, 0o644))
			}
			to, err := r.p.to.codec.NodeAt(r.p.to.fd, "bad", 0)
			must(t, err)
			rec.To = to
			must(t, os.RemoveAll(filepath.Join(r.dst, c.object)))
			must(t, os.Rename(bad, filepath.Join(r.dst, c.object)))
			old, _, err := r.p.nodes.Get(n)
			must(t, err)
			r.p.unverify(&old)
			must(t, r.p.nodes.Put(n, &rec))
			r.p.prints.Delete(n.Ino)
			r.settle()
			r.equal()
		})
	}
}
