package preflight

import (
	"context"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fsmigrate/fsmigrate/blockdev"
)

// checkHolders lists who keeps the source busy: the kernel in a way that no service
// stop ends, and processes.
func checkHolders(_ context.Context, l *list, t *target, _ *Options) error {
	var st unix.Stat_t
	if err := unix.Stat(t.mount.Point, &st); err != nil {
		return fmt.Errorf("stat %s: %w", t.mount.Point, err)
	}
	var hidden []string
	holders, err := blockdev.FileHolders(st.Dev, t.mount.Point, blockdev.IgnorePID(os.Getpid()),
		blockdev.Denied(func(pid int, command string) {
			hidden = append(hidden, fmt.Sprintf("%s[%d]", strings.Fields(command + " ?")[0], pid))
		}))
	if err != nil {
		return fmt.Errorf("list users of %s: %w", t.mount.Point, err)
	}
	judgeHolders(l, holders, hidden)
	return checkSubmounts(l, t)
}

func judgeHolders(l *list, holders []blockdev.Holder, hidden []string) {
	var kernel, writers, readers []string
	for _, h := range holders {
		switch {
		case h.Kind == "swap" || h.Kind == "loop" || h.Kind == "export":
			kernel = append(kernel, h.Kind+" "+h.Path)
		case h.Kind == "mount": // by checkMounts
		case h.Writes:
			writers = append(writers, fmt.Sprintf("%s[%d] %s", h.Command, h.PID, h.Path))
		default:
			readers = append(readers, fmt.Sprintf("%s[%d] %s %s", h.Command, h.PID, h.Kind, h.Path))
		}
	}
	const need = "no swap file, loop or export on it"
	if len(kernel) > 0 {
		l.refuse("kernel-holders", catData, strings.Join(shorten(kernel, 3), ", "), need,
			"swapoff, losetup -d or exportfs -u them for the migration")
	} else {
		l.ok("kernel-holders", catData, "none", need)
	}
	list := func(s []string, what string) string {
		if len(s) == 0 {
			return "none now"
		}
		return fmt.Sprintf("%d %s: %s", len(s), what, strings.Join(shorten(s, 2), ", "))
	}
	l.ok("writers", catService, list(writers, "open for writing"), "ended by the service's stop")
	l.ok("readers", catService, list(readers, "uses that do not write"), "those that stay read the old volume, as it was")
	if len(hidden) > 0 {
		l.warn("hidden-holders", catService, "may not be looked at: "+strings.Join(shorten(hidden, 3), ", "), "every process visible",
			"the kernel still refuses the fence while they write; allow it, or stop them with the service")
	}
}

// checkSubmounts says what is mounted below the source: it is carried over the swap.
func checkSubmounts(l *list, t *target) error {
	mounts, err := blockdev.OwnMounts()
	if err != nil {
		return fmt.Errorf("list mounts below %s: %w", t.mount.Point, err)
	}
	var below []string
	for _, m := range mounts {
		if strings.HasPrefix(m.Point, strings.TrimSuffix(t.mount.Point, "/")+"/") {
			below = append(below, m.Point)
		}
	}
	l.ok("submounts", catData, orNone(strings.Join(shorten(below, 3), ", ")), "carried over the swap")
	return nil
}
