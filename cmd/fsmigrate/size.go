package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Size is a number of bytes that a person writes with a binary suffix: 512K, 1.5G.
type Size int64

// ParseSize reads digits with an optional K, M, G, T or P (powers of 1024; an
// "iB" or "B" behind it is taken as well).
func ParseSize(s string) (Size, error) {
	bad := fmt.Errorf("want a size such as 500M or 20G, not %q", s)
	num := strings.TrimSuffix(strings.TrimSuffix(strings.ToUpper(s), "B"), "I")
	shift := 0
	if i := strings.IndexAny(num, "KMGTP"); i >= 0 {
		if i != len(num)-1 {
			return 0, bad
		}
		shift = 10 * (1 + strings.IndexByte("KMGTP", num[i]))
		num = num[:i]
	}
	if num == "" || strings.Trim(num, "0123456789.") != "" {
		return 0, bad
	}
	f, err := strconv.ParseFloat(num, 64)
	f *= float64(int64(1) << shift)
	if err != nil || f >= math.MaxInt64 {
		return 0, bad
	}
	return Size(f), nil
}

func (s Size) String() string {
	for i, suffix := range []string{"P", "T", "G", "M", "K"} {
		unit := Size(1) << (10 * (5 - i))
		if s >= unit && s%unit == 0 {
			return fmt.Sprintf("%d%s", s/unit, suffix)
		}
	}
	return strconv.FormatInt(int64(s), 10)
}
