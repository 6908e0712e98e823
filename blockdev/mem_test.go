package blockdev_test

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/fsmigrate/fsmigrate/blockdev"
)

var _ = []blockdev.Storage{(*blockdev.Mem)(nil), (*blockdev.Crash)(nil), (*blockdev.Fail)(nil)}

// A Mem does what a slice of bytes does.
func TestMemIsBytes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.IntRange(0, 20000).Draw(t, "size")
		m, want := blockdev.NewMem(int64(size)), make([]byte, size)
		for range rapid.IntRange(1, 20).Draw(t, "ops") {
			off := rapid.IntRange(0, size).Draw(t, "off")
			p := rapid.SliceOfN(rapid.Byte(), 0, 9000).Draw(t, "data")
			n, err := m.WriteAt(p, int64(off))
			if fits := off+len(p) <= size; fits != (err == nil) || (fits && n != len(p)) {
				t.Fatalf("write %d at %d of %d: %d, %v", len(p), off, size, n, err)
			} else if fits {
				copy(want[off:], p)
			}
		}
		got := make([]byte, size+1)
		if n, err := m.ReadAt(got, 0); n != size || err != io.EOF || !bytes.Equal(got[:n], want) {
			t.Fatalf("read %d, %v; equal %v", n, err, bytes.Equal(got[:n], want))
		}
	})
}

// Whatever a power cut does, what was synced is there, and each 4 KiB of the
// rest is one of the versions that were written since.
func TestCrashKeepsWhatWasSynced(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const pages = 8
		c := blockdev.NewCrash(pages * 4096)
		allowed := make([]map[byte]bool, pages)
		for i := range allowed {
			allowed[i] = map[byte]bool{0: true}
		}
		for v := byte(1); v <= byte(rapid.IntRange(1, 12).Draw(t, "writes")); v++ {
			first := rapid.IntRange(0, pages-1).Draw(t, "first")
			n := rapid.IntRange(1, pages-first).Draw(t, "n")
			if _, err := c.WriteAt(bytes.Repeat([]byte{v}, n*4096), int64(first*4096)); err != nil {
				t.Fatal(err)
			}
			for i := first; i < first+n; i++ {
				allowed[i][v] = true
			}
			if rapid.Bool().Draw(t, "sync") {
				if err := c.Sync(); err != nil || c.Pending() != 0 {
					t.Fatal(err, c.Pending())
				}
				for i := range allowed {
					b := make([]byte, 1)
					c.ReadAt(b, int64(i*4096))
					allowed[i] = map[byte]bool{b[0]: true}
				}
			}
		}
		m := c.Crash(rapid.Uint64().Draw(t, "seed"))
		for i := range allowed {
			b := make([]byte, 4096)
			if _, err := m.ReadAt(b, int64(i*4096)); err != nil {
				t.Fatal(err)
			}
			if !allowed[i][b[0]] || bytes.Count(b, b[:1]) != len(b) {
				t.Fatalf("page %d holds %d; allowed %v", i, b[0], allowed[i])
			}
		}
	})
}

func TestCrashWays(t *testing.T) {
	c := blockdev.NewCrash(64 << 10)
	for i := range 4 {
		if _, err := c.WriteAt(bytes.Repeat([]byte{byte(i + 1)}, 8192), int64(i)*8192); err != nil {
			t.Fatal(err)
		}
	}
	// What each way can leave of the four writes: per half write, in order.
	seen := map[blockdev.Loss]map[string]bool{}
	ways := []blockdev.Loss{blockdev.LoseAll, blockdev.LoseNone, blockdev.LoseTail, blockdev.LoseSubset, blockdev.LoseTorn}
	for _, how := range ways {
		seen[how] = map[string]bool{}
		for seed := range uint64(400) {
			m, text := c.CrashWith(how, seed), ""
			for i := range 8 {
				b := make([]byte, 1)
				m.ReadAt(b, int64(i)*4096)
				text += string('0' + b[0])
			}
			seen[how][text] = true
		}
	}
	for how, n := range map[blockdev.Loss]int{blockdev.LoseAll: 1, blockdev.LoseNone: 1, blockdev.LoseTail: 5, blockdev.LoseSubset: 16} {
		if len(seen[how]) != n {
			t.Errorf("%s left %d pictures, want %d: %v", how, len(seen[how]), n, seen[how])
		}
	}
	if !seen[blockdev.LoseAll]["00000000"] || !seen[blockdev.LoseNone]["11223344"] || !seen[blockdev.LoseTail]["11220000"] || seen[blockdev.LoseTail]["00220000"] {
		t.Errorf("pictures: %v", seen)
	}
	if len(seen[blockdev.LoseTorn]) < 100 {
		t.Errorf("only %d torn pictures", len(seen[blockdev.LoseTorn]))
	}
	if b := make([]byte, 1); true {
		c.ReadAt(b, 3*8192)
		if b[0] != 4 || c.Pending() != 4 {
			t.Error("the device didn't go on undisturbed")
		}
	}
}

func TestFailEachOperation(t *testing.T) {
	run := func(s blockdev.Storage) error {
		if _, err := s.WriteAt([]byte("abcd"), 0); err != nil {
			return err
		}
		if err := s.Sync(); err != nil {
			return err
		}
		_, err := s.ReadAt(make([]byte, 4), 0)
		return err
	}
	for k := 0; ; k++ {
		f := &blockdev.Fail{Storage: blockdev.NewMem(4096), K: k, Err: unix.ENOSPC, Short: 2}
		err := run(f)
		if !f.Failed() {
			if err != nil || k != 3 {
				t.Fatalf("got through at %d with %v", k, err)
			}
			break
		}
		wantErr(t, "run", err, unix.ENOSPC)
		b := make([]byte, 4)
		f.Storage.ReadAt(b, 0)
		if want := []string{"ab\x00\x00", "abcd", "abcd"}[k]; string(b) != want {
			t.Errorf("at %d the device holds %q, want %q", k, b, want)
		}
	}
}

func TestFailChooses(t *testing.T) {
	var stalled []blockdev.Op
	f := &blockdev.Fail{Storage: blockdev.NewMem(4096), Only: blockdev.OpSync, Sticky: true, K: 1,
		Stall: func(op blockdev.Op, k int) { stalled = append(stalled, op) }}
	var errs []error
	for range 3 {
		_, err := f.WriteAt([]byte("x"), 0)
		errs = append(errs, err, f.Sync())
	}
	for i, want := range []bool{false, false, false, true, false, true} {
		if (errs[i] != nil) != want || (want && !errors.Is(errs[i], unix.EIO)) {
			t.Errorf("operation %d: %v", i, errs[i])
		}
	}
	if len(stalled) != 3 || f.Seen() != 3 {
		t.Errorf("stalled at %v, saw %d", stalled, f.Seen())
	}
}
