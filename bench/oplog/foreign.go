package oplog

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// PGBench reads a line of pgbench's log of transactions (pgbench --log --rate):
//
//	client_id transaction_no time script_no time_epoch time_us [schedule_lag [retries]]
//
// time is in microseconds, from when the rate limiter had the transaction due, and
// time_epoch.time_us is when it ended. A transaction that was skipped or failed has a
// word in place of time.
func PGBench(line string) (Op, error) {
	f := strings.Fields(line)
	if len(f) < 6 || len(f) > 8 {
		return Op{}, fmt.Errorf("pgbench %q: want 6 to 8 fields", clip(line))
	}
	sec, err1 := strconv.ParseInt(f[4], 10, 64)
	us, err2 := strconv.ParseInt(f[5], 10, 64)
	if err1 != nil || err2 != nil || sec <= 0 || sec > 1<<33 || us < 0 || us > 999_999 {
		return Op{}, fmt.Errorf("pgbench %q: fields 5 and 6 are no time", clip(line))
	}
	end := sec*1e9 + us*1e3
	switch f[2] {
	case "skipped", "failed", "serialization", "deadlock":
		return Op{Due: end, End: end, Failed: true}, nil
	}
	took, err := strconv.ParseFloat(f[2], 64)
	if err != nil || !(took >= 0 && took <= float64(longest/time.Microsecond)) {
		return Op{}, fmt.Errorf("pgbench %q: field 3 is no time in microseconds", clip(line))
	}
	return Op{Due: end - int64(took*1e3), End: end}, nil
}

// Fio reads a line of fio's log of latencies (write_lat_log):
//
//	time (ms), latency (ns), direction, block size, offset[, priority]
//
// The first is when the operation ended, from start: the beginning of the job, or of Unix
// time with log_unix_epoch.
func Fio(line string, start time.Time) (Op, error) {
	f := strings.Split(line, ",")
	if len(f) < 4 {
		return Op{}, fmt.Errorf("fio %q: want time, latency, direction, size", clip(line))
	}
	var v [4]int64
	for i := range v {
		n, err := strconv.ParseInt(strings.TrimSpace(f[i]), 10, 64)
		if err != nil || n < 0 {
			return Op{}, fmt.Errorf("fio %q: field %d is no number", clip(line), i+1)
		}
		v[i] = n
	}
	if v[0] > 1<<42 || v[1] > int64(longest) { // the year 2109, for a log in Unix time
		return Op{}, fmt.Errorf("fio %q: out of range", clip(line))
	}
	end := start.UnixNano() + v[0]*1e6
	return Op{Due: end - v[1], End: end, Bytes: v[3]}, nil
}
