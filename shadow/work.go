package shadow

import (
	"context"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/fsmigrate/fsmigrate/copier"
)

// task is one piece of a pass. It may push further tasks.
type task func(ctx context.Context, w *worker) error

// worker is what one goroutine of a pass owns: its buffers, so that the hot
// path allocates nothing, and its batch of node-map records.
type worker struct {
	q       *workQueue
	bufs    *copier.Buffers
	recs    *Batch
	pend    []Node        // in recs
	ahead   *copier.Ahead // nil until it is needed, or where the kernel has none
	files   [copier.AheadFiles]int
	amended int // records in recs beside pend
}

func (w *worker) push(t task) { w.q.push(t) }

// workQueue runs tasks on a fixed number of workers, newest first: a tree is
// walked depth first, so the queue holds the siblings along one path and not a level.
type workQueue struct {
	mu    sync.Mutex
	cond  *sync.Cond
	tasks []task
	busy  int
	err   error
}

func (q *workQueue) push(t task) {
	q.mu.Lock()
	q.tasks = append(q.tasks, t)
	q.mu.Unlock()
	q.cond.Signal()
}

// next waits for a task. It answers nil when all is done, or when one failed.
func (q *workQueue) next(finished bool) task {
	q.mu.Lock()
	defer q.mu.Unlock()
	if finished {
		q.busy--
	}
	for {
		if q.err != nil || (len(q.tasks) == 0 && q.busy == 0) {
			q.cond.Broadcast()
			return nil
		}
		if n := len(q.tasks); n > 0 {
			t := q.tasks[n-1]
			q.tasks[n-1] = nil
			q.tasks = q.tasks[:n-1]
			q.busy++
			return t
		}
		q.cond.Wait()
	}
}

func (q *workQueue) fail(err error) {
	q.mu.Lock()
	if q.err == nil {
		q.err = err
	}
	q.mu.Unlock()
	q.cond.Broadcast()
}

// runTasks runs first and all that they push on n workers and returns the
// first error. When it returns, every worker has ended and flushed its batch.
func runTasks(ctx context.Context, n int, p *pair, first []task) error {
	q := &workQueue{tasks: first}
	q.cond = sync.NewCond(&q.mu)
	var wg sync.WaitGroup
	for range n {
		wg.Add(1)
		go func() {
			defer wg.Done()
			if p.setup != nil && !p.fenced {
				p.setup() // behind the fence it is the service that waits for us
			}
			w := &worker{q: q, bufs: copier.NewBuffers(), recs: p.nodes.Batch()}
			finished := false
			for {
				t := q.next(finished)
				if t == nil {
					break
				}
				finished = true
				err := ctx.Err()
				if err == nil {
					err = t(ctx, w)
				}
				if err != nil {
					q.fail(err)
				}
			}
			if err := w.commit(p); err != nil {
				q.fail(err)
			}
			p.giveAhead(w.ahead)
		}()
	}
	wg.Wait()
	return q.err
}

// aheadFiles is how many files each of n workers may have open at once: at most a quarter of this
// process's descriptors for all of them.
func aheadFiles(n int) int {
	var l unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &l) != nil {
		return 1
	}
	return int(max(1, min(copier.AheadFiles, l.Cur/4/uint64(n))))
}

// takeAhead and giveAhead keep a few of the kernel's contexts: destroying one waits
// for all processors.
func (p *pair) takeAhead() *copier.Ahead {
	select {
	case a := <-p.aheads:
		return a
	default:
	}
	a, err := copier.NewAhead()
	if err != nil {
		return nil // forbidden here, or all in use: files are read one by one
	}
	return a
}

func (p *pair) giveAhead(a *copier.Ahead) {
	if a == nil {
		return
	}
	select {
	case p.aheads <- a:
	default:
		a.Close()
	}
}
