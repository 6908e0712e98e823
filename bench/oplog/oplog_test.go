package oplog

import (
	"strings"
	"testing"
	"time"
)

var now = time.Unix(1_700_000_000, 5000)

func TestParse(t *testing.T) {
	ns := now.UnixNano()
	for line, want := range map[string]Line{
		"ready":                        {Kind: Ready},
		"":                             {},
		"  # op 1 2":                   {},
		"op 1000 3000 42":              {Kind: Operation, Op: Op{Due: 1000, End: 3000, Bytes: 42}},
		" op 1000  3000 ":              {Kind: Operation, Op: Op{Due: 1000, End: 3000}},
		"fail 1 2 no space left on it": {Kind: Operation, Op: Op{Due: 1, End: 2, Failed: true}, Text: "no space left on it"},
		"lat 2.5 512":                  {Kind: Operation, Op: Op{Due: ns - 2500, End: ns, Bytes: 512}},
		"note 16 warehouses":           {Kind: Note, Text: "16 warehouses"},
	} {
		if got, err := Parse(line, now); err != nil || got != want {
			t.Errorf("%q: %+v, %v", line, got, err)
		}
	}
	for _, bad := range []string{
		"op", "op 1", "op 2 1", "op a b", "op 1 2 3 4", "op 1 2 -3", "op 0 1", "op 1 99999999999999999", "ready now", "fail 1", "lat", "lat -1",
		"lat NaN", "lat Inf", "lat 1 x", "12", "latency 4", strings.Repeat("x", MaxLine+1),
	} {
		if got, err := Parse(bad, now); err == nil {
			t.Errorf("%q was taken as %+v", clip(bad), got)
		}
	}
}

func TestAppendIsParsed(t *testing.T) {
	for _, o := range []Op{{Due: 5, End: 9, Bytes: 3}, {Due: 5, End: 5}, {Due: 1, End: 2, Failed: true}} {
		if got, err := Parse(string(o.Append(nil)), now); err != nil || got.Op != o {
			t.Errorf("%+v came back as %+v, %v", o, got.Op, err)
		}
	}
}

// A program that stood still for a second at ten a second has left out nine.
func TestBackfill(t *testing.T) {
	ms := int64(time.Millisecond)
	got := Backfill([]Op{{Due: 1000 * ms, End: 1100 * ms}, {Due: 0, End: 5 * ms}, {Due: 1100 * ms, End: 1101 * ms}}, 100*time.Millisecond)
	if len(got) != 12 {
		t.Fatalf("%d operations: %+v", len(got), got)
	}
	for i, o := range got {
		want := Op{Due: int64(i) * 100 * ms, End: 1100 * ms, Filled: true}
		switch i {
		case 0:
			want = Op{Due: 0, End: 5 * ms}
		case 10:
			want.Filled = false
		case 11:
			want = Op{Due: 1100 * ms, End: 1101 * ms}
		}
		if o != want {
			t.Errorf("operation %d: %+v, want %+v", i, o, want)
		}
	}
	if got := Backfill([]Op{{Due: 0, End: 1}, {Due: 140 * ms, End: 141 * ms}}, 100*time.Millisecond); len(got) != 2 {
		t.Errorf("a little late is no gap: %+v", got)
	}
	if got := Backfill([]Op{{Due: 0}, {Due: 1 << 62}}, 1); len(got) > maxFilled+2 {
		t.Errorf("%d were added", len(got))
	}
}

func TestForeign(t *testing.T) {
	op, err := PGBench("0 199 2241 0 1175850568 995598 41")
	if end := int64(1175850568_995598000); err != nil || op != (Op{Due: end - 2241000, End: end}) {
		t.Errorf("%+v, %v", op, err)
	}
	if op, err = PGBench("1 3 skipped 0 1175850569 608 3011"); err != nil || !op.Failed {
		t.Errorf("%+v, %v", op, err)
	}
	op, err = Fio("1204, 1234567, 1, 4096, 0", now)
	if end := now.UnixNano() + 1204e6; err != nil || op != (Op{Due: end - 1234567, End: end, Bytes: 4096}) {
		t.Errorf("%+v, %v", op, err)
	}
	for _, bad := range []string{"", "a b c d e f", "0 1 -5 0 1175850568 995598", "0 1 2 0 1175850568 1000000", "0 1 2 0 0 0"} {
		if op, err := PGBench(bad); err == nil {
			t.Errorf("pgbench %q: %+v", bad, op)
		}
	}
	for _, bad := range []string{"", "1,2", "1,-2,0,4096", "1,x,0,4096", "99999999999999,1,0,1"} {
		if op, err := Fio(bad, now); err == nil {
			t.Errorf("fio %q: %+v", bad, op)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"ready", "op 1 2 3", "fail 1 2 x", "lat 12.5", "note y", "# z", "op 9223372036854775807 1", "lat 1e300"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		l, err := Parse(s, now)
		if err != nil || l.Kind != Operation {
			return
		}
		if d := l.Op.Latency(); d < 0 || d > longest || l.Op.Bytes < 0 {
			t.Fatalf("%q: %+v", s, l.Op)
		}
		if l.Op.Due > 0 {
			if again, err := Parse(string(l.Op.Append(nil)), now); err != nil || again.Op != l.Op {
				t.Fatalf("%q: %+v became %+v, %v", s, l.Op, again.Op, err)
			}
		}
	})
}

func FuzzForeign(f *testing.F) {
	f.Add("0 199 2241 0 1175850568 995598 41")
	f.Add("1204, 1234567, 1, 4096, 0")
	f.Add("0 1 skipped 0 1 1")
	f.Fuzz(func(t *testing.T, s string) {
		for _, read := range []func() (Op, error){func() (Op, error) { return PGBench(s) }, func() (Op, error) { return Fio(s, now) }} {
			if op, err := read(); err == nil && (op.Latency() < 0 || op.Latency() > longest || op.Bytes < 0) {
				t.Fatalf("%q: %+v", s, op)
			}
		}
	})
}
