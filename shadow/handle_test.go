package shadow

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestHandleOfEveryType(t *testing.T) {
	eachVolume(t, func(t *testing.T, v *testVolume) {
		v.write("file", "x")
		must(t, os.Mkdir(v.path("dir"), 0o755))
		must(t, os.Symlink("file", v.path("link")))
		must(t, unix.Mkfifo(v.path("fifo"), 0o644))
		must(t, unix.Mknod(v.path("dev"), unix.S_IFCHR|0o600, 0x103))
		long := strings.Repeat("n", 255)
		v.write(long, "y")
		seen := map[Node]bool{}
		for _, name := range []string{"file", "dir", "link", "fifo", "dev", long} {
			n := v.node(name)
			var st unix.Stat_t
			must(t, unix.Lstat(v.path(name), &st))
			if n.Ino != st.Ino {
				t.Errorf("%s: node %v, but inode %d", name, n, st.Ino)
			}
			if seen[n] {
				t.Errorf("%s: node %v twice", name, n)
			}
			seen[n] = true
			fd, err := v.codec.Open(v.fd, n, unix.O_PATH|unix.O_NOFOLLOW)
			must(t, err)
			again, err := v.codec.NodeAt(fd, "", unix.AT_EMPTY_PATH)
			unix.Close(fd)
			if err != nil || again != n {
				t.Errorf("%s: opened %v by handle, got %v, %v", name, n, again, err)
			}
		}
		follow, err := v.codec.NodeAt(v.fd, "link", unix.AT_SYMLINK_FOLLOW)
		if err != nil || follow != v.node("file") {
			t.Errorf("following the link: %v, %v", follow, err)
		}
		if v.codec.Root() != v.node(".") {
			t.Errorf("root is %v, not %v", v.codec.Root(), v.node("."))
		}
	})
}

func TestHandleOfGoneObject(t *testing.T) {
	eachVolume(t, func(t *testing.T, v *testVolume) {
		// An inode number used again is another Node, and the old one is gone.
		v.write("a", "1")
		old := v.node("a")
		must(t, os.Remove(v.path("a")))
		reused := false
		for range 64 {
			v.write("a", "2")
			now := v.node("a")
			if now == old {
				t.Fatalf("%v is two objects", now)
			}
			reused = reused || now.Ino == old.Ino
			must(t, os.Remove(v.path("a")))
		}
		t.Logf("number used again: %v", reused)
		_, err := v.codec.Open(v.fd, old, unix.O_PATH)
		if !errors.Is(err, ErrGone) || !errors.Is(err, unix.ESTALE) {
			t.Errorf("opening what is gone: %v", err)
		}
		// Unlinked but open is not gone.
		f, err := os.Create(v.path("b"))
		must(t, err)
		defer f.Close()
		n := v.node("b")
		must(t, os.Remove(v.path("b")))
		fd, err := v.codec.Open(v.fd, n, unix.O_RDONLY)
		must(t, err)
		unix.Close(fd)
	})
}

// ext takes generation 0 in a handle for any generation.
func TestHandleGenerationZeroIsNoWildcard(t *testing.T) {
	eachVolume(t, func(t *testing.T, v *testVolume) {
		v.write("a", "1")
		n := v.node("a")
		_, err := v.codec.Open(v.fd, Node{Ino: n.Ino}, unix.O_PATH)
		if !errors.Is(err, ErrGone) {
			t.Errorf("opening %d with generation 0: %v", n.Ino, err)
		}
		root := v.codec.Root()
		fd, err := v.codec.Open(v.fd, root, unix.O_PATH)
		must(t, err)
		unix.Close(fd)
	})
}

// Of a nested btrfs subvolume inode numbers repeat: its handles are foreign.
func TestHandleForeignSubvolume(t *testing.T) {
	v := newTestVolume(t, "mkfs.btrfs", "-q", "-f")
	run(t, "btrfs", "subvolume", "create", v.path("sub"))
	v.write("sub/file", "x")
	if n, err := v.codec.NodeAt(v.fd, "sub/file", 0); !errors.Is(err, ErrForeign) {
		t.Errorf("file of a subvolume: %v, %v", n, err)
	}
}

func TestHandleAllocatesNothing(t *testing.T) {
	v := newTestVolume(t, "mkfs.ext4", "-q", "-F")
	v.write("a", "1")
	n := v.node("a")
	allocs := testing.AllocsPerRun(100, func() {
		if _, err := v.codec.NodeAt(v.fd, "a", 0); err != nil {
			t.Fatal(err)
		}
		fd, err := v.codec.Open(v.fd, n, unix.O_PATH)
		if err != nil {
			t.Fatal(err)
		}
		unix.Close(fd)
	})
	if allocs != 0 {
		t.Errorf("%v allocations", allocs)
	}
}

func TestHandleDecodeRefuses(t *testing.T) {
	c := &HandleCodec{typ: handleIno32}
	for _, tc := range []struct {
		typ  int32
		size int
		want error
	}{
		{1, 8, nil}, {1, 7, ErrHandle}, {1, 12, ErrHandle}, {0x81, 12, nil}, {0x81, 8, ErrHandle},
		{0x4d, 20, ErrHandle}, {0xff, 0, ErrHandle}, {0, 0, ErrHandle}, {0x20001, 8, nil},
	} {
		if _, err := c.Decode(tc.typ, make([]byte, tc.size)); !errors.Is(err, tc.want) {
			t.Errorf("type %#x, %d bytes: %v, want %v", tc.typ, tc.size, err, tc.want)
		}
	}
	b := &HandleCodec{typ: handleBtrfs, rootID: 5}
	h := make([]byte, 20)
	if _, err := b.Decode(handleBtrfs, h); !errors.Is(err, ErrForeign) {
		t.Errorf("other root: %v", err)
	}
	h[8] = 5
	if _, err := b.Decode(handleBtrfs, h); err != nil {
		t.Error(err)
	}
}

func TestHandleNameTooLongForTheStack(t *testing.T) {
	v := newTestVolume(t, "mkfs.ext4", "-q", "-F")
	dir := strings.Repeat("d", 200)
	must(t, os.MkdirAll(v.path(filepath.Join(dir, dir)), 0o755))
	v.node(filepath.Join(dir, dir))
	if _, err := v.codec.NodeAt(v.fd, "a\x00b", 0); !errors.Is(err, unix.EINVAL) {
		t.Errorf("name with NUL: %v", err)
	}
}
