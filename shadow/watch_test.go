package shadow

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// heard collects a watch's events.
type heard struct {
	mu      sync.Mutex
	evs     []Event
	release func() // of a quietWatch
}

func (h *heard) sink(ev Event) {
	h.mu.Lock()
	h.evs = append(h.evs, ev)
	h.mu.Unlock()
}

// after drains the watch and returns what was heard since the last call.
func (h *heard) after(t *testing.T, w *Watch) []Event {
	t.Helper()
	must(t, w.Barrier(context.Background()))
	h.mu.Lock()
	defer h.mu.Unlock()
	evs := h.evs
	h.evs = nil
	return evs
}

// about is the union of the masks of events that name n as their object.
func about(evs []Event, n Node) uint64 {
	var m uint64
	for _, ev := range evs {
		if ev.HasObject && ev.Object == n {
			m |= ev.Mask
		}
	}
	return m
}

// names are the names heard of in dir.
func names(evs []Event, dir Node) []string {
	set := map[string]bool{}
	for _, ev := range evs {
		if ev.HasDir && ev.Dir == dir {
			set[ev.Name] = true
		}
	}
	return slices.Sorted(maps.Keys(set))
}

func watchVolume(t *testing.T, v *testVolume, o WatchOptions) (*Watch, *heard) {
	t.Helper()
	h := &heard{}
	w, err := StartWatchOptions(v.fd, v.codec, h.sink, o)
	must(t, err)
	t.Cleanup(func() { must(t, w.Close()) })
	return w, h
}

func TestWatchHearsEveryKindOfChange(t *testing.T) {
	eachVolume(t, func(t *testing.T, v *testVolume) {
		root := v.codec.Root()
		must(t, os.Mkdir(v.path("d"), 0o755))
		v.write("f", "old")
		v.write("g", "old")
		v.write("victim", "old")
		w, h := watchVolume(t, v, WatchOptions{})
		d, f, g, victim := v.node("d"), v.node("f"), v.node("g"), v.node("victim")
		const mod, attr = unix.FAN_MODIFY, unix.FAN_ATTRIB
		for _, tc := range []struct {
			name string
			do   func() error
			want map[Node]uint64 // bits that must be heard of the object
			dirs map[Node][]string
		}{
			{"write", func() error { return os.WriteFile(v.path("f"), []byte("new"), 0) }, map[Node]uint64{f: mod | unix.FAN_CLOSE_WRITE}, nil},
			{"truncate", func() error { return os.Truncate(v.path("f"), 1) }, map[Node]uint64{f: mod}, nil},
			{"chmod", func() error { return os.Chmod(v.path("f"), 0o600) }, map[Node]uint64{f: attr}, nil},
			{"chown of a directory", func() error { return os.Chown(v.path("d"), 1, 1) }, map[Node]uint64{d: attr}, nil},
			{"utimes", func() error { return unix.Utimes(v.path("f"), make([]unix.Timeval, 2)) }, map[Node]uint64{f: attr}, nil},
			{"xattr", func() error { return unix.Setxattr(v.path("f"), "user.a", []byte("b"), 0) }, map[Node]uint64{f: attr}, nil},
			{"link", func() error { return os.Link(v.path("f"), v.path("d/hard")) }, map[Node]uint64{f: attr}, map[Node][]string{d: {"hard"}}},
			{"unlink", func() error { return os.Remove(v.path("d/hard")) }, map[Node]uint64{f: attr}, map[Node][]string{d: {"hard"}}},
			{"rename", func() error { return os.Rename(v.path("f"), v.path("d/f")) },
				map[Node]uint64{f: unix.FAN_MOVED_TO}, map[Node][]string{root: {"f"}, d: {"f"}}},
			{"mkdir", func() error { return os.Mkdir(v.path("d/e"), 0o755) }, nil, map[Node][]string{d: {"e"}}},
			{"rmdir", func() error { return os.Remove(v.path("d/e")) }, nil, map[Node][]string{d: {"e"}}},
			{"symlink", func() error { return os.Symlink("x", v.path("s")) }, nil, map[Node][]string{root: {"s"}}},
			{"mknod", func() error { return unix.Mkfifo(v.path("p"), 0o600) }, nil, map[Node][]string{root: {"p"}}},
			{"fallocate", func() error {
				return onFile(v.path("g"), func(fd int) error { return unix.Fallocate(fd, 0, 0, 1<<20) })
			}, map[Node]uint64{g: mod}, nil},
			{"punch", func() error {
				return onFile(v.path("g"), func(fd int) error {
					return unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, 4096)
				})
			}, map[Node]uint64{g: mod}, nil},
			// Nothing says that the victim of a rename-over lost a name, but its name does.
			{"rename over", func() error { return os.Rename(v.path("g"), v.path("victim")) },
				map[Node]uint64{g: unix.FAN_MOVED_TO}, map[Node][]string{root: {"g", "victim"}}},
		} {
			must(t, tc.do())
			evs := h.after(t, w)
			for n, want := range tc.want {
				if got := about(evs, n); got&want != want {
					t.Errorf("%s: heard %#x of %v, want %#x: %+v", tc.name, got, n, want, evs)
				}
			}
			for dir, want := range tc.dirs {
				if got := names(evs, dir); !slices.Equal(got, want) {
					t.Errorf("%s: heard of names %q, want %q", tc.name, got, want)
				}
			}
		}
		if w.Lost() {
			t.Error("lost")
		}
		_ = victim
	})
}

