package bench

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// dirty is the pause when much was written just before: a GiB in the last ten seconds.
func (b *bench) dirty(ctx context.Context) (res *result, err error) {
	const files, total = 10_000, 1 << 30
	r, err := newRig(ctx, b.Dir, 8<<30, 100_000)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	res = &result{Name: "writes refused at the swap, 1 GiB written in the ten seconds before", Cache: "warm; the final rsync against pause_ms",
		Files: files + 4, Base: "rsync, again", Series: []series{{Name: "rsync, again"}, {Name: ours}}}
	if res.Bytes, err = SmallFiles(ctx, r.data(), files); err != nil {
		return nil, err
	}
	large, err := LargeFiles(ctx, r.data(), 2<<30)
	if err != nil {
		return nil, err
	}
	res.Bytes += large
	write := func() error { return rewrite(ctx, r.data(), total, 10*time.Second) }
	for round := range b.Runs {
		for i := range 2 {
			k := (i + round) % 2
			var m run
			at := load()
			if k == 0 {
				m, err = b.againAfter(ctx, r, write)
			} else {
				m, err = b.migration(ctx, r, session{}, func(s *session) (run, error) {
					if err := errors.Join(s.do(ctx, "wait", "bench", "--for", "hold", "--timeout", "2h"), write()); err != nil {
						return run{}, err
					}
					return s.swap(ctx)
				})
			}
			if err != nil {
				return nil, err
			}
			m.Load = at
			res.Series[k].Runs = append(res.Series[k].Runs, m)
			fmt.Fprintf(b.w, "  round %d  %-12s %8.3f s  load %.1f\n", round+1, res.Series[k].Name, m.Seconds, at)
		}
	}
	return res, nil
}

// rewrite overwrites the four large files in blocks of 256 KiB at random places, total
// bytes in all, evenly over the time given.
func rewrite(ctx context.Context, root string, total int64, over time.Duration) error {
	const block = 256 << 10
	buf, rng := noise(block), rand.New(rand.NewPCG(5, uint64(time.Now().UnixNano())))
	var files [4]*os.File
	for i := range files {
		f, err := os.OpenFile(filepath.Join(root, fmt.Sprintf("large-%d", i)), os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		files[i] = f
	}
	st, err := files[0].Stat()
	if err != nil {
		return err
	}
	began := time.Now()
	for done := int64(0); done < total; done += block {
		if err := ctx.Err(); err != nil {
			return err
		}
		time.Sleep(time.Until(began.Add(time.Duration(float64(over) * float64(done) / float64(total)))))
		buf[rng.IntN(block)]++
		if _, err := files[rng.IntN(4)].WriteAt(buf, rng.Int64N(st.Size()/block)*block); err != nil {
			return err
		}
	}
	return nil
}

// hot is the pause with one large file that is rewritten at random all the time: what
// was predicted in Hold against what it took.
func (b *bench) hot(ctx context.Context) (res *result, err error) {
	bytes := 2 * b.Large
	r, err := newRig(ctx, b.Dir, bytes*9/4+1<<30, 10_000) // rsync writes the file anew beside itself
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	res = &result{Name: "writes refused at the swap, one file rewritten throughout", Cache: "as it comes; the final rsync against pause_ms",
		Files: 1, Bytes: bytes, Base: "rsync, again", Series: []series{{Name: "rsync, again"}, {Name: predicted}, {Name: ours}}}
	file := filepath.Join(r.data(), "hot")
	if err := writeFile(ctx, file, bytes); err != nil {
		return nil, err
	}
	for round := range b.Runs {
		w := rewriter{file: file, stop: filepath.Join(r.dir, "stop"), stopped: filepath.Join(r.dir, "stopped")}
		w.start()
		at := load()
		var before run
		m, err := b.migration(ctx, r, session{run: []string{"--stop", w.stopCommand(), "--start", w.startCommand()}}, func(s *session) (run, error) {
			if err := s.do(ctx, "wait", "bench", "--for", "hold", "--timeout", "2h"); err != nil {
				return run{}, err
			}
			time.Sleep(10 * time.Second) // a prediction made at leisure
			st, err := s.status(ctx)
			if err != nil {
				return run{}, err
			}
			before.Seconds = st.PredictedMS / 1e3
			return s.swap(ctx)
		})
		if err = errors.Join(err, w.end()); err != nil {
			return nil, err
		}
		w.start()
		again, err := b.againAfter(ctx, r, w.end)
		if err = errors.Join(err, w.end()); err != nil {
			return nil, err
		}
		again.Load, before.Load, m.Load = at, at, at
		for i, v := range []run{again, before, m} {
			res.Series[i].Runs = append(res.Series[i].Runs, v)
		}
		fmt.Fprintf(b.w, "  round %d  rsync %.3f s, predicted %.3f s, took %.3f s  load %.1f\n", round+1, again.Seconds, before.Seconds, m.Seconds, at)
		if m.Seconds > before.Seconds {
			res.Notes = append(res.Notes, fmt.Sprintf("round %d: it took longer than predicted", round+1))
		}
	}
	return res, nil
}

const predicted = "predicted"

func writeFile(ctx context.Context, path string, n int64) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	buf := noise(4 << 20)
	for left := n; left > 0; left -= int64(len(buf)) {
		if err := ctx.Err(); err != nil {
			return err
		}
		if _, err := f.Write(buf[:min(left, int64(len(buf)))]); err != nil {
			return err
		}
	}
	return f.Sync()
}

