package bench

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime/pprof"
	"time"

	"golang.org/x/sys/unix"

	_ "github.com/fsmigrate/fsmigrate/formats/ext" // the source's
	_ "github.com/fsmigrate/fsmigrate/formats/xfs" // the target's
	"github.com/fsmigrate/fsmigrate/migrate"
	"github.com/fsmigrate/fsmigrate/preflight"
	"github.com/fsmigrate/fsmigrate/shadow"
)

// WalkOptions are what the process that walks is told.
type WalkOptions struct {
	Source, Spare, State, Fstab string
	Policy                      string
	Threads                     int
	Profile                     string    // CPU profile of the walk alone; "": none
	Rename                      [2]string // done in the middle of the walk, when set
}

// walked is what it answers.
type walked struct {
	Seconds float64 `json:"seconds"`
	CPU     float64 `json:"cpu_seconds"`
	RSS     int64   `json:"peak_rss_bytes"`
	Objects int64   `json:"objects"` // created on the shadow, over all
	Error   string  `json:"error,omitempty"`
}

// Walk is fsmigrate's first copy in this process: it plans and prepares, says so, and
// copies when it is told to on r.
func Walk(ctx context.Context, o WalkOptions, r io.Reader, w io.Writer) error {
	enc := json.NewEncoder(w)
	res, err := walk(ctx, o, func() error {
		if err := enc.Encode("ready"); err != nil {
			return err
		}
		_, err := bufio.NewReader(r).ReadString('\n')
		return err
	})
	if err != nil {
		res.Error = err.Error()
	}
	return enc.Encode(res)
}

func walk(ctx context.Context, o WalkOptions, ready func() error) (res walked, err error) {
	plan, err := preflight.Make(ctx, preflight.Request{
		ID: "bench", Source: o.Source, To: "xfs", Spare: o.Spare, Fstab: o.Fstab, Wipe: true,
		Set: func(p *migrate.Plan) {
			p.Copy.Policy, p.Copy.Threads = o.Policy, o.Threads
			*p = p.WithDefaults()
		},
	})
	if err != nil {
		return res, err
	}
	tree, err := shadow.NewTree(shadow.TreeOptions{Plan: plan, State: o.State})
	if err != nil {
		return res, err
	}
	defer func() { err = errors.Join(err, tree.Abort(context.WithoutCancel(ctx)), tree.Close()) }()
	if err := tree.Prepare(ctx, migrate.Shadow); err != nil {
		return res, err
	}
	if err := ready(); err != nil {
		return res, err
	}
	if o.Profile != "" {
		f, err := os.Create(o.Profile)
		if err != nil {
			return res, err
		}
		defer f.Close()
		if err := pprof.StartCPUProfile(f); err != nil {
			return res, err
		}
		defer pprof.StopCPUProfile()
	}
	renamed := make(chan error, 1)
	go func() { renamed <- renameAt(ctx, o.Rename, plan.Observed.Objects/2, tree) }()
	before, began := cpu(), time.Now()
	if err := tree.Copy(ctx); err != nil {
		return res, err
	}
	if err := <-renamed; err != nil {
		return res, err
	}
	if o.Rename[0] != "" {
		if _, err := tree.Pass(ctx); err != nil { // which does the rename
			return res, err
		}
	}
	res.Seconds, res.CPU, res.RSS = time.Since(began).Seconds(), cpu()-before, peak()
	res.Objects = tree.Progress().Objects
	return res, nil
}

// renameAt renames when so many objects are copied.
func renameAt(ctx context.Context, names [2]string, objects int64, tree *shadow.Tree) error {
	if names[0] == "" {
		return nil
	}
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for tree.Progress().Objects < objects {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
	return os.Rename(names[0], names[1])
}

func cpu() float64 {
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
}

func peak() int64 {
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return u.Maxrss << 10
}

// walkOnce runs Walk in a process of its own, with cold caches.
func (b *bench) walkOnce(ctx context.Context, r *rig, o WalkOptions) (run, error) {
	if err := r.blank(ctx); err != nil {
		return run{}, err
	}
	if err := errors.Join(os.RemoveAll(r.state()), os.Mkdir(r.state(), 0o700)); err != nil {
		return run{}, err
	}
	o.Source, o.Spare, o.State, o.Fstab = r.data(), r.spare.Path, r.state(), r.fstab()
	o.Policy, o.Profile = b.Policy, b.Profile
	told, err := json.Marshal(o)
	if err != nil {
		return run{}, err
	}
	cmd := exec.CommandContext(ctx, "/proc/self/exe", "walk", string(told))
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) } // it undoes what it made
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return run{}, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return run{}, err
	}
	if err := cmd.Start(); err != nil {
		return run{}, err
	}
	res, t, err := b.converse(r, in, bufio.NewReader(out))
	if waited := cmd.Wait(); err == nil {
		err = waited
	}
	if err == nil && res.Error != "" {
		err = errors.New(res.Error)
	}
	if err != nil {
		return run{}, fmt.Errorf("walk: %w", err)
	}
	return run{Seconds: res.Seconds, CPU: res.CPU, RSS: res.RSS, Read: t.Read, Objects: res.Objects}, nil
}

func (b *bench) converse(r *rig, in io.WriteCloser, out *bufio.Reader) (res walked, t traffic, err error) {
	defer in.Close()
	line, err := out.ReadBytes('\n')
	if err != nil {
		return res, t, err
	}
	if string(line) != "\"ready\"\n" {
		return res, t, json.Unmarshal(line, &res)
	}
	if err := dropCaches(); err != nil {
		return res, t, err
	}
	before, err := moved(r.source)
	if err != nil {
		return res, t, err
	}
	if _, err := io.WriteString(in, "go\n"); err != nil {
		return res, t, err
	}
	if line, err = out.ReadBytes('\n'); err != nil {
		return res, t, err
	}
	now, err := moved(r.source)
	if err != nil {
		return res, t, err
	}
	return res, now.since(before), json.Unmarshal(line, &res)
}
