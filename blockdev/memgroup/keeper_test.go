package memgroup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/moby/sys/mountinfo"
)

const mib = 1 << 20

// group writes the files of a group. Of usage, 10 MiB are page cache.
func group(t *testing.T, dir string, v1 bool, limit string, usage int64) string {
	t.Helper()
	files := map[string]string{"memory.max": limit, "memory.high": "max", "memory.current": strconv.FormatInt(usage, 10),
		"memory.stat": "anon 5\ninactive_file 6291456\nactive_file 4194304\nshmem 7\n", "memory.reclaim": ""}
	if v1 {
		files = map[string]string{"memory.limit_in_bytes": limit, "memory.usage_in_bytes": strconv.FormatInt(usage, 10),
			"memory.stat":        "inactive_file 1\ntotal_inactive_file 6291456\ntotal_active_file 4194304\n",
			"memory.force_empty": ""}
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func use(t *testing.T, dir string, n int64) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, "memory.current"), strconv.AppendInt(nil, n, 10), 0o600); err != nil {
		t.Error(err)
	}
}

func asked(t *testing.T, k *Keeper) string {
	t.Helper()
	b, err := os.ReadFile(k.reclaim)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(k.reclaim, 0); err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

// The groups of a process, from /proc/self/cgroup and the mount table.
func TestGroupOfProcess(t *testing.T) {
	v1 := &mountinfo.Info{FSType: "cgroup", Root: "/", Mountpoint: "/cg/memory", VFSOptions: "rw,memory"}
	cpu := &mountinfo.Info{FSType: "cgroup", Root: "/", Mountpoint: "/cg/cpu", VFSOptions: "rw,cpu"}
	v2 := &mountinfo.Info{FSType: "cgroup2", Root: "/", Mountpoint: "/cg/unified"}
	inner := &mountinfo.Info{FSType: "cgroup2", Root: "/box/a", Mountpoint: "/cg"}
	for _, c := range []struct {
		name, own string
		mounts    []*mountinfo.Info
		dir, root string
		v1        bool
	}{
		{"version 2", "0::/system.slice/x.service\n", []*mountinfo.Info{v2}, "/cg/unified/system.slice/x.service", "/cg/unified", false},
		{"version 1", "4:memory:/x\n1:cpu:/y\n0::/z\n", []*mountinfo.Info{cpu, v2, v1}, "/cg/memory/x", "/cg/memory", true},
		{"both mounted, the controller in version 2", "1:cpu:/y\n0::/z\n", []*mountinfo.Info{cpu, v1, v2}, "/cg/unified/z", "/cg/unified", false},
		{"colon in a name", "0::/a:b\n", []*mountinfo.Info{v2}, "/cg/unified/a:b", "/cg/unified", false},
		{"a part is mounted", "0::/box/a/b\n", []*mountinfo.Info{inner}, "/cg/b", "/cg", false},
		{"another part is mounted", "0::/box/other\n", []*mountinfo.Info{inner}, "/cg", "/cg", false},
		{"a namespace elsewhere", "0::/../x\n", []*mountinfo.Info{v2}, "/cg/unified", "/cg/unified", false},
		{"not mounted", "4:memory:/x\n0::/z\n", []*mountinfo.Info{cpu, v2}, "", "", false},
		{"none", "", []*mountinfo.Info{v2}, "", "", false},
		{"not understood", "x\n", []*mountinfo.Info{v2}, "", "", false},
	} {
		dir, root, isV1 := memoryGroup(c.own, c.mounts)
		if dir != c.dir || root != c.root || isV1 != c.v1 {
			t.Errorf("%s: %q, %q, %t", c.name, dir, root, isV1)
		}
	}
}

// Every group up to the root counts that has a limit; the kernel is asked to reclaim
// from the lowest, where our memory is.
func TestLimitsOfGroups(t *testing.T) {
	top := t.TempDir()
	mounts := []*mountinfo.Info{{FSType: "cgroup2", Root: "/", Mountpoint: top}}
	if k := newKeeper("0::/a/b/c\n", mounts); k != nil {
		t.Errorf("without any group: %+v", k)
	}
	group(t, filepath.Join(top, "a", "b"), false, "max", 50*mib)
	if k := newKeeper("0::/a/b/c\n", mounts); k != nil {
		t.Errorf("without a limit: %+v", k)
	}
	group(t, filepath.Join(top, "a"), false, strconv.Itoa(200*mib), 90*mib)
	k := newKeeper("0::/a/b/c\n", mounts)
	if k == nil || len(k.levels) != 1 || k.levels[0].limit != 200*mib || k.levels[0].low != 80*mib || k.levels[0].due != 150*mib ||
		k.reclaim != filepath.Join(top, "a", "b", "memory.reclaim") || k.whole {
		t.Fatalf("a limit above: %+v", k)
	}
	if err := os.WriteFile(filepath.Join(top, "a", "memory.high"), []byte("100000000\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if k := newKeeper("0::/a/b\n", mounts); k == nil || k.levels[0].limit != 100_000_000 {
		t.Errorf("a lower limit from which the kernel slows us down: %+v", k)
	}
	group(t, filepath.Join(top, "one"), true, "9223372036854771712", 0)
	one := []*mountinfo.Info{{FSType: "cgroup", Root: "/", Mountpoint: top, VFSOptions: "memory"}}
	if k := newKeeper("4:memory:/one\n", one); k != nil {
		t.Errorf("version 1 without a limit: %+v", k)
	}
	group(t, filepath.Join(top, "one"), true, strconv.Itoa(64*mib), 20*mib)
	k = newKeeper("4:memory:/one\n", one)
	if k == nil || !k.whole || k.reclaim != filepath.Join(top, "one", "memory.force_empty") || k.levels[0].low != 10*mib {
		t.Errorf("version 1: %+v", k)
	}
}

// keeper is one of a group of 100 MiB, that waits for ever.
func keeper(t *testing.T) (*Keeper, string) {
	t.Helper()
	top := t.TempDir()
	dir := group(t, filepath.Join(top, "g"), false, strconv.Itoa(100*mib), 30*mib)
	k := newKeeper("0::/g\n", []*mountinfo.Info{{FSType: "cgroup2", Root: "/", Mountpoint: top}})
	if k == nil {
		t.Fatal("no keeper")
	}
	k.wait = time.Hour
	return k, dir
}

// Below three quarters nothing happens, and page cache does not count. From there on the
// kernel is asked, and what was read is waited for.
func TestRoomAsksAndWaits(t *testing.T) {
	k, dir := keeper(t)
	never := func() { t.Error("asked") }
	for _, used := range []int64{60 * mib, 84 * mib} { // of which 10 MiB are page cache
		use(t, dir, used)
		if err := k.Room(t.Context(), 20*mib, never); err != nil {
			t.Fatal(err)
		}
	}
	use(t, dir, 90*mib)
	released := make(chan struct{})
	if err := k.Room(t.Context(), 4*mib, func() { go func() { use(t, dir, 50*mib); close(released) }() }); err != nil {
		t.Fatal(err)
	}
	<-released
	if l := k.levels[0]; l.low != 40*mib || l.due != 75*mib {
		t.Errorf("after the relief: %d MiB in use, the next at %d MiB", l.low/mib, l.due/mib)
	}
	if got, want := asked(t, k), fmt.Sprint(44*mib+100*mib/8); got != want {
		t.Errorf("asked for %s bytes, want %s: what was read, and an eighth of the limit", got, want)
	}
}

// What was not read by us is not waited for, and not asked for again and again.
func TestRoomDoesNotWaitForOthers(t *testing.T) {
	k, dir := keeper(t)
	use(t, dir, 95*mib)
	calls := 0
	for range 3 {
		if err := k.Room(t.Context(), 0, func() { calls++ }); err != nil {
			t.Fatal(err)
		}
	}
	if calls != 1 {
		t.Errorf("asked %d times", calls)
	}
	if l := k.levels[0]; l.due != 85*mib+100*mib/16 {
		t.Errorf("the next at %d MiB", l.due/mib)
	}
	// Whoever asks too late asks each time.
	use(t, dir, 109*mib)
	for range 2 {
		if err := k.Room(t.Context(), 0, func() { calls++ }); err != nil {
			t.Fatal(err)
		}
	}
	if calls != 3 {
		t.Errorf("asked %d times", calls)
	}
}

// It waits in vain a few times, and then goes on without.
func TestRoomGivesUp(t *testing.T) {
	k, dir := keeper(t)
	k.reclaim = filepath.Join(dir, "none") // a kernel that cannot be asked
	k.wait = time.Millisecond
	for range inVain {
		k.levels[0].low, k.levels[0].due = 20*mib, 75*mib
		use(t, dir, 100*mib)
		if err := k.Room(t.Context(), 50*mib, nil); err != nil {
			t.Fatal(err)
		}
	}
	if k.reclaim != "" || k.vain != inVain {
		t.Fatalf("%+v", k)
	}
	k.wait = time.Hour
	k.levels[0].low, k.levels[0].due = 20*mib, 75*mib
	if err := k.Room(t.Context(), 50*mib, nil); err != nil {
		t.Fatal(err)
	}
}

func TestRoomIsCancelled(t *testing.T) {
	k, dir := keeper(t)
	use(t, dir, 100*mib)
	ctx, cancel := context.WithCancel(t.Context())
	if err := k.Room(ctx, 50*mib, cancel); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	var none *Keeper
	if err := none.Room(ctx, 50*mib, nil); err != nil {
		t.Errorf("nothing to keep: %v", err)
	}
}

// Version 1 has no amount.
func TestVersionOneIsAskedForAll(t *testing.T) {
	top := t.TempDir()
	group(t, filepath.Join(top, "g"), true, strconv.Itoa(100*mib), 95*mib)
	k := newKeeper("4:memory:/g\n", []*mountinfo.Info{{FSType: "cgroup", Root: "/", Mountpoint: top, VFSOptions: "memory"}})
	if err := k.Room(t.Context(), 0, nil); err != nil {
		t.Fatal(err)
	}
	if got := asked(t, k); got != "0" {
		t.Errorf("wrote %q", got)
	}
}
