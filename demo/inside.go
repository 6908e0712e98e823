package demo

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"

	"github.com/fsmigrate/fsmigrate/migrate"
	"github.com/fsmigrate/fsmigrate/status"
)

// message is a line from the process that runs the demo to the one that shows it.
type message struct {
	Say     string       `json:"say"`
	Done    *status.Demo `json:"done,omitempty"`
	Problem *problem     `json:"problem,omitempty"`
}

type problem struct {
	Kind migrate.Kind `json:"kind"`
	What string       `json:"what"`
	Hint string       `json:"hint"`
}

// Run shows a whole migration and answers what it showed. Everything it made but the
// pictures is gone when it returns, also when ctx ended.
//
// It happens in a process with a mount namespace of its own: a service or container
// that is started meanwhile copies all mounts of the machine, would hold the demo's
// old volume, and the migration would rightly refuse to go on.
func Run(ctx context.Context, o Options) (status.Demo, error) {
	o = o.withDefaults()
	if err := o.Validate(); err != nil {
		return status.Demo{}, err
	}
	say := o.Say
	o.Say = nil
	told, err := json.Marshal(o)
	if err != nil {
		return status.Demo{}, err
	}
	// Ctrl-C reaches it too; it cleans up and says so, and is waited for.
	cmd := exec.Command(o.Self, "demo-app", "inside", string(told))
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return status.Demo{}, err
	}
	if err := cmd.Start(); err != nil {
		return status.Demo{}, fmt.Errorf("start the demo in a mount namespace of its own: %w", err)
	}
	asked := context.AfterFunc(ctx, func() { _ = cmd.Process.Signal(syscall.SIGTERM) })
	defer asked()
	last := hear(out, say)
	err = cmd.Wait()
	switch {
	case last.Problem != nil:
		return status.Demo{}, &migrate.Problem{Kind: last.Problem.Kind, What: last.Problem.What, Hint: last.Problem.Hint}
	case last.Done == nil && err != nil:
		return status.Demo{}, fmt.Errorf("the demo ended: %w", err)
	case last.Done == nil:
		return status.Demo{}, errors.New("the demo ended without a result")
	}
	return *last.Done, nil
}

// hear says what the demo says, to its last message.
func hear(r io.Reader, say func(string)) (last message) {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var m message
		if json.Unmarshal(lines.Bytes(), &m) != nil {
			continue
		}
		if m.Done == nil && m.Problem == nil {
			say(m.Say)
			continue
		}
		last = m
	}
	return last
}

// Inside runs a demo as told by Run, in the process that Run made for it.
func Inside(ctx context.Context, told string, w io.Writer) error {
	var o Options
	if err := json.Unmarshal([]byte(told), &o); err != nil {
		return fmt.Errorf("read the demo's options: %w", err)
	}
	// Without a reader nobody watches any more: then it is over.
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	enc := json.NewEncoder(w)
	send := func(m message) {
		if err := enc.Encode(m); err != nil {
			cancel(fmt.Errorf("nobody watches the demo any more: %w", err))
		}
	}
	o.Say = func(line string) { send(message{Say: line}) }
	d, err := show(ctx, o)
	if err != nil {
		send(message{Problem: &problem{Kind: migrate.KindOf(err), What: err.Error(), Hint: migrate.HintOf(err)}})
		return nil
	}
	send(message{Done: &d})
	return nil
}
