package oplog

import (
	"cmp"
	"slices"
	"time"
)

// maxFilled bounds what is added for one gap: with more, the schedule is no schedule.
const maxFilled = 1 << 20

// Backfill adds the operations that a program with no schedule of its own did not begin
// while it waited, or was stopped: between two that were due further apart than every,
// one at each multiple of it, done when the later of the two was.
//
// It is the correction that HdrHistogram makes for an expected interval, with the time
// at which each one was due kept. The order of ops may change; what is added is Filled.
func Backfill(ops []Op, every time.Duration) []Op {
	if every <= 0 || len(ops) < 2 {
		return ops
	}
	slices.SortFunc(ops, func(a, b Op) int { return cmp.Compare(a.Due, b.Due) })
	step := int64(every)
	out := make([]Op, 0, len(ops))
	for i, o := range ops {
		if i > 0 && o.Due-ops[i-1].Due > step+step/2 {
			for due, n := ops[i-1].Due+step, 0; due+step/2 < o.Due && n < maxFilled; due, n = due+step, n+1 {
				out = append(out, Op{Due: due, End: max(o.End, due), Filled: true})
			}
		}
		out = append(out, o)
	}
	return out
}
