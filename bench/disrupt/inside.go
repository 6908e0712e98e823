package disrupt

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fsmigrate/fsmigrate/bench/result"
	"github.com/fsmigrate/fsmigrate/migrate"
)

// message is what the process that measures tells the one that shows it.
type message struct {
	Say     string         `json:"say,omitempty"`
	Done    *result.Report `json:"done,omitempty"`
	Problem *problem       `json:"problem,omitempty"`
}

type problem struct {
	Kind migrate.Kind `json:"kind"`
	What string       `json:"what"`
	Hint string       `json:"hint"`
}

// Run measures, and answers what was measured. Everything it made is gone when it
// returns, also when ctx ended; then there is no report.
//
// It happens in a process with a mount namespace of its own: a service or container that
// is started meanwhile copies all mounts of the machine, would hold the benchmark's old
// volume, and a migration would rightly refuse to go on.
func Run(ctx context.Context, o Options) (*result.Report, error) {
	o = o.withDefaults()
	if err := o.Validate(); err != nil {
		return nil, err
	}
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return nil, err
	}
	o.Dir = dir
	told, err := json.Marshal(o)
	if err != nil {
		return nil, err
	}
	// Ctrl-C reaches it too; it cleans up and says so, and is waited for.
	cmd := exec.Command(o.Self, "bench-app", "inside", string(told))
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the benchmark in a mount namespace of its own: %w", err)
	}
	asked := context.AfterFunc(ctx, func() { _ = cmd.Process.Signal(syscall.SIGTERM) })
	defer asked()
	last := hear(out, o.Say)
	err = cmd.Wait()
	switch {
	case last.Problem != nil:
		return nil, &migrate.Problem{Kind: last.Problem.Kind, What: last.Problem.What, Hint: last.Problem.Hint}
	case last.Done == nil && err != nil:
		return nil, fmt.Errorf("the benchmark ended: %w", err)
	case last.Done == nil:
		return nil, errors.New("the benchmark ended without a result")
	}
	return last.Done, nil
}

// hear says what is said, to the last message.
func hear(r io.Reader, say func(string)) (last message) {
	dec := json.NewDecoder(r)
	for {
		var m message
		if dec.Decode(&m) != nil {
			return last
		}
		if m.Done == nil && m.Problem == nil {
			say(m.Say)
			continue
		}
		last = m
	}
}

// Inside is the benchmark as told by Run, in the process that Run made for it.
func Inside(ctx context.Context, told string, w io.Writer) error {
	var o Options
	if err := json.Unmarshal([]byte(told), &o); err != nil {
		return fmt.Errorf("read the benchmark's options: %w", err)
	}
	// Without a reader nobody watches any more: then it is over.
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	enc := json.NewEncoder(w)
	send := func(m message) {
		if err := enc.Encode(m); err != nil {
			cancel(fmt.Errorf("nobody watches the benchmark any more: %w", err))
		}
	}
	o.Say = func(line string) { send(message{Say: line}) }
	rep, err := show(ctx, o)
	switch {
	case err != nil && ctx.Err() != nil:
		send(message{Problem: &problem{What: "interrupted; nothing was reported, and nothing is left: " + err.Error(), Kind: migrate.Failed}})
	case err != nil:
		send(message{Problem: &problem{Kind: migrate.KindOf(err), What: err.Error(), Hint: migrate.HintOf(err)}})
	default:
		send(message{Done: rep})
	}
	return nil
}

// adopt makes this process the parent of whatever its children leave behind.
func adopt() error { return unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) }

// reap ends what children left behind, such as the watchdog of an engine that was killed,
// and returns when they are gone or will not go.
func reap() {
	end := time.Now().Add(engineLimit)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for time.Now().Before(end) {
		left := children(os.Getpid())
		if len(left) == 0 {
			return
		}
		for _, pid := range left {
			_ = unix.Kill(pid, unix.SIGKILL)
			_, _ = unix.Wait4(pid, nil, unix.WNOHANG, nil)
		}
		<-tick.C
	}
}
