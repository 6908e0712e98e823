package preflight

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/cpu"
	"golang.org/x/sys/unix"
)

// memoryNeeded is what the migration of a million objects takes at most.
const memoryNeeded = 256 << 20

// checkHost looks at memory, clock and processor.
func checkHost(_ context.Context, l *list, _ *target, _ *Options) error {
	avail := memAvailable()
	if avail < memoryNeeded {
		l.warn("memory", catHardware, bytes(avail)+" available", bytes(memoryNeeded), "stop something, or expect the migration to be slow")
	} else {
		l.ok("memory", catHardware, bytes(avail)+" available", bytes(memoryNeeded))
	}
	var tx unix.Timex
	state, err := unix.Adjtimex(&tx)
	if err != nil || state == 5 || tx.Status&0x40 != 0 {
		l.warn("clock", catState, "not synchronised", "a clock that does not step back",
			"a step back can hide a store through a mapping from its time stamp; generations, sizes and events still find the rest")
	} else {
		l.ok("clock", catState, "synchronised", "a clock that does not step back")
	}
	l.ok("processor", catHardware, processor(), "no feature is needed; digests are slower without")
	return nil
}

// processor names it with the features that the digests use.
func processor() string {
	s := fmt.Sprintf("%d × %s", runtime.NumCPU(), runtime.GOARCH)
	for _, f := range []struct {
		name string
		has  bool
	}{{"avx512", cpu.X86.HasAVX512F}, {"avx2", cpu.X86.HasAVX2}, {"sse4.1", cpu.X86.HasSSE41}, {"neon", cpu.ARM64.HasASIMD}} {
		if f.has {
			return s + ", " + f.name
		}
	}
	return s
}

func memAvailable() int64 {
	f, err := os.Open("/proc/meminfo")
	if err != nil {
		return 0
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if rest, ok := strings.CutPrefix(s.Text(), "MemAvailable:"); ok {
			kb, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
			if err == nil {
				return kb << 10
			}
		}
	}
	return 0
}
