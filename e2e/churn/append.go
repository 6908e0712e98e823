package churn

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// AppendDir is the directory at the root where the append workload lives.
const AppendDir = ".append"

// recordSize is the size of one record: a sequence number and its check.
const recordSize = 16

// Append writes sequence numbers to one file, each followed by fsync, and logs
// those that were acknowledged outside the volume. It ends with ctx, or with an
// error of the volume; EROFS is retried on a reopened file when tolerate is set.
func Append(ctx context.Context, dir, log, name string, rate float64, tolerate bool) (acked uint64, err error) {
	l, err := os.OpenFile(log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return 0, err
	}
	defer l.Close()
	if acked, err = LastAcked(log, name); err != nil {
		return 0, err
	}
	pace := newPacer(rate)
	for ctx.Err() == nil {
		err := appendSome(ctx, filepath.Join(dir, AppendDir, name), name, l, pace, &acked)
		if err != nil && (!tolerate || !errors.Is(err, unix.EROFS)) {
			return acked, err
		}
		newPacer(50).wait(ctx)
	}
	return acked, nil
}

func appendSome(ctx context.Context, path, name string, log *os.File, pace *pacer, acked *uint64) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	for ctx.Err() == nil && pace.wait(ctx) {
		n := *acked + 1
		// At its own offset: a record that was written and never acknowledged
		// is written again, equal.
		if _, err := f.WriteAt(appendRecord(n), int64(n-1)*recordSize); err != nil {
			return err
		}
		if err := f.Sync(); err != nil {
			return err
		}
		*acked = n
		if _, err := fmt.Fprintf(log, "%s %d\n", name, n); err != nil {
			return err
		}
	}
	return nil
}

func appendRecord(n uint64) []byte {
	b := binary.LittleEndian.AppendUint64(nil, n)
	return binary.LittleEndian.AppendUint64(b, mix(n))
}

// LastAcked reads the last acknowledged number of a file from the log.
func LastAcked(log, name string) (last uint64, err error) {
	f, err := os.Open(log)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	r := bufio.NewReader(f)
	for {
		line, err := r.ReadString('\n')
		if errors.Is(err, io.EOF) {
			return last, nil
		}
		if err != nil {
			return 0, err
		}
		var n uint64
		if rest, ok := strings.CutPrefix(line, name+" "); ok {
			if _, err := fmt.Sscan(rest, &n); err != nil {
				return 0, fmt.Errorf("log %s: %w", log, err)
			}
			last = max(last, n)
		}
	}
}

// CheckAppend proves that every acknowledged record is there, in its place, and
// that at most one more is: the one that nobody answered.
func CheckAppend(dir, log, name string) (acked uint64, err error) {
	if acked, err = LastAcked(log, name); err != nil {
		return 0, err
	}
	b, err := os.ReadFile(filepath.Join(dir, AppendDir, name))
	if err != nil {
		return acked, err
	}
	have := uint64(len(b)) / recordSize
	if have < acked {
		return acked, fmt.Errorf("%s: %d records acknowledged, %d there", name, acked, have)
	}
	if uint64(len(b)) > (acked+1)*recordSize {
		return acked, fmt.Errorf("%s: %d records acknowledged, %d bytes there", name, acked, len(b))
	}
	for n := uint64(1); n <= acked; n++ {
		if got := b[(n-1)*recordSize : n*recordSize]; string(got) != string(appendRecord(n)) {
			return acked, fmt.Errorf("%s: record %d is %x", name, n, got)
		}
	}
	return acked, nil
}
