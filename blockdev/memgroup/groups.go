package memgroup

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/sys/mountinfo"
)

// unlimited is what version 1 says where there is no limit: the largest multiple of a page.
const unlimited = 1 << 60

// New finds the groups with a limit that this process is in now. Nil where there is
// none, or none can be seen: then nothing is kept.
func New() *Keeper {
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return nil
	}
	mounts, err := mountinfo.GetMounts(mountinfo.FSTypeFilter("cgroup", "cgroup2"))
	if err != nil {
		return nil
	}
	return newKeeper(string(own), mounts)
}

func newKeeper(own string, mounts []*mountinfo.Info) *Keeper {
	dir, root, v1 := memoryGroup(own, mounts)
	if dir == "" {
		return nil
	}
	k := &Keeper{whole: v1, wait: patience}
	for {
		if l, ok := readLevel(dir, v1); ok {
			if k.reclaim == "" { // the lowest with the controller: where our memory is counted
				k.reclaim = filepath.Join(dir, "memory.reclaim")
				if v1 {
					k.reclaim = filepath.Join(dir, "memory.force_empty")
				}
			}
			if l.limit < unlimited {
				l.begin()
				k.levels = append(k.levels, l)
			}
		}
		if dir == root {
			break
		}
		dir = filepath.Dir(dir)
	}
	if len(k.levels) == 0 {
		return nil
	}
	return k
}

// memoryGroup is the directory of the group that counts this process's memory, and the one that
// its hierarchy is mounted at; "" where it is not.
func memoryGroup(own string, mounts []*mountinfo.Info) (dir, root string, v1 bool) {
	path := ""
	for line := range strings.Lines(own) { // hierarchy:controllers:path, see cgroups(7)
		f := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		switch {
		case len(f) < 3:
		case slices.Contains(strings.Split(f[1], ","), "memory"):
			path, v1 = f[2], true
		case f[0] == "0" && !v1:
			path = f[2]
		}
	}
	if path == "" {
		return "", "", false
	}
	for _, m := range mounts {
		if v1 && (m.FSType != "cgroup" || !slices.Contains(strings.Split(m.VFSOptions, ","), "memory")) || !v1 && m.FSType != "cgroup2" {
			continue
		}
		if rel, err := filepath.Rel(m.Root, path); err == nil && filepath.IsLocal(rel) && !strings.HasPrefix(path, "/..") {
			return filepath.Join(m.Mountpoint, rel), m.Mountpoint, v1
		}
		return m.Mountpoint, m.Mountpoint, v1 // a container's, which sees itself as the root
	}
	return "", "", false
}

// readLevel reads the limit of a group; false where it has no memory controller.
func readLevel(dir string, v1 bool) (level, bool) {
	file := func(name string) string { return filepath.Join(dir, "memory."+name) }
	l := level{usage: file("current"), stat: file("stat"), cached: []string{"inactive_file", "active_file"}, limit: unlimited}
	limits := []string{"max", "high"}
	if v1 {
		l.usage, l.cached, limits = file("usage_in_bytes"), []string{"total_inactive_file", "total_active_file"}, []string{"limit_in_bytes"}
	}
	if _, err := os.Stat(l.usage); err != nil {
		return level{}, false
	}
	for _, name := range limits {
		if n := number(file(name)); n > 0 { // "max" is no number
			l.limit = min(l.limit, n)
		}
	}
	return l, true
}

// held is what the group uses, in bytes, but for page cache.
func (l *level) held() int64 {
	n := number(l.usage)
	b, err := os.ReadFile(l.stat)
	if err != nil {
		return n
	}
	for line := range strings.Lines(string(b)) {
		key, val, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		if slices.Contains(l.cached, key) {
			c, _ := strconv.ParseInt(val, 10, 64)
			n -= c
		}
	}
	return max(n, 0)
}

// number is the number in a file; 0 where there is none.
func number(file string) int64 {
	b, err := os.ReadFile(file)
	if err != nil {
		return 0
	}
	n, _ := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	return n
}
