package shadow

import "testing"

// What a bad block of one file counts, at each try to read it, is no reason against a
// fence: the file is named, and waived or not. A lost write is.
func TestLostWrites(t *testing.T) {
	for _, tc := range []struct {
		stats string
		want  int64
	}{
		{"", 0},
		{"write_errs 0\nread_errs 5\nflush_errs 0\ncorruption_errs 7\ngeneration_errs 0\n", 0},
		{"write_errs 2\nread_errs 5\nflush_errs 1\ncorruption_errs 7\ngeneration_errs 4\n", 7},
	} {
		if got := lostWrites(tc.stats); got != tc.want {
			t.Errorf("%q: %d lost writes, want %d", tc.stats, got, tc.want)
		}
	}
}