// rewriter is an application that writes 4 KiB at random places of a file, 500 times a
// second, from start until end; the hooks of a migration stop and start it in between.
type rewriter struct {
	file, stop, stopped string // stopped is there while the file is closed
	quit                chan struct{}
	done                chan error
}

func (w *rewriter) stopCommand() string {
	return fmt.Sprintf("touch %s; until [ -e %s ]; do sleep 0.005; done", w.stop, w.stopped)
}

func (w *rewriter) startCommand() string { return fmt.Sprintf("rm -f %s %s", w.stop, w.stopped) }

func (w *rewriter) start() {
	w.quit, w.done = make(chan struct{}), make(chan error, 1)
	go func() { w.done <- w.run() }()
}

// end ends it; again is allowed.
func (w *rewriter) end() error {
	if w.quit == nil {
		return nil
	}
	close(w.quit)
	w.quit = nil
	return <-w.done
}

func (w *rewriter) run() error {
	var f *os.File
	defer func() { f.Close() }()
	buf, rng := noise(4096), rand.New(rand.NewPCG(7, 8))
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-w.quit:
			return nil
		case <-tick.C:
		}
		if _, err := os.Stat(w.stop); err == nil {
			if f != nil {
				f.Close()
				f = nil
			}
			if err := os.WriteFile(w.stopped, nil, 0o600); err != nil {
				return err
			}
			continue
		}
		if f == nil {
			var err error
			if f, err = os.OpenFile(w.file, os.O_WRONLY, 0); err != nil {
				return err
			}
		}
		st, err := f.Stat()
		if err != nil {
			return err
		}
		buf[rng.IntN(len(buf))]++
		if _, err := f.WriteAt(buf, rng.Int64N(st.Size()/4096)*4096); err != nil {
			return err
		}
	}
}

// resumeMemory is what an engine may use, in bytes.
const resumeMemory = 256 << 20

// resume is how long an engine takes from its start until it is caught up in Hold again,
// killed there, with 100 files changed while it was dead; then the cutover and the way back. All of it in a
// memory group of 256 MiB, page cache and kernel memory included.
func (b *bench) resume(ctx context.Context) (res *result, err error) {
	r, err := newRig(ctx, b.Dir, int64(b.Files)*24<<10+2<<30, int64(b.Files)*5/4+10000)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	const again = "killed and resumed"
	res = &result{Name: "from the start of the first copy to Hold, and from resume to Hold", Cache: "warm", Files: b.Files, Base: ours,
		Series: []series{{Name: ours}, {Name: again}}}
	if res.Bytes, err = SmallFiles(ctx, r.data(), b.Files); err != nil {
		return nil, err
	}
	group, err := newMemoryGroup(resumeMemory)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, group.remove()) }()
	wrap := func(ctx context.Context, args ...string) *exec.Cmd {
		return group.command(ctx, append([]string{b.Binary}, args...)...)
	}
	for round := range b.Runs {
		var first, second run
		began, at := time.Now(), load()
		_, err := b.migration(ctx, r, session{wrap: wrap}, func(s *session) (run, error) {
			if err := s.do(ctx, "wait", "bench", "--for", "hold", "--timeout", "2h"); err != nil {
				return run{}, err
			}
			st, err := s.status(ctx)
			if err != nil {
				return run{}, err
			}
			first = run{Seconds: time.Since(began).Seconds(), RSS: st.Report.PeakRSS, Load: at}
			if err := s.engine.Process.Kill(); err != nil {
				return run{}, err
			}
			<-s.ended
			if err := touch(r.data(), b.Files, changed, round+1); err != nil {
				return run{}, err
			}
			at, began := load(), time.Now()
			if err := s.start(ctx, "resume", "bench"); err != nil {
				return run{}, err
			}
			if err := s.caughtUp(ctx); err != nil {
				return run{}, err
			}
			second = run{Seconds: time.Since(began).Seconds(), Load: at}
			m, err := s.swap(ctx)
			second.RSS = m.RSS
			return m, err
		})
		if err != nil {
			return nil, err
		}
		res.Series[0].Runs = append(res.Series[0].Runs, first)
		res.Series[1].Runs = append(res.Series[1].Runs, second)
		fmt.Fprintf(b.w, "  round %d  to Hold %.1f s, resumed in %.1f s, peak RSS %s  load %.1f\n", round+1, first.Seconds, second.Seconds, size(max(first.RSS, second.RSS)), at)
	}
	failed, err := group.failed()
	if err != nil {
		return nil, err
	}
	res.Notes = append(res.Notes, fmt.Sprintf("in a memory group of %d MiB, page cache and kernel memory included; %d times the kernel had to reclaim, nothing was killed", resumeMemory>>20, failed))
	return res, nil
}

// againAfter is the second rsync after change, with a first that nobody times.
func (b *bench) againAfter(ctx context.Context, r *rig, change func() error) (m run, err error) {
	if err := r.target(ctx); err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, r.dropTarget()) }()
	args := []string{"rsync", "-aHAX", "--numeric-ids", "--delete", r.data() + "/", r.peer() + "/"}
	if _, err := timed(ctx, args, r.peer()); err != nil {
		return m, err
	}
	if err := change(); err != nil {
		return m, err
	}
	return timed(ctx, args, r.peer())
}
