package shadow

import "unsafe"

// arena keeps many short strings in few pieces of memory: the names of a
// directory of 500,000 entries are a hundred allocations, not half a million.
type arena struct{ free []byte }

const arenaPiece = 64 << 10

// keep returns a copy of s.
func (a *arena) keep(s string) string {
	if len(s) == 0 {
		return ""
	}
	if len(a.free) < len(s) {
		a.free = make([]byte, max(arenaPiece, len(s)))
	}
	n := copy(a.free, s)
	kept := unsafe.String(&a.free[0], n)
	a.free = a.free[n:]
	return kept
}
