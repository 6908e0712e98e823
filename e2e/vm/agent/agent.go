// Package agent is how a test outside of a virtual machine runs commands inside: a line
// of JSON for each request and each piece of an answer, over a virtio port.
//
// Requests run at the same time. The agent knows nothing of what it runs, and a command
// goes on when nobody reads its output any more.
package agent

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"sync"
	"syscall"
)

// Request asks for a command. N is a number that the answers carry.
type Request struct {
	N    int      `json:"n"`
	Argv []string `json:"argv"`
}

// Reply is a piece of output, standard output and error as they come, or the end.
type Reply struct {
	N     int    `json:"n"`
	Out   string `json:"out,omitempty"`
	Ended bool   `json:"ended,omitempty"`
	Code  int    `json:"code"` // -1: ended by a signal, or not started
}

// Serve answers the requests that come from r on w, until r ends.
func Serve(r io.Reader, w io.Writer) error {
	s := &server{w: w}
	lines := bufio.NewReaderSize(r, 1<<16)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return err
		}
		var q Request
		if err := json.Unmarshal(line, &q); err != nil || len(q.Argv) == 0 {
			continue // half a line of somebody who was cut off
		}
		go s.run(q)
	}
}

type server struct {
	mu sync.Mutex
	w  io.Writer
}

func (s *server) reply(r Reply) {
	b, err := json.Marshal(r)
	if err != nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	_, _ = s.w.Write(append(b, '\n'))
}

func (s *server) run(q Request) {
	cmd := exec.Command(q.Argv[0], q.Argv[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	r, w := io.Pipe()
	cmd.Stdout, cmd.Stderr = w, w
	var copied sync.WaitGroup
	copied.Go(func() {
		b := make([]byte, 1<<14)
		for {
			n, err := r.Read(b)
			if n > 0 {
				s.reply(Reply{N: q.N, Out: string(b[:n])})
			}
			if err != nil {
				return
			}
		}
	})
	end := Reply{N: q.N, Ended: true}
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		end.Out, end.Code = err.Error(), -1
	} else {
		end.Code = cmd.ProcessState.ExitCode()
	}
	_ = w.Close()
	copied.Wait()
	s.reply(end)
}
