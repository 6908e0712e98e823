package demo

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// write is a transaction that the database acknowledged.
type write struct {
	seq      int64
	due, end time.Time // when it should have begun; when it was acknowledged
}

func (w write) latency() time.Duration { return w.end.Sub(w.due) }

// Ledgers are text, one line an acknowledged operation, outside both volumes. A line
// is one write(2) after the operation returned, so an application that ends in any
// way leaves whole lines behind.
func writesLedger(dir string) string { return filepath.Join(dir, "writes") }
func filesLedger(dir string) string  { return filepath.Join(dir, "files") }

func openLedger(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
}

// eachLine calls fn with every line; a ledger that is not there has none.
func eachLine(path string, fn func(line string) error) error {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	s := bufio.NewScanner(f)
	for n := 1; s.Scan(); n++ {
		if err := fn(s.Text()); err != nil {
			return fmt.Errorf("%s:%d: %w", path, n, err)
		}
	}
	return s.Err()
}

func readWrites(dir string) ([]write, error) {
	var list []write
	err := eachLine(writesLedger(dir), func(line string) error {
		var seq, due, end int64
		if _, err := fmt.Sscanf(line, "%d %d %d", &seq, &due, &end); err != nil {
			return err
		}
		list = append(list, write{seq, time.Unix(0, due), time.Unix(0, end)})
		return nil
	})
	return list, err
}

// content says what a file holds: nothing is stored, the bytes follow from it.
type content struct {
	id      int64
	version int64
	size    int
}

// files are the churn's files by path, as acknowledged.
type files map[string]content

// The churn's operations, as they stand in its ledger.
const (
	opPut  = "put"  // put PATH ID VERSION SIZE
	opMove = "move" // move FROM TO; replaces TO
	opDrop = "drop" // drop PATH
	opTree = "tree" // tree FROM TO: a directory with all that is in it
)

func (f files) apply(line string) error {
	part := strings.Fields(line)
	if len(part) < 2 {
		return errors.New("short line")
	}
	switch {
	case part[0] == opPut && len(part) == 5:
		var c content
		if _, err := fmt.Sscan(strings.Join(part[2:], " "), &c.id, &c.version, &c.size); err != nil {
			return err
		}
		f[part[1]] = c
	case part[0] == opMove && len(part) == 3:
		f[part[2]] = f[part[1]]
		delete(f, part[1])
	case part[0] == opDrop:
		delete(f, part[1])
	case part[0] == opTree && len(part) == 3:
		for path, c := range f {
			if rest, ok := strings.CutPrefix(path, part[1]+"/"); ok {
				delete(f, path)
				f[part[2]+"/"+rest] = c
			}
		}
	default:
		return fmt.Errorf("unknown operation %q", part[0])
	}
	return nil
}

// readFiles replays the churn's ledger.
func readFiles(dir string) (f files, operations int64, err error) {
	f = files{}
	err = eachLine(filesLedger(dir), func(line string) error {
		operations++
		return f.apply(line)
	})
	return f, operations, err
}

// fill makes the bytes of c in b.
func (c content) fill(b []byte) {
	x := uint64(c.id)*0x9e3779b97f4a7c15 ^ uint64(c.version+1)*0xbf58476d1ce4e5b9
	for i := range b {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		b[i] = byte(x)
	}
}

func (c content) bytes() []byte {
	b := make([]byte, c.size)
	c.fill(b)
	return b
}
