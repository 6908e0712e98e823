package shadow

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fsmigrate/fsmigrate/blockdev/blocktest"
)

// A power cut took the ctime of a store that had reached the disk: writeback brought the data
// there, and the log with the inode was not written yet. The inode is what it was when the file
// was copied and verified; the shadow keeps what the source holds no more.
func TestPairStoreWhoseTimeWasLost(t *testing.T) {
	for _, from := range []string{"ext4", "xfs"} {
		for _, stage := range []string{"there", "back"} {
			t.Run(from+" "+stage, func(t *testing.T) { storeWhoseTimeWasLost(t, from, stage == "back") })
		}
	}
}

func storeWhoseTimeWasLost(t *testing.T, from string, back bool) {
	ctx := context.Background()
	r := newCrashRig(t, from, "ext4", 256<<20, 1)
	old := map[string][]byte{"small": []byte(strings.Repeat("a small one\n", 500)), "ranged": bytes.Repeat([]byte("of several ranges "), 1<<20)}
	copy(old["ranged"][11<<20:], "the place in the large file that is changed")
	for name, data := range old {
		must(t, os.WriteFile(filepath.Join(r.src, name), data, 0o644))
	}
	r.sh("for i in $(seq 40); do echo $i > same$i; done; sync -f .")
	r.open()
	must(t, r.p.walk(ctx))
	r.quiet()
	r.settle()
	must(t, r.p.checkpoint(ctx))
	if back {
		r.turn(ctx)
	} else {
		r.die()
	}
	must(t, unix.Unmount(r.src, 0))
	onDevice(t, r.sdev, "a small one\na small one\n", "A SMALL ONE\n")
	onDevice(t, r.sdev, "the place in the large", "THE PLACE IN")
	blocktest.MountAt(t, r.sdev, from, r.src)
	r.files["small"] = "A SMALL ONE\n" + string(old["small"][12:])
	r.files["ranged"] = string(bytes.Replace(old["ranged"], []byte("the place in"), []byte("THE PLACE IN"), 1))

	r.boots = " of the next boot"
	r.open()
	if n := r.p.verifiedCount(); n != 0 {
		t.Errorf("%d objects are verified right after a power cut", n)
	}
	before := r.p.bytes.Load()
	r.quiet()
	proof, err := r.p.verifyAll(ctx)
	must(t, err)
	if proof.Different != 0 {
		t.Errorf("the spare is blamed: %+v", proof)
	}
	r.done()
	if n, most := r.p.bytes.Load()-before, int64(len(old["small"])+len(old["ranged"])); n > most {
		t.Errorf("%d bytes were copied again", n)
	}
	r.die()
	r.open()
	if n := r.p.verifiedCount(); n != r.p.nodes.Count() {
		t.Errorf("%d of %d objects are verified after a kill", n, r.p.nodes.Count())
	}
}

// turn makes the node map the one of a way back that was turned around just now, over a
// power cut: the records are those of the way there, and what they claim was claimed by it.
func (r *crashRig) turn(ctx context.Context) {
	r.t.Helper()
	there := r.store.Map('x')
	must(r.t, r.p.nodes.Iterate(func(n Node, rec *Record) error {
		return there.Put(rec.To, &Record{To: n, Type: rec.Type, Flags: rec.Flags, Size: rec.Size, Digest: rec.Digest, Print: 1})
	}))
	must(r.t, r.store.Drop('f'))
	must(r.t, r.p.buildFrom(ctx, there, true))
	must(r.t, r.p.nodes.Iterate(func(_ Node, rec *Record) error {
		if rec.Flags&Verified != 0 {
			r.t.Errorf("%v is verified over a power cut", rec.To)
		}
		return nil
	}))
	r.die()
}

// onDevice puts text over the start of old, which the device has once.
func onDevice(t *testing.T, dev, old, text string) {
	t.Helper()
	f, err := os.OpenFile(dev, os.O_RDWR, 0)
	must(t, err)
	defer f.Close()
	data, err := os.ReadFile(dev)
	must(t, err)
	at := bytes.Index(data, []byte(old))
	if at < 0 {
		t.Fatalf("%q is not on the device", old)
	}
	_, err = f.WriteAt([]byte(text), int64(at))
	must(t, err)
	must(t, f.Sync())
}
