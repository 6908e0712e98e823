package bench

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

// memoryGroup is a control group with a memory limit: version 1 or 2, whichever has the
// controller here.
type memoryGroup struct{ dir, limit, refused string }

// newMemoryGroup makes a group that may use so many bytes: processes, their page cache
// and what the kernel keeps for them, notification queues for example.
func newMemoryGroup(bytes int64) (memoryGroup, error) {
	g := memoryGroup{filepath.Join("/sys/fs/cgroup/memory", fmt.Sprintf("fsmigrate-bench-%d", os.Getpid())), "memory.limit_in_bytes", "memory.failcnt"}
	if _, err := os.Stat(filepath.Dir(g.dir)); err != nil {
		g = memoryGroup{filepath.Join("/sys/fs/cgroup", filepath.Base(g.dir)), "memory.max", "memory.events"}
	}
	if err := os.Mkdir(g.dir, 0o755); err != nil {
		return g, fmt.Errorf("make a memory group: %w", err)
	}
	if err := os.WriteFile(filepath.Join(g.dir, g.limit), []byte(strconv.FormatInt(bytes, 10)), 0); err != nil {
		return g, fmt.Errorf("limit the memory group: %w", err)
	}
	return g, nil
}

// command is a command that runs in the group.
func (g memoryGroup) command(ctx context.Context, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, "sh", append([]string{"-c", `echo $$ >"$0"/cgroup.procs && exec "$@"`, g.dir}, args...)...)
}

// failed is how often the limit was met.
func (g memoryGroup) failed() (int64, error) {
	b, err := os.ReadFile(filepath.Join(g.dir, g.refused))
	if err != nil {
		return 0, err
	}
	for _, line := range strings.Split(string(b), "\n") {
		if n, ok := strings.CutPrefix(line, "max "); ok {
			return strconv.ParseInt(n, 10, 64)
		}
	}
	return strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
}

func (g memoryGroup) remove() error { return os.Remove(g.dir) }
