package record_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"

	"github.com/fsmigrate/fsmigrate/blockdev/record"
)

const mib = 1 << 20

// reference is an image as plain bytes, and what a flush made durable of it.
type reference struct{ now, durable []byte }

// program does random things to two images and remembers what they hold after each
// entry of the log.
func program(t *testing.T, seed uint64, steps int) (l *record.Log, after [][]reference) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "log")
	r, err := record.NewRecorder(path, []record.ImageSpec{{Name: "a", Bytes: 1 * mib}, {Name: "b", Bytes: 2*mib - 5}})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	rng := rand.New(rand.NewPCG(seed, 1))
	refs := []reference{}
	for _, img := range r.Images() {
		refs = append(refs, reference{make([]byte, img.Bytes()), make([]byte, img.Bytes())})
	}
	snap := func() {
		copied := []reference{}
		for _, ref := range refs {
			copied = append(copied, reference{slices.Clone(ref.now), slices.Clone(ref.durable)})
		}
		after = append(after, copied)
	}
	snap()
	snap()
	snap() // before and after each of the two marks that declare an image
	for range steps {
		i := rng.IntN(2)
		d, ref := r.Disk(i), &refs[i]
		off := rng.Int64N(d.Size()/record.Sector) * record.Sector
		n := min(d.Size()-off, (1+rng.Int64N(40))*record.Sector)
		switch rng.IntN(10) {
		case 0:
			err = d.Sync()
			copy(ref.durable, ref.now)
		case 1:
			err = d.Discard(off, n)
			clear(ref.now[off : off+n])
		case 2:
			_, err = r.Mark(fmt.Sprint("step ", rng.IntN(100)))
		default:
			b := make([]byte, n)
			for j := range b {
				b[j] = byte(rng.Uint32())
			}
			_, err = d.WriteAt(b, off)
			copy(ref.now[off:], b)
		}
		if err != nil {
			t.Fatal(err)
		}
		got := make([]byte, d.Size())
		if _, err := d.ReadAt(got, 0); err != nil || !bytes.Equal(got, ref.now) {
			t.Fatalf("the image reads otherwise than it was written: %v", err)
		}
		snap()
	}
	if l, err = record.OpenLog(path); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	if len(l.Entries) != len(after)-1 {
		t.Fatalf("%d entries, want %d", len(l.Entries), len(after)-1)
	}
	return l, after
}

func readAll(t *testing.T, d record.Disk) []byte {
	t.Helper()
	b := make([]byte, d.Size())
	if _, err := d.ReadAt(b, 0); err != nil {
		t.Fatal(err)
	}
	return b
}

// Every prefix of the log is what the images held then; with everything lost it is what
// they durably held; and in between each sector is one that was written there since.
func TestEveryCut(t *testing.T) {
	for seed := range uint64(4) {
		l, after := program(t, seed, 60)
		for n := range after {
			for _, loss := range record.Losses() {
				s, err := l.State(record.Cut{Entries: n, Loss: loss, Seed: seed})
				if err != nil {
					t.Fatal(err)
				}
				for i := range l.Images {
					got, ref := readAll(t, s.Disk(i)), after[n][i]
					switch {
					case loss == record.LoseNone && !bytes.Equal(got, ref.now):
						t.Fatalf("seed %d, image %d after %d entries: not what was written", seed, i, n)
					case loss == record.LoseAll && !bytes.Equal(got, ref.durable):
						t.Fatalf("seed %d, image %d after %d entries: not what was flushed", seed, i, n)
					}
					requireKnown(t, got, after[:n+1], i)
				}
			}
		}
	}
}

