package shadow

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/fsmigrate/fsmigrate/blockdev"
	"github.com/fsmigrate/fsmigrate/blockdev/blocktest"
	"github.com/fsmigrate/fsmigrate/copier"
)

// crashRig is a syncRig whose process can die: what is open is abandoned, and a new pair
// finds what is durable.
type crashRig struct {
	syncRig
	sdev, ddev, from, to, state string
	boots                       string            // makes the boot id another one
	files                       map[string]string // acknowledged: path → content
	seed                        uint64
	rnd                         *rand.Rand
}

func newCrashRig(t *testing.T, from, to string, spare int64, seed uint64) *crashRig {
	t.Helper()
	r := &crashRig{from: from, to: to, state: filepath.Join(t.TempDir(), "journal"), files: map[string]string{},
		seed: seed, rnd: rand.New(rand.NewPCG(seed, 1))}
	r.t = t
	r.src, r.sdev = blocktest.NewVolume(t, from, max(64<<20, blocktest.MinSize(from)))
	r.dst, r.ddev = blocktest.NewVolume(t, to, spare)
	r.sh("chmod 755 .")
	t.Cleanup(r.die)
	return r
}

// open is the start of a process.
func (r *crashRig) open() {
	r.t.Helper()
	var err error
	r.store, err = OpenStore(r.state, StoreOptions{})
	must(r.t, err)
	boot, err := blockdev.BootID()
	must(r.t, err)
	boot += r.boots
	r.p, err = newPair(pairOptions{From: r.volume(r.src, r.sdev, r.from), To: r.volume(r.dst, r.ddev, r.to), Store: r.store,
		Space: 'f', BootID: boot, Workers: 3, Limbo: ".fsmigrate-test"})
	must(r.t, err)
	r.w, err = StartWatch(r.p.from.fd, r.p.from.codec, r.p.handle)
	must(r.t, err)
	must(r.t, (&Tree{boot: boot}).recover(r.p))
	must(r.t, r.p.begin())
}

// die ends it, without a checkpoint.
func (r *crashRig) die() {
	if r.p == nil {
		return
	}
	must(r.t, r.w.Close())
	r.p.shut()
	must(r.t, r.store.Close())
	r.p = nil
}

// churn changes the tree by some operations, and remembers what every file must hold.
func (r *crashRig) churn(n int) {
	r.t.Helper()
	pick := func() string {
		best, low := "", ""
		for p := range r.files { // by a hash: the map's order is not the seed's
			if h := fmt.Sprintf("%x", uint64(len(p))*7919^r.rnd.Uint64()); low == "" || h < low {
				best, low = p, h
			}
		}
		return best
	}
	for i := range n {
		dir := fmt.Sprintf("d%d/e%d", r.rnd.IntN(4), r.rnd.IntN(3))
		must(r.t, os.MkdirAll(filepath.Join(r.src, dir), 0o755))
		name := fmt.Sprintf("%s/f%d", dir, r.rnd.IntN(40))
		old := pick()
		switch op := r.rnd.IntN(10); {
		case op < 4 || old == "":
			data := strings.Repeat(fmt.Sprintf("%d of %d\n", i, r.seed), 1+r.rnd.IntN(2000))
			must(r.t, os.WriteFile(filepath.Join(r.src, name), []byte(data), 0o644))
			r.files[name] = data
		case op < 6:
			if old != name {
				must(r.t, os.Rename(filepath.Join(r.src, old), filepath.Join(r.src, name)))
				r.files[name] = r.files[old]
				delete(r.files, old)
			}
		case op < 7:
			must(r.t, os.Remove(filepath.Join(r.src, old)))
			delete(r.files, old)
		case op < 8:
			a, b := fmt.Sprintf("d%d", r.rnd.IntN(4)), fmt.Sprintf("d%d", 4+r.rnd.IntN(3))
			if os.Rename(filepath.Join(r.src, a), filepath.Join(r.src, b)) == nil {
				moved := map[string]string{}
				for p, c := range r.files {
					if rest, ok := strings.CutPrefix(p, a+"/"); ok {
						p = b + "/" + rest
					}
					moved[p] = c
				}
				r.files = moved
			}
		case op < 9:
			must(r.t, os.Chmod(filepath.Join(r.src, old), 0o600+os.FileMode(r.rnd.IntN(64))))
		default:
			link := filepath.Join(r.src, name+".link")
			_ = os.Remove(link) // it may not be there
			must(r.t, os.Symlink(old, link))
		}
	}
}

// done is the oracle's both sides: all that we know of is proven, rsync finds nothing, and
// every file that was written is there.
func (r *crashRig) done() {
	r.t.Helper()
	r.p.step = nil
	r.quiet() // what failed was put right without the proof at the fence
	r.equal()
	r.settle()
	proof, err := r.p.verifyAll(context.Background())
	must(r.t, err)
	if proof.Different != 0 || r.p.verifiedCount() != r.p.nodes.Count() {
		must(r.t, r.p.nodes.Iterate(func(n Node, rec *Record) error {
			if rec.Flags&Verified == 0 {
				r.t.Logf("not verified: %s: %+v, dirty %v", r.p.from.nodePath(n), rec, r.p.journal.Dirty(n))
			}
			return nil
		}))
		r.t.Fatalf("seed %d: verified %d of %d: %+v", r.seed, r.p.verifiedCount(), r.p.nodes.Count(), proof)
	}
	r.equal()
	for path, want := range r.files {
		got, err := os.ReadFile(filepath.Join(r.dst, path))
		if err != nil || string(got) != want {
			r.t.Fatalf("seed %d: %s: %d bytes, want %d: %v", r.seed, path, len(got), len(want), err)
		}
	}
}

