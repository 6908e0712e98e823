package formattest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fsmigrate/fsmigrate/formats"
)

// Populate fills a mounted volume with objects of every type, at the limits of
// what the format says it can hold, with deletions and reused inode numbers in
// between. It returns the records of files that are open and unlinked, and a
// function that closes them.
func Populate(t testing.TB, dir string, l formats.Limits) (orphans []formats.InodeRecord, done func()) {
	t.Helper()
	at := func(p string) string { return filepath.Join(dir, p) }
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.MkdirAll(at("d/e/f"), 0o2755))
	for i := range 200 {
		must(os.WriteFile(at(fmt.Sprintf("d/file%d", i)), []byte(strings.Repeat("x", i*37)), 0o640))
	}
	must(os.WriteFile(at(strings.Repeat("n", l.NameBytes)), nil, 0o600))
	must(os.WriteFile(at("a\nb\xff\xfe"), []byte("odd name"), 0o4755))
	must(os.Link(at("d/file1"), at("d/e/linked")))
	must(os.Link(at("d/file1"), at("d/e/f/linked")))
	must(os.Symlink("short", at("symlink")))
	must(os.Symlink(strings.Repeat("l", l.SymlinkBytes), at("longlink")))
	for name, mode := range map[string]uint32{"fifo": unix.S_IFIFO, "socket": unix.S_IFSOCK, "char": unix.S_IFCHR, "block": unix.S_IFBLK} {
		must(unix.Mknod(at(name), mode|0o604, int(unix.Mkdev(259, 70000))))
	}
	for i, id := range []int{0, 1, 65535, 65536, 70000, 1<<32 - 2} {
		name := at(fmt.Sprintf("id%d", i))
		must(os.WriteFile(name, []byte("id"), 0o600))
		must(os.Chown(name, id, id))
		must(os.Lchown(at("symlink"), id, id))
	}
	sparse(t, at("sparse"), l)
	times(t, dir, l)
	// Numbers that were used before: deleted, and some taken again.
	for i := range 60 {
		must(os.Remove(at(fmt.Sprintf("d/file%d", 20+i))))
	}
	for i := range 30 {
		must(os.WriteFile(at(fmt.Sprintf("d/e/again%d", i)), []byte("second life"), 0o600))
	}
	for i := range 300 { // a directory of several blocks
		must(os.MkdirAll(at(fmt.Sprintf("many/%s%d", strings.Repeat("w", 40), i)), 0o755))
	}
	var open []*os.File
	for i := range 3 {
		f, err := os.Create(at(fmt.Sprintf("orphan%d", i)))
		must(err)
		_, err = f.WriteString("still open")
		must(err)
		must(os.Remove(f.Name()))
		open = append(open, f)
	}
	for _, f := range open {
		rec, err := Record(int(f.Fd()), "", unix.AT_EMPTY_PATH)
		must(err)
		orphans = append(orphans, rec)
	}
	return orphans, func() {
		for _, f := range open {
			f.Close()
		}
	}
}

func sparse(t testing.TB, path string, l formats.Limits) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	// With a block at the end the last byte is where most formats draw the line.
	size := min(l.MaxFile, 1<<45)
	if err := f.Truncate(size); err != nil {
		t.Fatalf("truncate to %d: %v", size, err)
	}
	if _, err := f.WriteAt([]byte("in the middle"), size/2); err != nil && !errors.Is(err, unix.EFBIG) {
		t.Fatal(err)
	}
}

// TimesOf are the modification times that are tried on a format, all in its range.
func TimesOf(l formats.Limits) []unix.Timespec {
	var out []unix.Timespec
	for _, sec := range []int64{-1 << 31, -1, 0, 1, 1<<31 - 1, 1 << 31, 1<<32 - 1, 1 << 32, 1 << 33, 15032385535, 15032385536, 16299260424, 1 << 40} {
		if sec < l.TimeMin || sec > l.TimeMax {
			continue
		}
		out = append(out, unix.Timespec{Sec: sec})
		// At the very ends of the range the kernel drops the nanoseconds.
		if l.TimeGranularity == 1 && sec != l.TimeMax && sec != l.TimeMin {
			out = append(out, unix.Timespec{Sec: sec, Nsec: 999999999}, unix.Timespec{Sec: sec, Nsec: 1})
		}
	}
	return out
}

func times(t testing.TB, dir string, l formats.Limits) {
	t.Helper()
	for i, ts := range TimesOf(l) {
		name := filepath.Join(dir, fmt.Sprintf("time%d", i))
		if err := os.WriteFile(name, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := unix.UtimesNanoAt(unix.AT_FDCWD, name, []unix.Timespec{ts, ts}, 0); err != nil {
			t.Fatal(err)
		}
		var st unix.Stat_t
		if err := unix.Stat(name, &st); err != nil {
			t.Fatal(err)
		}
		if st.Mtim != ts {
			t.Errorf("time %v was stored as %v", ts, st.Mtim)
		}
	}
}

// Touch makes an empty file named for i.
func Touch(t testing.TB, dir string, i int) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("touched%d", i)), nil, 0o600); err != nil {
		t.Fatal(err)
	}
}
