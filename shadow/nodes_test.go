package shadow

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/fsmigrate/fsmigrate/copier"
)

// memStore is a store in memory, on fs or on a fresh one.
func memStore(t testing.TB, fs vfs.FS) *Store {
	t.Helper()
	if fs == nil {
		fs = vfs.NewMem()
	}
	s, err := OpenStore("journal", StoreOptions{fs: fs, CacheBytes: 1 << 20})
	must(t, err)
	t.Cleanup(func() { s.Close() })
	return s
}

var genNode = rapid.Custom(func(t *rapid.T) Node {
	return Node{rapid.Uint64Range(1, 40).Draw(t, "ino"), rapid.Uint32Range(0, 1).Draw(t, "gen")}
})

var genRecord = rapid.Custom(func(t *rapid.T) *Record {
	r := &Record{
		To: Node{rapid.Uint64Range(1, 60).Draw(t, "to"), rapid.Uint32().Draw(t, "togen")}, Type: rapid.Uint8().Draw(t, "type"),
		Flags: rapid.Uint8().Draw(t, "flags"), Epoch: rapid.Uint64().Draw(t, "epoch"),
		Print: Print(rapid.Uint64().Draw(t, "print")), Size: rapid.Int64().Draw(t, "size"),
	}
	if rapid.Bool().Draw(t, "digest") {
		copy(r.Digest[:], rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "digest bytes"))
	}
	if rapid.Bool().Draw(t, "parent") {
		r.Parent = genNode.Draw(t, "parent node")
		r.Name = rapid.String().Draw(t, "name")
	}
	return r
})

// The map says the same as two Go maps, through the map and through batches, and
// after it was opened again.
func TestNodeMapAgainstAMap(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		fs := vfs.NewMem()
		s, err := OpenStore("journal", StoreOptions{fs: fs, CacheBytes: 1 << 20})
		must(t, err)
		m := s.Map('f')
		b := m.Batch()
		want := map[Node]Record{}
		owner := map[Node]Node{} // To → who put it last
		for range rapid.IntRange(1, 80).Draw(rt, "ops") {
			n := genNode.Draw(rt, "node")
			r := genRecord.Draw(rt, "record")
			// One counterpart belongs to one object.
			if o, taken := owner[r.To]; taken && o != n {
				r.To = Node{r.To.Ino + 1000*n.Ino, n.Gen}
			}
			switch rapid.IntRange(0, 15).Draw(rt, "op") {
			default:
				must(t, b.Put(n, r))
				delete(owner, want[n].To)
				want[n], owner[r.To] = *r, n
			case 3:
				must(t, b.Delete(n))
				delete(owner, want[n].To)
				delete(want, n)
			case 4:
				must(t, b.Commit())
			case 5:
				must(t, b.Commit())
				b.Close()
				must(t, s.Close())
				s, err = OpenStore("journal", StoreOptions{fs: fs, CacheBytes: 1 << 20})
				must(t, err)
				m = s.Map('f')
				b = m.Batch()
			}
		}
		must(t, b.Commit())
		b.Close()
		defer s.Close()
		if m.Count() != int64(len(want)) {
			rt.Fatalf("count %d, want %d", m.Count(), len(want))
		}
		var last Node
		must(t, m.Iterate(func(n Node, r *Record) error {
			if w, ok := want[n]; !ok || *r != w || compareNodes(last, n) >= 0 {
				rt.Fatalf("iterate: %v %+v, want %+v", n, r, w)
			}
			last = n
			return nil
		}))
		for n, w := range want {
			r, ok, err := m.Get(n)
			if err != nil || !ok || r != w {
				rt.Fatalf("get %v: %+v %v %v, want %+v", n, r, ok, err, w)
			}
			if from, ok, err := m.From(w.To); err != nil || !ok || from != n {
				rt.Fatalf("from %v: %v %v %v, want %v", w.To, from, ok, err, n)
			}
		}
		inverse := 0
		must(t, s.scan([]byte{'f', 'i'}, func([]byte, []byte) error { inverse++; return nil }))
		if inverse != len(want) {
			rt.Fatalf("%d ways back for %d records", inverse, len(want))
		}
	})
}

