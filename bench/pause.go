package bench

import (
	"context"
	"errors"
	"fmt"
)

// changed is how many files are rewritten before the last pass.
const changed = 100

// pause is how long writes are refused at the cutover with 100 of all files changed just
// before, against the second rsync that people do with their service stopped. The
// caches are warm for both: each has just been over all files.
func (b *bench) pause(ctx context.Context) (res *result, err error) {
	r, err := newRig(ctx, b.Dir, int64(b.Files)*24<<10+2<<30, int64(b.Files)*5/4+10000)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	res = &result{Name: fmt.Sprintf("writes refused at the swap, %d files changed", changed), Cache: "warm; the final rsync against pause_ms",
		Files: b.Files, Base: "rsync, again", Series: []series{{Name: "rsync, again"}, {Name: ours}}}
	if b.Files >= 1_000_000 { // rsync's grows with the files, ours does not: the floor is for many
		res.Floor, res.Goal = 30, 30
	}
	if res.Bytes, err = SmallFiles(ctx, r.data(), b.Files); err != nil {
		return nil, err
	}
	for round := range b.Runs {
		for i := range 2 {
			once := []func(context.Context, *rig, int) (run, error){b.again, b.cutover}[(i+round)%2]
			at := load()
			m, err := once(ctx, r, round)
			if err != nil {
				return nil, err
			}
			m.Load = at
			s := &res.Series[(i+round)%2]
			s.Runs = append(s.Runs, m)
			fmt.Fprintf(b.w, "  round %d  %-12s %8.3f s  load %.1f\n", round+1, s.Name, m.Seconds, at)
		}
	}
	return res, nil
}

// again is the second rsync, after a first that nobody times.
func (b *bench) again(ctx context.Context, r *rig, round int) (m run, err error) {
	if err := r.target(ctx); err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, r.dropTarget()) }()
	args := []string{"rsync", "-aHAX", "--numeric-ids", "--delete", r.data() + "/", r.peer() + "/"}
	if _, err := timed(ctx, args, r.peer()); err != nil {
		return m, err
	}
	if err := touch(r.data(), b.Files, changed, 2*round); err != nil {
		return m, err
	}
	return timed(ctx, args, r.peer())
}

// cutover runs a whole migration with the real command, changes files in Hold, cuts over,
// and goes back, so that the next round finds the source as it was.
func (b *bench) cutover(ctx context.Context, r *rig, round int) (run, error) {
	return b.migration(ctx, r, session{}, func(s *session) (m run, err error) {
		if err := s.do(ctx, "wait", "bench", "--for", "hold", "--timeout", "2h"); err != nil {
			return m, err
		}
		if err := touch(r.data(), b.Files, changed, 2*round+1); err != nil {
			return m, err
		}
		return s.swap(ctx)
	})
}