// steps calls run with k = 0, 1, 2 … until a run gets through, further apart as they grow.
func steps(t *testing.T, run func(t *testing.T, k int) (through bool)) {
	for k := 0; ; k = max(k+1, k*14/10) {
		through := false
		ok := t.Run(fmt.Sprint(k), func(t *testing.T) { through = run(t, k) })
		if through || !ok {
			return
		}
	}
}

var errStep = errors.New("this step fails")

// The k-th change of the other side fails, in the walk or in the pass after it; the same
// process goes on.
func TestPairFailsAtEveryStep(t *testing.T) {
	steps(t, func(t *testing.T, k int) bool {
		r := newCrashRig(t, "ext4", "ext4", 64<<20, uint64(k))
		r.churn(30)
		r.open()
		ctx := context.Background()
		n := failAt(r.p, k, false)
		if err := r.p.walk(ctx); err != nil {
			if !errors.Is(err, errStep) {
				t.Fatal(err)
			}
			must(t, r.p.walk(ctx))
		}
		r.churn(30)
		must(t, r.w.Barrier(ctx))
		if _, err := r.p.pass(ctx, passMode{durable: true}); err != nil && !errors.Is(err, errStep) {
			t.Fatal(err)
		}
		r.churn(5)
		r.done()
		return *n <= k
	})
}

// The process dies before the k-th change, in the walk or in the pass after it; things
// change while nobody watches, and another process goes on.
func TestPairDiesAtEveryStep(t *testing.T) {
	steps(t, func(t *testing.T, k int) bool {
		r := newCrashRig(t, "ext4", "ext4", 64<<20, uint64(1000+k))
		r.churn(30)
		r.open()
		ctx := context.Background()
		n := failAt(r.p, k, true)
		died := func(err error) {
			if err == nil {
				return
			}
			if !errors.Is(err, errStep) {
				t.Fatal(err)
			}
			r.die()
			r.churn(5)
			r.open()
		}
		died(r.p.walk(ctx))
		if r.p.step == nil {
			must(t, r.p.walk(ctx))
		}
		r.churn(30)
		must(t, r.w.Barrier(ctx))
		_, err := r.p.pass(ctx, passMode{durable: true})
		died(err)
		r.done()
		return *n <= k
	})
}

// failAt has step k fail, and with dead all that come after it. It gives the number of steps.
func failAt(p *pair, k int, dead bool) *int {
	n := new(int)
	p.step = func(op string) error {
		if op == "source-synced" {
			return nil
		}
		p.doneMu.Lock()
		defer p.doneMu.Unlock()
		*n++
		if *n-1 == k || dead && *n > k {
			return fmt.Errorf("%s: %w", op, errStep)
		}
		return nil
	}
	return n
}

// A spare that becomes full says so at any fill level; when there is room again the copy
// goes on, and nothing that was half written counts.
func TestPairSpareFull(t *testing.T) {
	for _, spare := range []int64{16, 24, 40} {
		t.Run(fmt.Sprint(spare), func(t *testing.T) {
			r := newCrashRig(t, "ext4", "ext4", spare<<20, uint64(spare))
			r.churn(30)
			r.sh("mkdir big; for i in 1 2 3 4 5; do head -c 7000000 /dev/urandom > big/$i; done; head -c 9000000 /dev/urandom > big/ranged")
			r.open()
			ctx := context.Background()
			err := r.p.walk(ctx)
			if !copier.Full(err) {
				t.Fatalf("got %v", err)
			}
			if spare == 24 {
				r.die()
				r.open()
			}
			r.sh("rm big/[2-5]; truncate -s 8500000 big/ranged; mv big/ranged big/other; rm big/1")
			if spare == 16 {
				r.sh("truncate -s 4000000 big/other")
			}
			must(t, r.w.Barrier(ctx))
			for range 5 { // limbo is emptied by the passes
				if err = r.p.walk(ctx); !copier.Full(err) {
					break
				}
			}
			must(t, err)
			r.done()
		})
	}
}

// After an overflow of the kernel's queue a scan finds everything, and copies
// only what changed.
func TestPairOverflow(t *testing.T) {
	r := newCrashRig(t, "ext4", "ext4", 64<<20, 7)
	r.sh("for d in $(seq 30); do mkdir d$d; for i in $(seq 30); do echo $d.$i > d$d/f$i; done; done")
	r.open()
	ctx := context.Background()
	must(t, r.w.Close())
	var held atomic.Pointer[chan struct{}]
	var err error
	r.w, err = StartWatchOptions(r.p.from.fd, r.p.from.codec, func(ev Event) {
		if c := held.Load(); c != nil {
			<-*c
		}
		r.p.handle(ev)
	}, WatchOptions{Limited: true})
	must(t, err)
	must(t, r.p.walk(ctx))
	r.settle()
	before := r.p.bytes.Load()
	gate := make(chan struct{})
	held.Store(&gate)
	r.sh("touch wake; python3 - <<'E'\nimport os\nfor i in range(9000):\n open('d1/g%d'%i,'w').close(); os.rename('d1/g%d'%i,'d2/g%d'%i)\nE\n")
	r.sh("rm d2/g*; echo changed > d7/f7; mv d8/f8 d9/moved; rm d9/f9; ln d10/f10 d11/linked; mkdir d12/new; echo in > d12/new/in")
	close(gate)
	must(t, r.w.Barrier(ctx))
	if !r.w.Lost() {
		t.Fatal("the queue did not overflow")
	}
	_, err = r.p.pass(ctx, passMode{})
	must(t, err)
	if n := r.p.bytes.Load() - before; n > 200 {
		t.Errorf("%d bytes were copied again", n)
	}
	r.done()
}
