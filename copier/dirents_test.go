package copier

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestListDirLarge(t *testing.T) {
	dir := t.TempDir()
	fd := openDir(t, dir)
	want := map[string]bool{}
	for i := range 20000 {
		name := fmt.Sprintf("%d-%s", i, strings.Repeat("n", i%200))
		want[name] = true
		if err := unix.Mknodat(fd, name, unix.S_IFREG|0o600, 0); err != nil {
			t.Fatal(err)
		}
	}
	b := NewBuffers()
	for range 2 { // from the beginning each time
		got := map[string]bool{}
		if err := ListDir(fd, b, func(d Dirent) error {
			got[strings.Clone(d.Name)] = true
			if d.Type != unix.DT_REG || d.Ino == 0 {
				t.Errorf("%+v", d)
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		if len(got) != len(want) {
			t.Fatalf("%d of %d entries", len(got), len(want))
		}
		for n := range want {
			if !got[n] {
				t.Fatalf("%q is missing", n)
			}
		}
	}
	n := 0
	if allocs := testing.AllocsPerRun(2, func() {
		if err := ListDir(fd, b, func(Dirent) error { n++; return nil }); err != nil {
			t.Fatal(err)
		}
	}); allocs > 0 {
		t.Errorf("%v allocations", allocs)
	}
	stop := errors.New("stop")
	if err := ListDir(fd, b, func(Dirent) error { return stop }); err != stop {
		t.Errorf("the callback's error came back as %v", err)
	}
}

func TestListDirOfAFile(t *testing.T) {
	writeFile(t, t.TempDir()+"/f", nil)
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := ListDir(int(f.Fd()), NewBuffers(), nil); !isErrno(err, unix.ENOTDIR) {
		t.Errorf("got %v", err)
	}
}

func dirent(ino uint64, typ byte, name string) []byte {
	n := (direntName + len(name) + 1 + 7) &^ 7
	b := make([]byte, n)
	binary.NativeEndian.PutUint64(b, ino)
	binary.NativeEndian.PutUint16(b[direntReclen:], uint16(n))
	b[direntType] = typ
	copy(b[direntName:], name)
	return b
}

func FuzzDirents(f *testing.F) {
	f.Add(append(dirent(1, unix.DT_DIR, "."), dirent(2, unix.DT_REG, "file")...))
	f.Add(dirent(3, 0, strings.Repeat("x", 255)))
	f.Add([]byte{})
	f.Add(make([]byte, 24))
	f.Fuzz(func(t *testing.T, raw []byte) {
		n := 0
		err := parseDirents(raw, func(d Dirent) error {
			if d.Name == "" || d.Name == "." || d.Name == ".." || strings.IndexByte(d.Name, 0) >= 0 {
				t.Errorf("entry %q", d.Name)
			}
			n++
			return nil
		})
		if err == nil && n > len(raw)/(direntName+2) {
			t.Errorf("%d entries from %d bytes", n, len(raw))
		}
	})
}

func FuzzPressure(f *testing.F) {
	f.Add("some avg10=0.00 avg60=0.04 avg300=0.03 total=3702910\nfull avg10=0.00 avg60=0.04 avg300=0.02 total=3388809\n")
	f.Add("some total=18446744073709551615\n")
	f.Fuzz(func(t *testing.T, s string) {
		if d, err := parsePressure(s); err == nil && d < 0 {
			t.Errorf("%q is %v", s, d)
		}
	})
}
