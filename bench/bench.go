package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
)

// ours is fsmigrate among the contenders.
const ours = "fsmigrate"

// Options are what a benchmark can be told.
type Options struct {
	Dir     string   // where the images are made, on a disk
	Out     string   // where the report goes
	Only    []string // scenarios; empty: all
	Runs    int      // of each contender
	Files   int      // small ones
	Large   int64    // bytes in large files
	Peers   []string // contenders beside fsmigrate; empty: all
	Policy  string   // of fsmigrate: asap or gentle
	Threads []int    // of fsmigrate, which is measured with each; 0: its own choice
	Profile string   // CPU profile of the last walk
	Binary  string   // fsmigrate, for what is measured through the command
}

// Scenarios are the names that Only takes.
var Scenarios = []string{"small", "large", "pause", "rename", "dirty", "hot", "resume"}

// bench is an invocation.
type bench struct {
	Options
	w io.Writer
}

// Run measures and writes the tables to w and the report to o.Out.
func Run(ctx context.Context, o Options, w io.Writer) error {
	b := &bench{o, w}
	rep := newReport()
	fmt.Fprintf(w, "Linux %s, %d processors, load %.1f at the beginning, fsmigrate's policy %s\n", rep.Kernel, rep.CPUs, load(), o.Policy)
	for _, s := range []struct {
		name string
		run  func(context.Context) (*result, error)
	}{{"small", b.small}, {"large", b.large}, {"pause", b.pause}, {"rename", b.rename},
		{"dirty", b.dirty}, {"hot", b.hot}, {"resume", b.resume}} {
		if len(o.Only) > 0 && !slices.Contains(o.Only, s.name) {
			continue
		}
		res, err := s.run(ctx)
		if err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		res.print(w)
		rep.Results = append(rep.Results, res)
		if err := rep.write(o.Out); err != nil { // what there is, should the next one fail
			return err
		}
	}
	return nil
}

// small is the first copy of many small files, cold.
func (b *bench) small(ctx context.Context) (res *result, err error) {
	r, err := newRig(ctx, b.Dir, int64(b.Files)*24<<10+2<<30, int64(b.Files)*5/4+10000)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	res = &result{Name: "first copy, small files", Cache: cold, Files: b.Files, Floor: 1.5, Goal: 2.4}
	if res.Bytes, err = SmallFiles(ctx, r.data(), b.Files); err != nil {
		return nil, err
	}
	return res, b.compare(ctx, r, res)
}

// large is the first copy of four large files, cold.
func (b *bench) large(ctx context.Context) (res *result, err error) {
	r, err := newRig(ctx, b.Dir, b.Large*5/4+1<<30, 20000)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	res = &result{Name: "first copy, large files", Cache: cold, Files: 4, Floor: 1.6, Goal: 2.2}
	if res.Bytes, err = LargeFiles(ctx, r.data(), b.Large); err != nil {
		return nil, err
	}
	return res, b.compare(ctx, r, res)
}

const cold = "cold: source remounted and caches dropped before each run, target blank; sync included"

// contender is one way to copy.
type contender struct {
	name string
	once func(context.Context, *rig) (run, error)
}

// compare runs all contenders in turns; each round begins with another one.
func (b *bench) compare(ctx context.Context, r *rig, res *result) error {
	list := []contender{}
	for _, p := range peers {
		if len(b.Peers) > 0 && !slices.Contains(b.Peers, p.name) {
			continue
		}
		args := p.args(r.data(), r.peer())
		list = append(list, contender{p.name, func(ctx context.Context, r *rig) (run, error) { return b.copyOnce(ctx, r, args) }})
	}
	for i, n := range b.Threads {
		name := ours
		if i > 0 {
			name = fmt.Sprintf("%s -t %d", ours, n)
		}
		list = append(list, contender{name, func(ctx context.Context, r *rig) (run, error) { return b.walkOnce(ctx, r, WalkOptions{Threads: n}) }})
	}
	res.Base = list[0].name
	for _, c := range list {
		res.Series = append(res.Series, series{Name: c.name})
	}
	for round := range b.Runs {
		for i := range list {
			k := (i + round) % len(list)
			at := load()
			m, err := list[k].once(ctx, r)
			if err != nil {
				return fmt.Errorf("%s: %w", list[k].name, err)
			}
			m.Load = at
			res.Series[k].Runs = append(res.Series[k].Runs, m)
			fmt.Fprintf(b.w, "  round %d  %-12s %8.3f s  cpu %6.2f s  read %s  load %.1f\n", round+1, list[k].name, m.Seconds, m.CPU, size(m.Read), at)
		}
	}
	return nil
}
