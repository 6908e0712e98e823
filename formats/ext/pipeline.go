package ext

import (
	"context"
	"fmt"
	"io"
	"runtime"
	"sync"

	"github.com/fsmigrate/fsmigrate/formats"
)

// groupsInFlight bounds how far the workers run ahead of the consumer, and with
// it the memory of a scan: about 16 MiB.
const groupsInFlight = 16

// scan runs the groups through workers and hands their batches to fn in order.
// Nothing is allocated per inode or per batch: batches go round.
func scan(ctx context.Context, r io.ReaderAt, size int64, mounted bool, ahead func(off, n int64), fn func([]formats.InodeRecord) error) (formats.ScanInfo, error) {
	info := formats.ScanInfo{Kind: ScanKind}
	s, err := readSuper(r, size)
	if err != nil {
		return info, err
	}
	if s.incompat(incompatRecover) && !mounted {
		return info, ErrNeedsRecovery
	}
	sc := &scanner{r: r, s: s, d: decoder{dirHigh: s.incompat(incompatLargedir)}, ahead: ahead,
		mapLen: int(s.InodesPerGroup+7) / 8}
	ctx, cancel := context.WithCancel(ctx)
	p := &pipeline{sc: sc, ctx: ctx,
		ordered: make(chan *groupJob, groupsInFlight), work: make(chan *groupJob),
		free: make(chan []formats.InodeRecord, 4*groupsInFlight)}
	var wg sync.WaitGroup
	wg.Add(1)
	go func() { defer wg.Done(); p.produce() }()
	for range min(4, max(2, runtime.NumCPU())) {
		wg.Add(1)
		go func() { defer wg.Done(); p.worker() }()
	}
	info.Inodes, err = p.consume(fn)
	cancel()
	wg.Wait()
	if err == nil {
		err = p.readErr
	}
	return info, err
}

type pipeline struct {
	sc      *scanner
	ctx     context.Context
	ordered chan *groupJob // the order in which they are consumed
	work    chan *groupJob
	free    chan []formats.InodeRecord
	readErr error // of the descriptors; set before ordered is closed
}

func (p *pipeline) produce() {
	defer close(p.ordered)
	defer close(p.work)
	p.readErr = p.sc.s.eachGroup(p.sc.r, func(n uint32, g group) error {
		if g.uninit {
			return p.ctx.Err()
		}
		j := &groupJob{n: n, g: g, out: make(chan []formats.InodeRecord, 2)}
		// ordered first: whoever is in work is then sure to be consumed.
		for _, ch := range [2]chan *groupJob{p.ordered, p.work} {
			select {
			case ch <- j:
			case <-p.ctx.Done():
				return p.ctx.Err()
			}
		}
		return nil
	})
}

func (p *pipeline) worker() {
	bitmap := make([]byte, p.sc.mapLen)
	piece := make([]byte, max(pieceBytes, p.sc.s.InodeSize))
	batch := p.take()
	for j := range p.work {
		emit := func(full []formats.InodeRecord) []formats.InodeRecord {
			select {
			case j.out <- full:
				return p.take()
			case <-p.ctx.Done():
				return nil
			}
		}
		batch, j.err = p.sc.runGroup(j.n, j.g, bitmap, piece, batch, emit)
		if len(batch) > 0 {
			batch = emit(batch)
		}
		close(j.out)
		if batch == nil {
			return
		}
	}
}

func (p *pipeline) take() []formats.InodeRecord {
	select {
	case b := <-p.free:
		return b[:0]
	default:
		return make([]formats.InodeRecord, 0, formats.ScanBatchSize)
	}
}

func (p *pipeline) consume(fn func([]formats.InodeRecord) error) (int64, error) {
	var total int64
	for j := range p.ordered {
		if err := p.consumeGroup(j, fn, &total); err != nil {
			return total, err
		}
	}
	return total, p.ctx.Err()
}

func (p *pipeline) consumeGroup(j *groupJob, fn func([]formats.InodeRecord) error, total *int64) error {
	for {
		select {
		case batch, ok := <-j.out:
			if !ok {
				if j.err != nil {
					return fmt.Errorf("group %d: %w", j.n, j.err)
				}
				return nil
			}
			if err := fn(batch); err != nil {
				return err
			}
			*total += int64(len(batch))
			select {
			case p.free <- batch:
			default:
			}
		case <-p.ctx.Done():
			return p.ctx.Err()
		}
	}
}
