package disrupt

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// Hook is what a migration calls to stop and start the application: it asks the benchmark
// that listens on socket, and waits for its answer.
func Hook(socket, verb string) error {
	path, dir, err := near(socket)
	if err != nil {
		return fmt.Errorf("reach the benchmark: %w", err)
	}
	defer dir.Close()
	c, err := net.DialTimeout("unix", path, 5*time.Second)
	if err != nil {
		return fmt.Errorf("reach the benchmark: %w", err)
	}
	defer c.Close()
	if _, err := fmt.Fprintln(c, verb); err != nil {
		return fmt.Errorf("ask the benchmark to %s: %w", verb, err)
	}
	answer, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		return fmt.Errorf("ask the benchmark to %s: %w", verb, err)
	}
	if answer = strings.TrimSpace(answer); answer != "done" {
		return errors.New(answer)
	}
	return nil
}

// near is a name of a socket that fits into an address (unix(7): 108 bytes), however deep
// the directory is that it lies in. It holds while the directory is open.
func near(socket string) (string, *os.File, error) {
	dir, err := os.Open(filepath.Dir(socket))
	if err != nil {
		return "", nil, err
	}
	return fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(socket)), dir, nil
}

// hooks answers them for an application.
type hooks struct {
	listen net.Listener
	dir    *os.File
	served sync.WaitGroup
}

func listenHooks(ctx context.Context, socket string, a *app) (*hooks, error) {
	path, dir, err := near(socket)
	if err != nil {
		return nil, fmt.Errorf("listen for hooks: %w", err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("listen for hooks: %w", err), dir.Close())
	}
	h := &hooks{listen: l, dir: dir}
	h.served.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return // closed
			}
			answer(ctx, c, a)
		}
	})
	return h, nil
}

func answer(ctx context.Context, c net.Conn, a *app) {
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(startLimit + stopLimit))
	verb, err := bufio.NewReader(c).ReadString('\n')
	if err == nil {
		switch strings.TrimSpace(verb) {
		case "stop":
			err = a.stop()
		case "start":
			err = a.start(ctx)
		default:
			err = fmt.Errorf("unknown verb %q", verb)
		}
	}
	said := "done"
	if err != nil {
		a.fail(err)
		said = strings.Join(strings.Fields(err.Error()), " ")
	}
	fmt.Fprintln(c, said) // who asked may be gone
}

// close also removes the socket.
func (h *hooks) close() error {
	err := h.listen.Close()
	h.served.Wait()
	return errors.Join(err, h.dir.Close())
}
