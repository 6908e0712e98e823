package churn

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
)

// Log is the acknowledged history, kept outside the volume. Each line is written
// by one write(2) in append mode: killing the churn tears at most the last one.
type Log struct {
	mu sync.Mutex
	f  *os.File
	n  int64 // last number given out
}

// CreateLog begins a log.
func CreateLog(path string, h Header) (*Log, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	l := &Log{f: f}
	return l, l.write(record{Header: &h})
}

func (l *Log) write(r record) error {
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if _, err = l.f.Write(append(b, '\n')); err != nil {
		return fmt.Errorf("write log %s: %w", l.f.Name(), err)
	}
	return nil
}

// Begin logs that op is about to be tried and numbers it.
func (l *Log) Begin(op *Op) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.n++
	op.N = l.n
	return l.write(record{Op: op})
}

// End logs what op came to.
func (l *Log) End(op *Op, r *Result) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.write(record{N: op.N, Result: r})
}

// Close closes the file.
func (l *Log) Close() error { return l.f.Close() }

// Replay is a log read back.
type Replay struct {
	Header   Header
	Model    *Model
	Dangling []*Op // begun and never answered
	Ops      int64 // acknowledged with success
	Failed   map[string]int64
	last     int64
	size     int64 // of the whole lines
}

// ReadLog replays a log.
func ReadLog(path string) (*Replay, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	rp := &Replay{Model: NewModel(), Failed: map[string]int64{}}
	open := map[int64]*Op{}
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	// Of a log that grows while it is read, as much as there was: it may grow
	// faster than it is read.
	r := bufio.NewReaderSize(io.LimitReader(f, st.Size()), 1<<20)
	for {
		line, err := r.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			break // a torn line was never acknowledged to anybody
		}
		if err != nil {
			return nil, err
		}
		rp.size += int64(len(line))
		var rec record
		d := json.NewDecoder(bytes.NewReader(line))
		if err := d.Decode(&rec); err != nil {
			return nil, fmt.Errorf("log %s: %w", path, err)
		}
		if err := rp.step(rec, open); err != nil {
			return nil, fmt.Errorf("log %s: %w", path, err)
		}
	}
	for n := int64(1); n <= rp.last; n++ {
		if op := open[n]; op != nil {
			rp.Dangling = append(rp.Dangling, op)
		}
	}
	return rp, nil
}

func (rp *Replay) step(rec record, open map[int64]*Op) error {
	switch {
	case rec.Header != nil:
		rp.Header = *rec.Header
	case rec.Op != nil:
		open[rec.Op.N] = rec.Op
		rp.last = max(rp.last, rec.Op.N)
		// An id is given out once, also when the operation failed.
		rp.Model.next = max(rp.Model.next, rec.Op.Node+1)
	case rec.Result != nil:
		op := open[rec.N]
		if op == nil {
			return fmt.Errorf("an answer to operation %d that never began", rec.N)
		}
		delete(open, rec.N)
		if rec.Result.Err != "" {
			rp.Failed[rec.Result.Err]++
		} else {
			rp.Ops++
		}
		return rp.Model.Apply(op, rec.Result)
	}
	return nil
}

// continueLog reopens a log after its last whole line.
func continueLog(path string, rp *Replay) (*Log, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	if err := f.Truncate(rp.size); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &Log{f: f, n: rp.last}, nil
}

// Progress follows a log from outside, cheaply.
type Progress struct {
	path  string
	off   int64
	count int64
	rest  []byte
}

// Follow starts at the beginning of a log.
func Follow(path string) *Progress { return &Progress{path: path} }

// Answered counts the operations that were answered so far.
func (p *Progress) Answered() (int64, error) {
	f, err := os.Open(p.path)
	if err != nil {
		return p.count, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return p.count, err
	}
	b := make([]byte, max(0, st.Size()-p.off))
	n, err := f.ReadAt(b, p.off)
	if err != nil && !errors.Is(err, io.EOF) {
		return p.count, err
	}
	p.off += int64(n)
	p.rest = append(p.rest, b[:n]...)
	for {
		line, rest, whole := bytes.Cut(p.rest, []byte{'\n'})
		if !whole {
			return p.count, nil
		}
		if bytes.HasPrefix(line, []byte(`{"end":`)) {
			p.count++
		}
		p.rest = rest
	}
}