func onFile(path string, fn func(fd int) error) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	return fn(int(f.Fd()))
}

// FACTS: a→b→a→b arrives as two events that end in the wrong name, so events
// are marks of both names and never replayed.
func TestWatchMergedRenamesNameBothNames(t *testing.T) {
	eachVolume(t, func(t *testing.T, v *testVolume) {
		v.write("a", "x")
		n := v.node("a")
		h := &heard{}
		w := quietWatch(t, v, h)
		must(t, os.Rename(v.path("a"), v.path("b")))
		must(t, os.Rename(v.path("b"), v.path("a")))
		must(t, os.Rename(v.path("a"), v.path("b")))
		evs := h.drain(t, w)
		if got := names(evs, v.codec.Root()); !slices.Equal(got, []string{"a", "b"}) {
			t.Errorf("names %q: %+v", got, evs)
		}
		if about(evs, n) == 0 {
			t.Error("the object is not named")
		}
		if len(evs) >= 6 {
			t.Logf("not merged: %d events", len(evs))
		}
	})
}

// FACTS: link, unlink, link arrives as one CREATE|DELETE with the name present.
func TestWatchMergedLinks(t *testing.T) {
	eachVolume(t, func(t *testing.T, v *testVolume) {
		v.write("a", "x")
		n := v.node("a")
		h := &heard{}
		w := quietWatch(t, v, h)
		must(t, os.Link(v.path("a"), v.path("b")))
		must(t, os.Remove(v.path("b")))
		must(t, os.Link(v.path("a"), v.path("b")))
		evs := h.drain(t, w)
		if got := names(evs, v.codec.Root()); !slices.Equal(got, []string{"b"}) {
			t.Errorf("names %q", got)
		}
		if m := about(evs, n); m&(unix.FAN_CREATE|unix.FAN_DELETE) == 0 {
			t.Errorf("heard %#x of the object", m)
		}
	})
}

