package work

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"runtime"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fsmigrate/fsmigrate/bench/oplog"
)

// loop does the operations when they are due, until ctx ends. Operations are handed out
// in order and each that was handed out is done, so that those of the next start begin
// right after them.
func loop(ctx context.Context, o Options, workers int, s store, out *log) error {
	due := func(k int64) int64 { return o.Epoch + k*int64(o.interval()) }
	todo := make(chan int64)
	var done sync.WaitGroup
	for range workers {
		done.Go(func() {
			for k := range todo {
				n, err := s.do(k)
				out.op(oplog.Op{Due: due(k), End: time.Now().UnixNano(), Bytes: n, Failed: err != nil}, err)
			}
		})
	}
	dispatch(ctx, o.From, due, todo)
	close(todo)
	done.Wait()
	return out.failed()
}

// nap bounds a sleep, so that the end of ctx is noticed.
const nap = 10 * time.Millisecond

// dispatch sends each operation when it is due. It sleeps in the kernel's clock: the
// runtime's timers are up to a millisecond late, which would be a latency of nobody's.
func dispatch(ctx context.Context, from int64, due func(int64) int64, todo chan<- int64) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 1000, 0, 0, 0) // 1 µs; only precision is lost without it
	for k := from; ctx.Err() == nil; {
		if wait := time.Duration(due(k) - time.Now().UnixNano()); wait > 0 {
			ts := unix.NsecToTimespec(int64(min(wait, nap)))
			_ = unix.Nanosleep(&ts, nil) // EINTR: looked at again
			continue
		}
		select {
		case todo <- k:
			k++
		case <-ctx.Done():
		}
	}
}

// log writes lines, a few times a second.
type log struct {
	mu   sync.Mutex
	w    *bufio.Writer
	line []byte
	err  error
	said int // failures told in words
	stop chan struct{}
	done sync.WaitGroup
}

func newLog(w io.Writer) *log {
	l := &log{w: bufio.NewWriterSize(w, 1<<16), stop: make(chan struct{})}
	l.done.Go(func() {
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-l.stop:
				return
			case <-tick.C:
				l.flush()
			}
		}
	})
	return l
}

func (l *log) flush() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.keep(l.w.Flush())
}

func (l *log) keep(err error) {
	if l.err == nil {
		l.err = err
	}
}

func (l *log) say(s string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, err := l.w.WriteString(s + "\n")
	l.keep(err)
}

// ready says so at once.
func (l *log) ready() {
	l.say("ready")
	l.flush()
}

// op writes an operation; cause is why it failed, told for the first ones.
func (l *log) op(o oplog.Op, cause error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.line = o.Append(l.line[:0])
	if cause != nil && l.said < 20 {
		l.said++
		l.line = fmt.Appendf(l.line, " %s", strings.ReplaceAll(cause.Error(), "\n", " "))
	}
	_, err := l.w.Write(append(l.line, '\n'))
	l.keep(err)
}

// failed is the first error of writing: nobody reads any more.
func (l *log) failed() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

func (l *log) close() error {
	close(l.stop)
	l.done.Wait()
	l.flush()
	return l.failed()
}
