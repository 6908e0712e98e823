package oplog

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Op is an operation.
type Op struct {
	Due, End int64 // nanoseconds of Unix time
	Bytes    int64
	Failed   bool
	Filled   bool // not measured: added by Backfill
}

// Latency is from when the operation was due until it was done.
func (o Op) Latency() time.Duration { return time.Duration(o.End - o.Due) }

// Kind is what a line is.
type Kind int

// The kinds of lines.
const (
	Ignored Kind = iota
	Ready
	Operation
	Note
)

// MaxLine bounds a line, in bytes.
const MaxLine = 64 << 10

// longest bounds a latency: what takes longer is a clock that was set.
const longest = 24 * time.Hour

// Line is a line, read. Op is set for operations; Text for notes and failures.
type Line struct {
	Kind Kind
	Op   Op
	Text string
}

// Parse reads a line that was written at now. The error names what is wrong with it.
func Parse(s string, now time.Time) (Line, error) {
	if len(s) > MaxLine {
		return Line{}, fmt.Errorf("a line of %d bytes; at most %d", len(s), MaxLine)
	}
	word, rest, _ := strings.Cut(strings.TrimSpace(s), " ")
	rest = strings.TrimSpace(rest)
	switch {
	case word == "" || word[0] == '#':
		return Line{}, nil
	case word == "ready" && rest == "":
		return Line{Kind: Ready}, nil
	case word == "note":
		return Line{Kind: Note, Text: rest}, nil
	case word == "op":
		return operation(rest)
	case word == "fail":
		return failure(rest)
	case word == "lat":
		return latency(rest, now)
	}
	return Line{}, fmt.Errorf("%q begins with none of: ready, op, fail, lat, note, #", clip(s))
}

func operation(rest string) (Line, error) {
	f := strings.Fields(rest)
	if len(f) < 2 || len(f) > 3 {
		return Line{}, fmt.Errorf("op %q: want op DUE END [BYTES]", clip(rest))
	}
	due, end, err := span(f[0], f[1])
	if err != nil {
		return Line{}, fmt.Errorf("op %q: %w", clip(rest), err)
	}
	l := Line{Kind: Operation, Op: Op{Due: due, End: end}}
	if len(f) == 3 {
		if l.Op.Bytes, err = size(f[2]); err != nil {
			return Line{}, fmt.Errorf("op %q: %w", clip(rest), err)
		}
	}
	return l, nil
}

func failure(rest string) (Line, error) {
	f := strings.SplitN(rest, " ", 3)
	if len(f) < 2 {
		return Line{}, fmt.Errorf("fail %q: want fail DUE END [TEXT]", clip(rest))
	}
	due, end, err := span(f[0], f[1])
	if err != nil {
		return Line{}, fmt.Errorf("fail %q: %w", clip(rest), err)
	}
	l := Line{Kind: Operation, Op: Op{Due: due, End: end, Failed: true}}
	if len(f) == 3 {
		l.Text = f[2]
	}
	return l, nil
}

func latency(rest string, now time.Time) (Line, error) {
	f := strings.Fields(rest)
	if len(f) < 1 || len(f) > 2 {
		return Line{}, fmt.Errorf("lat %q: want lat MICROSECONDS [BYTES]", clip(rest))
	}
	us, err := strconv.ParseFloat(f[0], 64)
	if err != nil || !(us >= 0 && us <= float64(longest/time.Microsecond)) {
		return Line{}, fmt.Errorf("lat %q: want microseconds, of a day at most", clip(rest))
	}
	end := now.UnixNano()
	l := Line{Kind: Operation, Op: Op{Due: end - int64(us*1e3), End: end}}
	if len(f) == 2 {
		if l.Op.Bytes, err = size(f[1]); err != nil {
			return Line{}, fmt.Errorf("lat %q: %w", clip(rest), err)
		}
	}
	return l, nil
}

func span(a, b string) (due, end int64, err error) {
	due, err1 := strconv.ParseInt(a, 10, 64)
	end, err2 := strconv.ParseInt(b, 10, 64)
	switch {
	case err1 != nil || err2 != nil || due <= 0:
		return 0, 0, fmt.Errorf("want nanoseconds of Unix time")
	case end < due:
		return 0, 0, fmt.Errorf("it ended before it was due")
	case time.Duration(end-due) > longest:
		return 0, 0, fmt.Errorf("it took more than a day: seconds where nanoseconds are wanted?")
	}
	return due, end, nil
}

func size(s string) (int64, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("want a number of bytes")
	}
	return n, nil
}

// clip is the beginning of a line, for an error.
func clip(s string) string {
	if len(s) > 80 {
		return strings.ToValidUTF8(s[:80], "?") + "…"
	}
	return strings.ToValidUTF8(s, "?")
}

// Append writes the line of op to b.
func (o Op) Append(b []byte) []byte {
	word := "op "
	if o.Failed {
		word = "fail "
	}
	b = append(b, word...)
	b = strconv.AppendInt(b, o.Due, 10)
	b = append(b, ' ')
	b = strconv.AppendInt(b, o.End, 10)
	if o.Bytes > 0 && !o.Failed {
		b = append(b, ' ')
		b = strconv.AppendInt(b, o.Bytes, 10)
	}
	return b
}
