package migrate

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// fakeSubject is one process's view of the world.
type fakeSubject struct {
	w         *world
	prepared  Side
	fenced    bool
	mirrors   bool
	copied    chan struct{} // when not nil, Copy waits for ctx after closing it
	comparing chan struct{} // when not nil, a pass back waits for ctx after closing it
}

func (s *fakeSubject) Preflight(context.Context) ([]Check, error) {
	after, err := s.w.op("preflight")
	if err != nil {
		return nil, err
	}
	return s.w.preflit, after(nil)
}

func (s *fakeSubject) Prepare(_ context.Context, to Side) error {
	after, err := s.w.op("prepare " + string(to))
	if err != nil {
		return err
	}
	if to.Other() != s.w.truth() {
		s.w.broken = fmt.Errorf("prepare towards the truth, %s", to)
	}
	s.w.made = true
	s.w.hears[to.Other()] = true
	s.w.hears[to] = false
	if s.w.missed {
		for i := range 12 {
			s.mark(fmt.Sprint("k", i))
		}
		s.w.missed = false
	}
	s.prepared = to
	return after(nil)
}

func (s *fakeSubject) mark(key string) {
	s.w.dirty[key] = true
	delete(s.w.verified, key)
}

func (s *fakeSubject) Copy(ctx context.Context) error {
	after, err := s.w.op("copy")
	if err != nil {
		return err
	}
	if s.copied != nil {
		close(s.copied)
		s.copied = nil
		<-ctx.Done()
		return fmt.Errorf("copy: %w", ctx.Err())
	}
	if s.w.full > 0 {
		s.w.full--
		return after(fmt.Errorf("copy k3: %w", ErrFull))
	}
	for key, val := range s.w.vol[Source] {
		put(s.w.vol[Shadow], key, val)
	}
	return after(nil)
}

func (s *fakeSubject) Pass(ctx context.Context) (PassResult, error) {
	if s.comparing != nil && s.w.truth() == Shadow {
		close(s.comparing)
		s.comparing = nil
		<-ctx.Done()
		return PassResult{}, context.Cause(ctx)
	}
	after, err := s.w.op("pass")
	if err != nil {
		return PassResult{}, err
	}
	if s.prepared != s.w.truth().Other() {
		s.w.broken = fmt.Errorf("pass while prepared for %q, truth %s", s.prepared, s.w.truth())
	}
	r := PassResult{Units: int64(len(s.w.dirty))}
	s.copyDirty()
	return r, after(nil)
}

func (s *fakeSubject) copyDirty() {
	from := s.w.truth()
	for key := range s.w.dirty {
		put(s.w.vol[from.Other()], key, s.w.vol[from][key])
		if !s.w.stick[key] {
			s.w.verified[key] = true
		}
	}
	clear(s.w.dirty)
}

func (s *fakeSubject) Backlog(context.Context) (Backlog, error) {
	after, err := s.w.op("backlog")
	if err != nil {
		return Backlog{}, err
	}
	n := int64(len(s.w.dirty))
	return Backlog{Units: n, Bytes: n * 100, PredictedPause: s.w.pause + time.Duration(n)*time.Millisecond, Unverified: int64(12 - len(s.w.verified)), Blockers: s.w.blocks}, after(nil)
}

func (s *fakeSubject) Verify(context.Context) (Proof, error) {
	after, err := s.w.op("verify")
	if err != nil {
		return Proof{}, err
	}
	return s.compare("read-back"), after(nil)
}

func (s *fakeSubject) compare(kind string) Proof {
	p := Proof{Kind: kind, Objects: 12}
	differ := map[string]bool{}
	for _, key := range s.w.differing(Source, Shadow) {
		differ[key] = true
	}
	for i := range 12 {
		key := fmt.Sprint("k", i)
		switch {
		case !differ[key]:
			s.w.verified[key] = true
			p.Verified++
		case s.w.dirty[key] && !s.w.stick[key]:
			p.Verified++ // changed since: the next pass has it
		default:
			p.Different++
			p.Examples = append(p.Examples, key+": content")
			s.mark(key)
		}
	}
	return p
}

func (s *fakeSubject) Mirror(context.Context, bool) error {
	after, err := s.w.op("mirror")
	if err != nil {
		return err
	}
	if s.mirrors {
		return after(nil)
	}
	return after(ErrNoMirror)
}

// Ready is while the service runs, and leaves nothing to be undone.
func (s *fakeSubject) Ready(_ context.Context, to Side) error {
	after, err := s.w.op("ready")
	if err != nil {
		return err
	}
	if !s.w.writable[to.Other()] {
		return after(errors.New("ready behind a fence"))
	}
	return after(nil)
}

func (s *fakeSubject) Fence(_ context.Context, to Side) error {
	after, err := s.w.op("fence")
	if err != nil {
		return err
	}
	if s.w.busy > 0 {
		s.w.busy--
		return after(&Busy{What: "/data", Holders: []Holder{{PID: 42, Command: "postgres", Path: "/data/base", Kind: "write", Writes: true}}})
	}
	if s.w.running && !s.w.erofs {
		return after(&Busy{What: "/data"})
	}
	s.w.writable[to.Other()] = false
	s.fenced = true
	return after(nil)
}

func (s *fakeSubject) Drain(ctx context.Context, to Side) (Proof, error) {
	after, err := s.w.op("drain")
	if err != nil {
		return Proof{}, err
	}
	if s.w.writable[to.Other()] {
		return Proof{}, after(errors.New("drain without a fence"))
	}
	s.copyDirty()
	return s.compare("lstat-walk"), after(nil)
}

func (s *fakeSubject) SwapIn(_ context.Context, to Side) error {
	after, err := s.w.op("swap-in")
	if err != nil {
		return err
	}
	if s.w.writable[to.Other()] {
		return after(errors.New("the fence is down"))
	}
	s.w.inPlace = to
	return after(nil)
}

func (s *fakeSubject) Settle(_ context.Context, truth Side) error {
	after, err := s.w.op("settle " + string(truth))
	if err != nil {
		return err
	}
	if truth != s.w.truth() {
		s.w.broken = fmt.Errorf("settle %s, truth %s", truth, s.w.truth())
	}
	s.w.settle(truth)
	return after(nil)
}

func (s *fakeSubject) Follow(_ context.Context, to Side) error {
	after, err := s.w.op("follow")
	if err != nil {
		return err
	}
	s.w.hears[to.Other()] = true
	s.w.hears[to] = false
	s.prepared = to
	return after(nil)
}

func (s *fakeSubject) WayBack(context.Context) WayBack { return WayBack{State: WayFull} }

func (s *fakeSubject) Finalize(_ context.Context, truth Side) error {
	after, err := s.w.op("finalize")
	if err != nil {
		return err
	}
	if truth != s.w.truth() {
		s.w.broken = fmt.Errorf("finalize %s, truth %s", truth, s.w.truth())
	}
	s.w.released = true
	return after(nil)
}

func (s *fakeSubject) Abort(context.Context) error {
	after, err := s.w.op("abort")
	if err != nil {
		return err
	}
	if s.w.truth() != Source {
		s.w.broken = errors.New("abort of the truth")
	}
	s.w.made, s.w.released = false, true
	return after(nil)
}

func (s *fakeSubject) Close() error { return nil }
