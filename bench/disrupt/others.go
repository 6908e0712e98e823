package disrupt

import (
	"os"
	"strconv"
	"strings"
)

// usage is processor time in clock ticks, since the machine began: of everybody in user
// mode, of that our own and our descendants', and all there was.
type usage struct{ user, own, all int64 }

// used reads it; all zero where it cannot be read (proc(5), /proc/stat: user, nice, system,
// idle, iowait, irq, softirq, steal). User mode only: what the kernel does for whom, such
// as writing to a loop device, nobody can say.
func used() (u usage) {
	b, _ := os.ReadFile("/proc/stat")
	line, _, _ := strings.Cut(string(b), "\n")
	for i, s := range strings.Fields(line) {
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil || i > 8 { // its name, and guests, who are in user already
			continue
		}
		u.all += n
		if i <= 2 {
			u.user += n
		}
	}
	each(os.Getpid(), func(p process) { u.own += int64(p.user / tick) })
	return u
}

// others is the share of the processors that other programs used since before, 0 to 1.
func (u usage) others(before usage) float64 {
	all := u.all - before.all
	if all <= 0 {
		return 0
	}
	return min(1, max(0, float64(u.user-before.user-(u.own-before.own))/float64(all)))
}