// FACTS: an exchange is two renames that would destroy a file if replayed.
func TestWatchExchangeNamesBoth(t *testing.T) {
	eachVolume(t, func(t *testing.T, v *testVolume) {
		must(t, os.Mkdir(v.path("d"), 0o755))
		v.write("a", "x")
		v.write("d/b", "y")
		a, b, d := v.node("a"), v.node("d/b"), v.node("d")
		w, h := watchVolume(t, v, WatchOptions{})
		must(t, unix.Renameat2(v.fd, "a", v.fd, "d/b", unix.RENAME_EXCHANGE))
		evs := h.after(t, w)
		if about(evs, a) == 0 || about(evs, b) == 0 {
			t.Errorf("objects %#x, %#x", about(evs, a), about(evs, b))
		}
		if got := names(evs, v.codec.Root()); !slices.Equal(got, []string{"a"}) {
			t.Errorf("root: %q", got)
		}
		if got := names(evs, d); !slices.Equal(got, []string{"b"}) {
			t.Errorf("d: %q", got)
		}
	})
}

// FACTS: what the watch does not hear, and what other witnesses must find. When
// a kernel begins to report one of these, the sentence in FACTS is out of date.
func TestWatchDoesNotHear(t *testing.T) {
	eachVolume(t, func(t *testing.T, v *testVolume) {
		v.write("m", strings.Repeat("x", 8192))
		fd, err := unix.Open(v.path("m"), unix.O_RDWR|unix.O_CLOEXEC, 0)
		must(t, err)
		defer unix.Close(fd)
		mem, err := unix.Mmap(fd, 0, 8192, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		must(t, err)
		defer func() { must(t, unix.Munmap(mem)) }()
		w, h := watchVolume(t, v, WatchOptions{})
		mem[0] = 'y'
		must(t, unix.Msync(mem, unix.MS_SYNC))
		if evs := h.after(t, w); len(evs) != 0 {
			t.Errorf("mmap store: %+v", evs)
		}
		flags, err := unix.IoctlGetInt(fd, unix.FS_IOC_GETFLAGS)
		must(t, err)
		must(t, unix.IoctlSetPointerInt(fd, unix.FS_IOC_SETFLAGS, flags|0x40 /* FS_NODUMP_FL */))
		if evs := h.after(t, w); len(evs) != 0 {
			t.Errorf("chattr: %+v", evs)
		}
	})
}

// FACTS: writes around the page cache and between files are heard.
func TestWatchHearsDirectAndCopied(t *testing.T) {
	eachVolume(t, func(t *testing.T, v *testVolume) {
		v.write("from", strings.Repeat("x", 65536))
		v.write("to", strings.Repeat("y", 65536))
		n := v.node("to")
		w, h := watchVolume(t, v, WatchOptions{})
		from, err := os.Open(v.path("from"))
		must(t, err)
		defer from.Close()
		must(t, onFile(v.path("to"), func(fd int) error {
			_, err := unix.CopyFileRange(int(from.Fd()), nil, fd, nil, 4096, 0)
			return err
		}))
		if about(h.after(t, w), n)&unix.FAN_MODIFY == 0 {
			t.Error("copy_file_range unheard")
		}
		fd, err := unix.Open(v.path("to"), unix.O_WRONLY|unix.O_DIRECT|unix.O_CLOEXEC, 0)
		must(t, err)
		defer unix.Close(fd)
		page, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
		must(t, err)
		defer func() { must(t, unix.Munmap(page)) }()
		_, err = unix.Pwrite(fd, page, 0)
		must(t, err)
		if about(h.after(t, w), n)&unix.FAN_MODIFY == 0 {
			t.Error("O_DIRECT unheard")
		}
		var pipe [2]int
		must(t, unix.Pipe2(pipe[:], unix.O_CLOEXEC))
		defer unix.Close(pipe[0])
		defer unix.Close(pipe[1])
		_, err = unix.Write(pipe[1], page)
		must(t, err)
		must(t, onFile(v.path("to"), func(fd int) error {
			_, err := unix.Splice(pipe[0], nil, fd, nil, len(page), 0)
			return err
		}))
		if about(h.after(t, w), n)&unix.FAN_MODIFY == 0 {
			t.Error("splice unheard")
		}
		if strings.HasPrefix(run(t, "stat", "-f", "-c", "%T", v.dir), "ext") {
			return
		}
		must(t, unix.IoctlFileClone(fd, int(from.Fd())))
		if about(h.after(t, w), n)&unix.FAN_MODIFY == 0 {
			t.Error("FICLONE unheard")
		}
	})
}

// The mark is on the file system: a mount in a private namespace is heard too.
func TestWatchHearsOtherMounts(t *testing.T) {
	v := newTestVolume(t, "mkfs.ext4", "-q", "-F")
	w, h := watchVolume(t, v, WatchOptions{})
	run(t, "unshare", "-m", "sh", "-c", fmt.Sprintf("mount --bind %s /mnt && echo x > /mnt/there", v.dir))
	if got := names(h.after(t, w), v.codec.Root()); !slices.Equal(got, []string{"there"}) {
		t.Errorf("names %q", got)
	}
}

func TestWatchOverflow(t *testing.T) {
	v := newTestVolume(t, "mkfs.ext4", "-q", "-F")
	h := &heard{}
	w := quietWatch(t, v, h, WatchOptions{Limited: true})
	for i := range 17_000 {
		must(t, unix.Mknodat(v.fd, fmt.Sprintf("n%d", i), unix.S_IFREG|0o600, 0))
	}
	evs := h.drain(t, w)
	overflows := 0
	for _, ev := range evs {
		if ev.Overflow {
			overflows++
		}
	}
	if overflows != 1 || !w.Lost() || w.Stats().Overflows != 1 {
		t.Errorf("%d overflows in %d events, lost %v", overflows, len(evs), w.Lost())
	}
	// It goes on after that: an overflow costs a rescan, not the watch.
	must(t, w.Forgive())
	v.write("later", "x")
	if got := names(h.drain(t, w), v.codec.Root()); !slices.Equal(got, []string{"later"}) || w.Lost() {
		t.Errorf("after the overflow: %q, lost %v", got, w.Lost())
	}
}

// FACTS: an unlimited queue delivered 100,000 of 100,000.
func TestWatchUnlimitedQueue(t *testing.T) {
	v := newTestVolume(t, "mkfs.ext4", "-q", "-F", "-N", "110000")
	h := &heard{}
	w := quietWatch(t, v, h)
	const n = 100_000
	for i := range n {
		must(t, unix.Mknodat(v.fd, fmt.Sprintf("n%d", i), unix.S_IFREG|0o600, 0))
	}
	if q, err := w.queuedLocked(); err != nil || q != n {
		t.Errorf("%d queued by FIONREAD, %v", q, err)
	}
	if got := len(names(h.drain(t, w), v.codec.Root())); got != n || w.Lost() {
		t.Errorf("heard of %d, lost %v", got, w.Lost())
	}
}

// quietWatch is a watch whose reader stands still, so that the queue fills.
// drain reads it.
func quietWatch(t *testing.T, v *testVolume, h *heard, o ...WatchOptions) *Watch {
	t.Helper()
	w, err := StartWatchOptions(v.fd, v.codec, h.sink, append(o, WatchOptions{})[0])
	must(t, err)
	t.Cleanup(func() { must(t, w.Close()) })
	w.mu.Lock()
	h.release = sync.OnceFunc(w.mu.Unlock)
	t.Cleanup(h.release)
	return w
}

func (h *heard) drain(t *testing.T, w *Watch) []Event {
	t.Helper()
	h.release()
	return h.after(t, w)
}

// Barrier ends, and has delivered all that came before it, while others keep writing.
func TestWatchBarrierUnderLoad(t *testing.T) {
	v := newTestVolume(t, "mkfs.ext4", "-q", "-F")
	var mu sync.Mutex
	got := map[string]bool{}
	w, err := StartWatch(v.fd, v.codec, func(ev Event) {
		mu.Lock()
		defer mu.Unlock()
		if strings.HasPrefix(ev.Name, "mine") {
			got[ev.Name] = true
		}
	})
	must(t, err)
	defer func() { must(t, w.Close()) }()
	must(t, os.Mkdir(v.path("busy"), 0o755))
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			p := v.path(filepath.Join("busy", fmt.Sprint(i%100)))
			if err := os.WriteFile(p, nil, 0o600); err != nil {
				t.Error(err)
				return
			}
		}
	})
	for i := range 300 {
		name := fmt.Sprintf("mine%d", i)
		v.write(name, "")
		must(t, w.Barrier(context.Background()))
		mu.Lock()
		ok := got[name]
		mu.Unlock()
		if !ok {
			t.Fatalf("%s was not delivered before its barrier", name)
		}
	}
	close(stop)
	wg.Wait()
}

