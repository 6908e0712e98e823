package work

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"
)

// Options are what the process of an application is told.
type Options struct {
	Name    string  `json:"name"`
	Dir     string  `json:"dir"`     // the volume
	Scratch string  `json:"scratch"` // a directory elsewhere, for logs
	Rate    float64 `json:"rate"`    // operations a second; 0: the workload's own
	Epoch   int64   `json:"epoch"`   // nanoseconds of Unix time at which operation 0 is due
	From    int64   `json:"from"`    // the first operation that was not done yet
}

func (o Options) interval() time.Duration { return time.Duration(float64(time.Second) / o.Rate) }

// Kind is a workload that can be asked for.
type Kind struct {
	Name   string
	Says   string   // what it does, for the report
	Rate   float64  // operations due a second
	Needs  []string // programs
	Filled bool     // what it did not begin has to be filled in by the reader

	workers int
	open    func(dir string) (store, error)
	run     func(ctx context.Context, o Options, out *log) error // instead of open, for other programs
}

// store is a workload's files.
type store interface {
	// do is operation k; it answers the bytes that it wrote. Called from several workers.
	do(k int64) (int64, error)
	close() error
}

// Kinds are the workloads, in the order of the report.
var Kinds = []Kind{
	{Name: "mixed", Says: "small files: half written, a quarter read, the rest overwritten with fsync, renamed or removed", Rate: 200, workers: 4, open: openMixed},
	{Name: "sqlite", Says: "a SQLite database in WAL mode: one synced insert a transaction", Rate: 100, workers: 1, open: openSQLite},
	{Name: "postgres", Says: "PostgreSQL under pgbench (TPC-B-like, 2 clients)", Rate: 50, Needs: []string{"initdb", "postgres", "pgbench"}, Filled: true, run: runPostgres},
	{Name: "random", Says: "4 KiB at a random place of a 64 MiB file, each followed by fdatasync", Rate: 100, workers: 2, open: openRandom},
	{Name: "append", Says: "a log: 512 bytes appended with fdatasync, rotated at 4 MiB", Rate: 100, workers: 1, open: openAppend},
	{Name: "mail", Says: "a maildir: written to tmp, fsync, renamed to new, fsync of the directory; read and moved on; expired", Rate: 50, workers: 4, open: openMail},
	{Name: "metadata", Says: "a storm of create, rename, link, chmod, setxattr, mkdir and unlink; no data", Rate: 300, workers: 4, open: openMeta},
	{Name: "mmap", Says: "4 KiB stored through a mapping of 64 MiB, each followed by msync", Rate: 50, workers: 1, open: openMapped},
	{Name: "fio", Says: "fio: random 4 KiB writes with O_DSYNC to a file of 64 MiB", Rate: 100, Needs: []string{"fio"}, Filled: true, run: runFio},
}

// Find is the kind of a name.
func Find(name string) (Kind, bool) {
	i := slices.IndexFunc(Kinds, func(k Kind) bool { return k.Name == name })
	if i < 0 {
		return Kind{}, false
	}
	return Kinds[i], true
}

// Missing are the programs that the workload needs and the machine has not.
func (k Kind) Missing() []string {
	var list []string
	for _, p := range k.Needs {
		if _, err := Program(p); err != nil {
			list = append(list, p)
		}
	}
	return list
}

// Program finds a program, also those that Debian keeps out of PATH.
func Program(name string) (string, error) {
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/" + name)
	slices.Sort(found)
	for _, dir := range []string{"/usr/sbin/", "/sbin/"} {
		found = append(found, dir+name)
	}
	for _, path := range slices.Backward(found) {
		if p, err := exec.LookPath(path); err == nil {
			return p, nil
		}
	}
	return "", fmt.Errorf("%s is not installed", name)
}

// whileParent ends when the process that started us does: an application of a benchmark
// that was killed would work for ever.
func whileParent(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancel(ctx)
	parent := os.Getppid()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for os.Getppid() == parent {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
		}
		cancel()
	}()
	return ctx, func() {
		cancel()
		<-ended
	}
}

// Run is the application: it says that it is ready, and works until ctx ends. Its lines
// go to w.
func Run(ctx context.Context, o Options, w io.Writer) (err error) {
	k, ok := Find(o.Name)
	if !ok {
		return fmt.Errorf("there is no workload %q", o.Name)
	}
	o.Rate = cmp.Or(o.Rate, k.Rate)
	ctx, cancel := whileParent(ctx)
	defer cancel()
	out := newLog(w)
	defer func() {
		if closed := out.close(); err == nil {
			err = closed
		}
	}()
	if k.run != nil {
		return k.run(ctx, o, out)
	}
	s, err := k.open(o.Dir)
	if err != nil {
		return fmt.Errorf("open the files of %s: %w", o.Name, err)
	}
	out.ready()
	err = loop(ctx, o, k.workers, s, out)
	if closed := s.close(); err == nil {
		err = closed
	}
	return err
}