func TestNodeMapRangesAndDrop(t *testing.T) {
	s := memStore(t, nil)
	f, r := s.Map('f'), s.Map('r')
	n := Node{7, 1}
	must(t, f.Put(n, &Record{To: Node{8, 1}, Epoch: 1}))
	must(t, r.Put(Node{8, 1}, &Record{To: n, Epoch: 1}))
	must(t, f.PutRanges(n, []byte("ranges")))
	must(t, s.SetMeta("who", []byte("me"), true))
	if b, ok, err := f.Ranges(n); err != nil || !ok || !bytes.Equal(b, []byte("ranges")) {
		t.Errorf("%q %v %v", b, ok, err)
	}
	must(t, f.Delete(n))
	if _, ok, _ := f.Ranges(n); ok {
		t.Error("ranges outlived their object")
	}
	must(t, f.Put(n, &Record{To: Node{8, 1}, Epoch: 1}))
	must(t, s.Drop('f'))
	if _, ok, _ := f.Get(n); ok || f.Count() != 0 {
		t.Error("dropped, and there")
	}
	if _, ok, err := r.Get(Node{8, 1}); !ok || err != nil {
		t.Error("the other name space was dropped too")
	}
	if v, ok, err := s.Meta("who"); !ok || err != nil || string(v) != "me" {
		t.Errorf("%q %v %v", v, ok, err)
	}
	if _, ok, err := s.Meta("other"); ok || err != nil {
		t.Error("there is no such value")
	}
	if err := f.Put(n, &Record{}); err == nil {
		t.Error("a record without a counterpart")
	}
}

func TestNodeMapPrintsAndDistrust(t *testing.T) {
	fs := vfs.NewMem()
	s := memStore(t, fs)
	m := s.Map('f')
	for i := range uint64(100) {
		must(t, m.Put(Node{i + 1, 1}, &Record{To: Node{i + 1000, 1}, Epoch: i, Print: Print(i + 1), Flags: Verified}))
	}
	must(t, m.Put(Node{200, 1}, &Record{To: Node{5000, 1}, Epoch: 1, Print: 9, Flags: Racy}))
	// The number was used again: the later copy counts.
	must(t, m.Put(Node{300, 9}, &Record{To: Node{5001, 1}, Epoch: 5, Print: 1}))
	must(t, m.Put(Node{300, 5}, &Record{To: Node{5002, 1}, Epoch: 7, Print: 2}))
	p := NewPrints()
	must(t, m.LoadPrints(p))
	if p.Len() != 101 || p.Get(50) != 50 || p.Get(200) != 0 || p.Get(300) != 2 {
		t.Errorf("%d prints, %d %d %d", p.Len(), p.Get(50), p.Get(200), p.Get(300))
	}
	dirty := 0
	must(t, m.DirtyAfter(89, func(Node) { dirty++ }))
	n, err := m.Distrust(89)
	if err != nil || n != 10 || dirty != 10 {
		t.Errorf("distrusted %d, dirty %d, %v", n, dirty, err)
	}
	p.Clear()
	must(t, m.LoadPrints(p))
	if p.Len() != 91 || p.Get(90) != 90 || p.Get(91) != 0 {
		t.Errorf("%d prints", p.Len())
	}
	if r, _, _ := m.Get(Node{91, 1}); r.Flags&Verified != 0 || r.Print != 0 || r.To != (Node{1090, 1}) {
		t.Errorf("%+v", r)
	}
}

// After a power cut no file's content is vouched for by its inode, and nothing is verified.
func TestNodeMapDoubt(t *testing.T) {
	m := memStore(t, vfs.NewMem()).Map('f')
	const file, dir = unix.S_IFREG >> 12, unix.S_IFDIR >> 12
	put := func(ino uint64, r Record) {
		r.To, r.Print = Node{ino + 1000, 1}, 7
		must(t, m.Put(Node{ino, 1}, &r))
	}
	put(1, Record{Type: file, Size: 1, Epoch: 3, Flags: Verified | Linked})
	put(2, Record{Type: file, Size: 0, Epoch: 3, Flags: Verified})
	put(3, Record{Type: dir, Size: 4096, Epoch: 3, Flags: Verified})
	put(4, Record{Type: file, Size: 9, Epoch: 4, Flags: Verified})
	if late, err := m.Doubt(3); err != nil || late != 1 {
		t.Errorf("%d are of a later epoch, %v", late, err)
	}
	for ino, want := range map[uint64]Record{1: {Flags: Doubted | Linked, Print: 7}, 2: {Print: 7}, 3: {Print: 7}, 4: {Flags: Doubted}} {
		if r, _, err := m.Get(Node{ino, 1}); err != nil || r.Flags != want.Flags || r.Print != want.Print {
			t.Errorf("%d: flags %#x, print %d, %v; want %#x, %d", ino, r.Flags, r.Print, err, want.Flags, want.Print)
		}
	}
}

