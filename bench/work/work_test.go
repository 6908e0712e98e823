package work

import (
	"bufio"
	"bytes"
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/fsmigrate/fsmigrate/bench/oplog"
)

// ready ends a context a while after the application said that it is.
type ready struct {
	bytes.Buffer
	then func()
}

func (r *ready) Write(b []byte) (int, error) {
	if bytes.HasPrefix(b, []byte("ready")) {
		r.then()
	}
	return r.Buffer.Write(b)
}

// session runs a workload for a while from when it is ready, and reads its lines.
func session(t *testing.T, o Options, d time.Duration) []oplog.Op {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	out := &ready{then: func() { time.AfterFunc(d, cancel) }}
	if err := Run(ctx, o, out); err != nil {
		t.Fatalf("%s: %v", o.Name, err)
	}
	var ops []oplog.Op
	lines := bufio.NewScanner(&out.Buffer)
	for lines.Scan() {
		l, err := oplog.Parse(lines.Text(), time.Now())
		if err != nil {
			t.Fatalf("%s: %v", o.Name, err)
		}
		if l.Kind != oplog.Operation {
			continue
		}
		if l.Op.Failed {
			t.Errorf("%s: %s", o.Name, lines.Text())
		}
		ops = append(ops, l.Op)
	}
	return ops
}

// Every workload that this machine can run works, is stopped, and works again on what is
// there. Those with a schedule of their own leave no operation out, nor do one twice.
func TestEveryWorkloadStopsAndGoesOn(t *testing.T) {
	for _, k := range Kinds {
		t.Run(k.Name, func(t *testing.T) {
			if missing := k.Missing(); len(missing) > 0 {
				t.Logf("%s: not on this machine: %v", k.Name, missing)
				return
			}
			o := Options{Name: k.Name, Dir: t.TempDir(), Scratch: t.TempDir(), Epoch: time.Now().UnixNano()}
			first := session(t, o, 400*time.Millisecond)
			o.From = int64(len(first))
			second := session(t, o, 400*time.Millisecond)
			if len(first) == 0 || len(second) == 0 {
				t.Fatalf("%d and %d operations", len(first), len(second))
			}
			if k.Filled {
				return
			}
			o.Rate = k.Rate
			seen := map[int64]bool{}
			for _, op := range append(first, second...) {
				seen[(op.Due-o.Epoch)/int64(o.interval())] = true
				if op.End < op.Due {
					t.Errorf("done before it was due: %+v", op)
				}
			}
			for n := range int64(len(first) + len(second)) {
				if !seen[n] {
					t.Errorf("operation %d was left out", n)
				}
			}
		})
	}
}

func TestOpenThatFailsIsTold(t *testing.T) {
	file := t.TempDir() + "/file"
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"mixed", "sqlite", "append", "nothing"} {
		var out bytes.Buffer
		err := Run(t.Context(), Options{Name: name, Dir: file, Rate: 10}, &out)
		if err == nil || !strings.Contains(err.Error(), name) || out.Len() > 0 {
			t.Errorf("%s: %v, said %q", name, err, out.String())
		}
	}
}

// A stall is seen by every operation that was due in it, not by one.
func TestStallIsNotOmitted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	o := Options{Rate: 100, Epoch: time.Now().UnixNano()}
	var said bytes.Buffer
	out := newLog(&said)
	s := &stalled{at: 5, cancel: cancel}
	if err := loop(ctx, o, 1, s, out); err != nil {
		t.Fatal(err)
	}
	if err := out.close(); err != nil {
		t.Fatal(err)
	}
	slow := 0
	for line := range strings.Lines(said.String()) {
		l, err := oplog.Parse(line, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		if l.Op.Latency() >= stall/2 {
			slow++
		}
	}
	// 100 ms at a hundred a second: those due in its first half waited half of it or more.
	if slow < 5 {
		t.Errorf("%d operations saw the stall", slow)
	}
}

const stall = 100 * time.Millisecond

type stalled struct {
	at     int64
	cancel func()
}

func (s *stalled) do(k int64) (int64, error) {
	if k == s.at {
		<-time.After(stall)
	}
	if k == s.at+30 {
		s.cancel()
	}
	return 1, nil
}

func (s *stalled) close() error { return nil }
