package disrupt

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/fsmigrate/fsmigrate/bench/result"
	"github.com/fsmigrate/fsmigrate/bench/work"
)

// scaled are the movers whose cost over the number of files is drawn.
var scaled = []string{result.Ours, "rsync two-pass"}

// scaleShare of the budget is the most that the scale may take.
const scaleShare = 0.45

// scale measures how cost grows with the number of files, the smallest first. The
// application does little and always the same: what grows is the tree.
func (b *bench) scale(ctx context.Context) error {
	w, _ := work.Find("append")
	b.rep.Scale = &result.Scale{Workload: w.Name}
	o := b.o
	o.Before = min(o.Before, time.Second)
	o.After = min(o.After, time.Second)
	o.Hold = 0
	began := time.Now()
	took := map[string][]sized{}
	for _, n := range slices.Sorted(slices.Values(b.o.Scale)) {
		for _, m := range catalog {
			if !slices.Contains(scaled, m.name) || len(o.Movers) > 0 && !slices.Contains(o.Movers, m.name) || len(m.missing()) > 0 {
				continue
			}
			guess := expected(took[m.name], n)
			share := time.Duration(float64(b.o.Budget) * scaleShare)
			if !b.affords(guess) || b.o.Budget > 0 && time.Since(began)+guess > share {
				b.omit(result.NotRun{Mover: m.name, Why: fmt.Sprintf("--scale with %d files: some %s more than the time allowed (--budget %s)", n, guess.Round(time.Second), b.o.Budget)})
				continue
			}
			from := time.Now()
			if err := b.point(ctx, o, n, w, m); err != nil {
				return err
			}
			took[m.name] = append(took[m.name], sized{n, time.Since(from)})
		}
	}
	b.rep.Scale.Draw()
	if len(b.rep.Scale.Points) == 0 {
		b.rep.Scale = nil
	}
	return nil
}

// sized is how long a point of the scale took.
type sized struct {
	files int
	took  time.Duration
}

// eachFile is what a file takes in a point of the scale at most, made and copied and
// compared, for as long as that was not measured.
const eachFile = time.Millisecond

// expected is how long a point takes with n files: as long as the last one, and as much for
// each file more as between the two last ones, with a quarter to spare. 0: nobody knows.
func expected(had []sized, n int) time.Duration {
	if len(had) == 0 {
		return 0
	}
	last := had[len(had)-1]
	each := float64(eachFile)
	if len(had) > 1 {
		before := had[len(had)-2]
		each = 1.25 * float64(max(0, last.took-before.took)) / float64(max(1, last.files-before.files))
	}
	return last.took + time.Duration(each*float64(n-last.files))
}

// point is one mover at one size.
func (b *bench) point(ctx context.Context, o Options, n int, w work.Kind, m mover) (err error) {
	l, err := openLab(o, smallScenario(n))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, ended(l)) }()
	r, _, _, err := once(ctx, o, l, w, m, true)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if died := (errDied{}); errors.As(err, &died) {
		return fmt.Errorf("--scale with %d files, %s under %s: %w", n, w.Name, m.name, died.error)
	}
	if err != nil {
		b.omit(result.NotRun{Mover: m.name, Failed: true, Why: fmt.Sprintf("--scale with %d files: %s", n, err)})
		return nil
	}
	b.rep.Scale.Points = append(b.rep.Scale.Points, result.Point{Files: n, Mover: m.name, Totals: r.Totals})
	b.o.Say(fmt.Sprintf("scale %8d files  %-16s plan %6.2f s, copying %6.2f s, stopped %6.2f s, memory %d MiB", n, m.name, r.PlanS, r.CopyS, r.DownS, r.PeakRSS>>20))
	return nil
}
