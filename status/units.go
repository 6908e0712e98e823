package status

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// Bytes is n in binary units: "1.5 GiB".
func Bytes(n int64) string {
	if n < 1024 && n > -1024 {
		return fmt.Sprintf("%d B", n)
	}
	f := float64(n)
	for _, unit := range []string{"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"} {
		f /= 1024
		if f < 1023.95 && f > -1023.95 || unit == "EiB" {
			return fmt.Sprintf("%.1f %s", f, unit)
		}
	}
	return ""
}

// Count is n with a comma every three digits.
func Count(n int64) string {
	s := strconv.FormatInt(n, 10)
	sign := ""
	if n < 0 {
		sign, s = "-", s[1:]
	}
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return sign + s
}

// Span is d to two units, as a person says it: "3d 4h", "5m 10s", "1.24s", "15ms".
func Span(d time.Duration) string {
	switch {
	case d < 0:
		return "-" + Span(-d)
	case d < time.Second:
		return d.Round(100 * time.Microsecond).String()
	case d < time.Minute:
		return d.Round(10 * time.Millisecond).String()
	}
	d = d.Round(time.Second)
	if d >= 24*time.Hour {
		return fmt.Sprintf("%dd %dh", d/(24*time.Hour), d%(24*time.Hour)/time.Hour)
	}
	if d >= time.Hour {
		return fmt.Sprintf("%dh %dm", d/time.Hour, d%time.Hour/time.Minute)
	}
	return fmt.Sprintf("%dm %ds", d/time.Minute, d%time.Minute/time.Second)
}

func millis(ms float64) time.Duration { return time.Duration(ms * float64(time.Millisecond)) }

func when(t time.Time) string { return t.Local().Format("2006-01-02 15:04:05") }

// Safe is s as it is where it is printable, quoted where it is not: file names hold
// newlines and escape sequences.
func Safe(s string) string {
	if strings.IndexFunc(s, func(r rune) bool { return r == unicode.ReplacementChar || !unicode.IsPrint(r) }) < 0 {
		return s
	}
	return strconv.Quote(s)
}
