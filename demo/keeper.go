package demo

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

// keeper runs the application as an init system would: it starts and stops it when
// the hooks of the migration ask for it on a socket.
type keeper struct {
	paths
	self   string
	listen net.Listener
	served sync.WaitGroup
	failed chan error // the application ended by itself

	mu  sync.Mutex
	app *child
}

// child is the application's process.
type child struct {
	cmd     *exec.Cmd
	stderr  bytes.Buffer
	ended   chan struct{}
	err     error // after ended
	stopped bool  // we asked it to
}

// appLimit bounds how long the application may take to start or to stop.
const appLimit = 15 * time.Second

func newKeeper(p paths, self string) (*keeper, error) {
	l, err := net.Listen("unix", p.socket())
	if err != nil {
		return nil, fmt.Errorf("listen for hooks: %w", err)
	}
	k := &keeper{paths: p, self: self, listen: l, failed: make(chan error, 1)}
	k.served.Add(1)
	go k.serve()
	return k, nil
}

func (k *keeper) serve() {
	defer k.served.Done()
	for {
		c, err := k.listen.Accept()
		if err != nil {
			return // closed
		}
		k.answer(c)
	}
}

func (k *keeper) answer(c net.Conn) {
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(2 * appLimit))
	verb, err := bufio.NewReader(c).ReadString('\n')
	if err == nil {
		switch strings.TrimSpace(verb) {
		case "stop":
			err = k.stop()
		case "start":
			err = k.start()
		default:
			err = fmt.Errorf("unknown verb %q", verb)
		}
	}
	if err != nil {
		fmt.Fprintln(c, strings.Join(strings.Fields(err.Error()), "_"))
		return
	}
	fmt.Fprintln(c, "done")
}

// start starts the application and returns when it works. One that runs is left alone.
func (k *keeper) start() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.app != nil {
		return nil
	}
	a := &child{cmd: exec.Command(k.self, "demo-app", "run", k.data(), k.ledger()), ended: make(chan struct{})}
	a.cmd.Stderr = &a.stderr
	a.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is for us, we stop it in order
	out, err := a.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := a.cmd.Start(); err != nil {
		return fmt.Errorf("start the application: %w", err)
	}
	works := make(chan bool, 1)
	go func() {
		_, err := bufio.NewReader(out).ReadString('\n')
		works <- err == nil
		a.err = a.cmd.Wait()
		close(a.ended)
		k.gone(a)
	}()
	timer := time.NewTimer(appLimit)
	defer timer.Stop()
	select {
	case ok := <-works:
		if !ok {
			<-a.ended
			return fmt.Errorf("the application did not start: %w: %s", a.err, strings.TrimSpace(a.stderr.String()))
		}
	case <-timer.C:
		_ = a.cmd.Process.Kill()
		<-a.ended
		return fmt.Errorf("the application did not start within %s", appLimit)
	}
	k.app = a
	return nil
}

// gone tells the demo of an application that ended without having been told to.
func (k *keeper) gone(a *child) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if a.stopped || k.app != a {
		return
	}
	k.app = nil
	select {
	case k.failed <- fmt.Errorf("the application ended: %w: %s", errOr(a.err), strings.TrimSpace(a.stderr.String())):
	default:
	}
}

func errOr(err error) error {
	if err == nil {
		return errors.New("by itself")
	}
	return err
}

// stop ends the application and returns when it has ended; it finishes what it is at.
func (k *keeper) stop() error {
	k.mu.Lock()
	a := k.app
	k.app = nil
	if a != nil {
		a.stopped = true
	}
	k.mu.Unlock()
	if a == nil {
		return nil
	}
	_ = a.cmd.Process.Signal(syscall.SIGTERM)
	timer := time.NewTimer(appLimit)
	defer timer.Stop()
	select {
	case <-a.ended:
	case <-timer.C:
		_ = a.cmd.Process.Kill()
		<-a.ended
		return fmt.Errorf("the application did not stop within %s", appLimit)
	}
	if a.err != nil {
		return fmt.Errorf("the application failed: %w: %s", a.err, strings.TrimSpace(a.stderr.String()))
	}
	return nil
}

func (k *keeper) close() error {
	err := k.listen.Close()
	k.served.Wait()
	err = errors.Join(err, k.stop())
	if rm := os.Remove(k.socket()); rm != nil && !errors.Is(rm, os.ErrNotExist) {
		err = errors.Join(err, rm)
	}
	return err
}

// wait returns after d, or earlier with what ended the demo.
func (k *keeper) wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case err := <-k.failed:
		return err
	case <-timer.C:
		return nil
	}
}