func TestWatchCloseTwiceAndBarrierAfter(t *testing.T) {
	v := newTestVolume(t, "mkfs.ext4", "-q", "-F")
	w, err := StartWatch(v.fd, v.codec, func(Event) {})
	must(t, err)
	must(t, w.Close())
	must(t, w.Close())
	if err := w.Barrier(context.Background()); err == nil {
		t.Error("barrier of a closed watch")
	}
	if w.Lost() {
		t.Error("closing is not losing")
	}
}

// A reader that fails says so to the sink: nothing is heard from then on.
func TestWatchReaderFailureIsOverflow(t *testing.T) {
	v := newTestVolume(t, "mkfs.ext4", "-q", "-F")
	h := &heard{}
	w, err := StartWatch(v.fd, v.codec, h.sink)
	must(t, err)
	w.mu.Lock()
	w.codec = &HandleCodec{typ: handleBtrfs}
	w.buf = w.buf[:8] // too small for any event: EINVAL
	w.mu.Unlock()
	v.write("a", "x")
	<-w.done
	if !w.Lost() || w.Forgive() == nil || len(h.evs) == 0 || !h.evs[len(h.evs)-1].Overflow {
		t.Errorf("lost %v, events %+v", w.Lost(), h.evs)
	}
	must(t, w.Close())
}