// requireKnown requires that each page is one that was there at some time since the
// last flush, or before it.
func requireKnown(t *testing.T, got []byte, before [][]reference, image int) {
	t.Helper()
	last := before[len(before)-1][image]
	for at := 0; at < len(got); at += record.Sector {
		sector := got[at : at+record.Sector]
		if bytes.Equal(sector, last.durable[at:at+record.Sector]) {
			continue
		}
		if !slices.ContainsFunc(before, func(r []reference) bool { return bytes.Equal(sector, r[image].now[at:at+record.Sector]) }) {
			t.Fatalf("image %d, byte %d: nobody ever wrote this", image, at)
		}
	}
}

// The kinds of loss that choose do choose: some seeds lose something, some keep something,
// torn ones cut inside of a write and only at pages; and the same seed does the same.
func TestLossChooses(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	r, err := record.NewRecorder(path, []record.ImageSpec{{Name: "a", Bytes: mib}})
	if err != nil {
		t.Fatal(err)
	}
	for i := range int64(8) {
		if _, err := r.Disk(0).WriteAt(bytes.Repeat([]byte{byte(i + 1)}, 16384), i*16384); err != nil {
			t.Fatal(err)
		}
	}
	r.Close()
	l, err := record.OpenLog(path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	seen := map[record.Loss]map[string]bool{}
	for _, loss := range record.Losses() {
		seen[loss] = map[string]bool{}
		for seed := range uint64(40) {
			c := record.Cut{Entries: len(l.Entries), Loss: loss, Seed: seed}
			a, b := pattern(t, l, c), pattern(t, l, c)
			if a != b {
				t.Fatalf("%v: %s, and again: %s", c, a, b)
			}
			seen[loss][a] = true
		}
	}
	const full = "4444" + "4444"
	if len(seen[record.LoseAll]) != 1 || !seen[record.LoseAll]["00000000"] || len(seen[record.LoseNone]) != 1 || !seen[record.LoseNone][full] {
		t.Errorf("all and none: %v, %v", seen[record.LoseAll], seen[record.LoseNone])
	}
	if n := len(seen[record.LoseTail]); n < 5 || n > 9 {
		t.Errorf("tails of eight writes: %v", seen[record.LoseTail])
	}
	if m := seen[record.LoseMixed]; !m["00000000"] || !m[full] || len(m) < 10 {
		t.Errorf("mixed: %v", m)
	}
	if len(seen[record.LoseSubset]) < 20 || len(seen[record.LoseTorn]) < 30 {
		t.Errorf("%d subsets, %d torn", len(seen[record.LoseSubset]), len(seen[record.LoseTorn]))
	}
	for p := range seen[record.LoseSubset] {
		for _, c := range p {
			if c != '0' && c != '4' {
				t.Errorf("a subset tears a write: %s", p)
			}
		}
	}
}

// pattern says of each of the eight writes how many of its four pages arrived.
func pattern(t *testing.T, l *record.Log, c record.Cut) (s string) {
	t.Helper()
	state, err := l.State(c)
	if err != nil {
		t.Fatal(err)
	}
	b := readAll(t, state.Disk(0))
	for i := range 8 {
		n := 0
		for p := range 4 {
			page := b[i*16384+p*4096:][:4096]
			switch bytes.Count(page, []byte{byte(i + 1)}) {
			case 4096:
				n++
			case 0:
			default:
				t.Fatalf("%v: a page is torn", c)
			}
		}
		s += fmt.Sprint(n)
	}
	return s
}

// A state can be written to, and the next one of the same cut knows nothing of it.
func TestStateForgets(t *testing.T) {
	l, after := program(t, 9, 40)
	c := record.Cut{Entries: len(l.Entries), Loss: record.LoseNone}
	rng := rand.New(rand.NewPCG(3, 3))
	for range 2 {
		s, err := l.State(c)
		if err != nil {
			t.Fatal(err)
		}
		d, want := s.Disk(1), slices.Clone(after[len(after)-1][1].now)
		if got := readAll(t, d); !bytes.Equal(got, want) || s.Written() != 0 {
			t.Fatal("the state does not begin as the cut left it")
		}
		for range 50 {
			off := rng.Int64N(d.Size()/record.Sector) * record.Sector
			b := bytes.Repeat([]byte{byte(rng.Uint32())}, int(min(d.Size()-off, (1+rng.Int64N(30))*record.Sector)))
			if rng.IntN(5) == 0 {
				clear(b)
				err = d.Discard(off, int64(len(b)))
			} else {
				_, err = d.WriteAt(b, off)
			}
			if err != nil {
				t.Fatal(err)
			}
			copy(want[off:], b)
		}
		if got := readAll(t, d); !bytes.Equal(got, want) || s.Written() == 0 {
			t.Fatal("the state reads otherwise than it was written")
		}
	}
}

// What no disk does is refused, and leaves no entry.
func TestRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	r, err := record.NewRecorder(path, []record.ImageSpec{{Name: "a", Bytes: mib}})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	d := r.Disk(0)
	for _, do := range []func() error{
		func() error { _, err := d.WriteAt(make([]byte, 512), mib); return err },
		func() error { _, err := d.WriteAt(make([]byte, 1024), mib-512); return err },
		func() error { _, err := d.WriteAt(make([]byte, 511), 0); return err },
		func() error { _, err := d.WriteAt(make([]byte, 512), 1); return err },
		func() error { _, err := d.ReadAt(make([]byte, 512), -512); return err },
		func() error { return d.Discard(mib-512, 1024) },
		func() error { _, err := r.Mark(""); return err },
		func() error { _, err := r.Mark(string(make([]byte, record.MaxMark+1))); return err },
		func() error { _, err := record.NewRecorder(path, nil); return err }, // never over an old one
	} {
		if do() == nil {
			t.Error("something impossible was acknowledged")
		}
	}
	l, err := record.OpenLog(path)
	if err != nil || len(l.Entries) != 1 {
		t.Fatalf("log: %v, %d entries", err, len(l.Entries))
	}
	defer l.Close()
	for _, c := range []record.Cut{{Entries: 2, Loss: record.LoseAll}, {Entries: -1, Loss: record.LoseAll}, {Entries: 1, Loss: "some"}} {
		if _, err := l.State(c); err == nil {
			t.Errorf("there is a state after %v", c)
		}
	}
}