// I8: a record that cannot be read is an error, never a guess.
func TestNodeMapMalformed(t *testing.T) {
	s := memStore(t, nil)
	m := s.Map('f')
	must(t, m.Put(Node{1, 1}, &Record{To: Node{2, 2}}))
	b := s.db.NewBatch()
	must(t, b.Set(nodeKey(nil, 'f', 'n', Node{1, 1}), []byte("garbage"), nil))
	must(t, s.apply(b, false))
	if _, _, err := m.Get(Node{1, 1}); !errors.Is(err, ErrRecord) {
		t.Error(err)
	}
	if err := m.Iterate(func(Node, *Record) error { return nil }); !errors.Is(err, ErrRecord) {
		t.Error(err)
	}
}

// A digest of an earlier definition proves nothing and refutes nothing: the file counts as
// changed, and as not verified.
func TestRecordOfAnEarlierDigest(t *testing.T) {
	for _, c := range []struct {
		size int64
		typ  uint8
		kept bool
	}{{5, 8, true}, {copier.DigestSame, 8, true}, {copier.DigestSame + 1, 8, false}, {1 << 44, 8, false}, {1 << 30, 4, true}} {
		was := Record{To: Node{3, 4}, Type: c.typ, Flags: Verified, Print: 7, Size: c.size, Digest: [32]byte{1}}
		b := appendRecord(nil, &was)
		b[0] = recordOld
		var r Record
		must(t, decodeRecord(b, &r))
		if kept := r == was; kept != c.kept {
			t.Errorf("%d bytes: %+v", c.size, r)
		}
		if !c.kept && (r.Digest != [32]byte{} || r.Print != 0 || r.Flags != NoDigest) {
			t.Errorf("%d bytes: %+v", c.size, r)
		}
	}
}

func FuzzRecord(f *testing.F) {
	f.Add(appendRecord(nil, &Record{To: Node{300, 4}, Epoch: 5, Size: 1 << 40, Digest: [32]byte{1}, Parent: Node{2, 0}, Name: "n"}))
	f.Add(appendRecord(nil, &Record{To: Node{1, 2}}))
	f.Add(append([]byte{recordOld}, appendRecord(nil, &Record{To: Node{3, 4}, Type: 8, Flags: Verified, Print: 7, Size: 1 << 21, Digest: [32]byte{1}})[1:]...))
	f.Add([]byte{1})
	f.Fuzz(func(t *testing.T, b []byte) {
		var r Record
		if err := decodeRecord(b, &r); err != nil {
			if !errors.Is(err, ErrRecord) {
				t.Error(err)
			}
			return
		}
		again := appendRecord(nil, &r)
		if b[0] == recordOld {
			var new Record
			if err := decodeRecord(again, &new); err != nil || new != r {
				t.Errorf("%x is %+v, written anew %+v: %v", b, r, new, err)
			}
			return
		}
		if !bytes.Equal(again, b) {
			t.Errorf("%x is %+v is %x", b, r, again)
		}
	})
}

func ExampleNodeMap() {
	s, err := OpenStore("journal", StoreOptions{fs: vfs.NewMem()})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer s.Close()
	m := s.Map('f')
	_ = m.Put(Node{Ino: 12, Gen: 1}, &Record{To: Node{Ino: 131, Gen: 9}})
	n, ok, _ := m.From(Node{Ino: 131, Gen: 9})
	fmt.Println(n, ok)
	// Output: 12/00000001 true
}