// What the file system finds wrong with itself is heard, and marks nothing.
func TestWatchHearsErrorsOfTheVolume(t *testing.T) {
	v := newTestVolume(t, "mkfs.ext4", "-q", "-F", "-e", "continue")
	w, h := watchVolume(t, v, WatchOptions{})
	knob := filepath.Join("/sys/fs/ext4", filepath.Base(v.device), "trigger_fs_error")
	must(t, os.WriteFile(knob, []byte("on purpose"), 0))
	evs := h.after(t, w)
	if len(evs) != 1 || evs[0].Mask&unix.FAN_FS_ERROR == 0 || evs[0].Overflow {
		t.Errorf("%+v", evs)
	}
	j := newTestJournal(t, JournalOptions{})
	for _, ev := range evs {
		MarkFrom(ev, j)
	}
	if need, _ := j.NeedRescan(); need || j.Len() != 0 {
		t.Error("marked")
	}
}

// The reader gathers events, so that the kernel merges those of a hot file.
func TestWatchMergesHotFiles(t *testing.T) {
	v := newTestVolume(t, "mkfs.ext4", "-q", "-F")
	v.write("hot", "x")
	n := v.node("hot")
	w, h := watchVolume(t, v, WatchOptions{})
	const writes = 20_000
	// The kernel merges with what waits in its queue: a reader that is as quick as the writer, as
	// on a loaded machine, would leave it nothing to merge with.
	h.mu.Lock()
	err := onFile(v.path("hot"), func(fd int) error {
		for i := range writes {
			if _, err := unix.Pwrite(fd, []byte{1}, int64(i)); err != nil {
				return err
			}
		}
		return nil
	})
	h.mu.Unlock()
	must(t, err)
	evs := h.after(t, w)
	if about(evs, n)&unix.FAN_MODIFY == 0 || len(evs) > writes/20 {
		t.Errorf("%d events of %d writes", len(evs), writes)
	}
}