// A machine that goes on after a cut has what the cut left, and what it does then is in
// a log of its own.
func TestContinue(t *testing.T) {
	l, _ := program(t, 5, 60)
	cut := record.Cut{Entries: 45, Loss: record.LoseSubset, Seed: 9}
	left, err := l.State(cut)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "next")
	r, err := record.Continue(path, left)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for i := range l.Images {
		want, got := make([]byte, left.Disk(i).Size()), make([]byte, left.Disk(i).Size())
		_, werr := left.Disk(i).ReadAt(want, 0)
		_, gerr := r.Disk(i).ReadAt(got, 0)
		if werr != nil || gerr != nil || !bytes.Equal(got, want) {
			t.Fatalf("image %d is another: %v, %v", i, werr, gerr)
		}
		if bytes.Count(want, []byte{0}) == len(want) {
			t.Fatalf("image %d is empty: this tests nothing", i)
		}
	}
	next, err := record.OpenLog(path)
	if err != nil {
		t.Fatal(err)
	}
	defer next.Close()
	// What it began with is durable, whatever is lost.
	again, err := next.State(record.Cut{Entries: len(next.Entries), Loss: record.LoseAll})
	if err != nil {
		t.Fatal(err)
	}
	want, got := make([]byte, left.Disk(1).Size()), make([]byte, left.Disk(1).Size())
	_, werr := left.Disk(1).ReadAt(want, 0)
	_, gerr := again.Disk(1).ReadAt(got, 0)
	if werr != nil || gerr != nil || !bytes.Equal(got, want) {
		t.Fatalf("what it began with is lost with the cache: %v, %v", werr, gerr)
	}
}
