package watchdog

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fsmigrate/fsmigrate/migrate"
)

// Client is the engine's end: a migrate.Watchdog that starts a process for each Arm.
type Client struct {
	Dir string // the migration's state directory
	// Command is the watchdog's command line for an attempt. Its standard input is
	// the engine's socket; Run on it.
	Command func(seq int, deadline time.Duration) *exec.Cmd
	// Patience bounds Arm, and Disarm's wait for a watchdog that is settling.
	// 0: 10 s and 5 min.
	ArmWithin, DisarmWithin time.Duration

	mu    sync.Mutex
	armed *armed
}

var _ migrate.Watchdog = (*Client)(nil)

// armed is one watchdog process.
type armed struct {
	conn     *os.File
	ended    chan struct{} // closed when it was reaped
	err      error         // how it ended; after ended
	disarmed chan struct{} // closed when that is as it should be
	told     chan struct{} // closed when nobody will be told any more that it was lost
}

// Arm starts a watchdog and returns when it watches. Lost is migrate.Watchdog's.
func (c *Client) Arm(ctx context.Context, seq int, deadline time.Duration, lost func(error)) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.armed != nil {
		return errors.New("arm watchdog: one is armed already")
	}
	fail := func(err error) error {
		return &migrate.Problem{
			Kind: migrate.Failed, What: "the cutover's watchdog was not armed", Why: err,
			Hint: "nothing was fenced; look at the audit log and try the cutover again",
		}
	}
	ours, theirs, err := pair()
	if err != nil {
		return fail(err)
	}
	cmd := c.Command(seq, deadline)
	cmd.Stdin = theirs
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = cmd.Start()
	_ = theirs.Close()
	if err != nil {
		_ = ours.Close()
		return fail(err)
	}
	a := &armed{conn: ours, ended: make(chan struct{}), disarmed: make(chan struct{}), told: make(chan struct{})}
	go func() {
		a.err = cmd.Wait()
		close(a.ended)
	}()
	if err := c.confirm(ctx, ours); err != nil {
		_ = cmd.Process.Kill() // not armed: it has nothing to settle
		_ = ours.Close()
		<-a.ended
		return fail(err)
	}
	c.armed = a
	go a.attend(lost)
	return nil
}

// confirm waits for the watchdog's word.
func (c *Client) confirm(ctx context.Context, conn *os.File) error {
	within := c.ArmWithin
	if within == 0 {
		within = 10 * time.Second
	}
	if err := conn.SetReadDeadline(time.Now().Add(within)); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Now()) })
	defer stop()
	line, err := bufio.NewReaderSize(io.LimitReader(conn, 4096), 256).ReadString('\n')
	line = strings.TrimSuffix(line, "\n")
	why, failed := strings.CutPrefix(line, sayFailed)
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case failed:
		return errors.New(why)
	case err != nil:
		return fmt.Errorf("it did not say that it is armed: %w", err)
	case line != sayArmed:
		return fmt.Errorf("it said %q", line)
	}
	return conn.SetReadDeadline(time.Time{})
}

// attend tells the engine when its watchdog ends before it was disarmed.
func (a *armed) attend(lost func(error)) {
	defer close(a.told)
	<-a.ended
	select {
	case <-a.disarmed:
		return
	default:
	}
	err := a.err
	if err == nil {
		err = errors.New("it acted: the deadline has passed")
	}
	lost(fmt.Errorf("the watchdog has ended: %w", err))
}

// Disarm ends the watchdog and returns when it has ended, also one that is settling
// and one that an earlier engine armed.
func (c *Client) Disarm() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	within := c.DisarmWithin
	if within == 0 {
		within = 5 * time.Minute
	}
	limit := time.NewTimer(within)
	defer limit.Stop()
	stuck := func() error {
		return &migrate.Problem{
			Kind: migrate.Failed, What: fmt.Sprintf("a watchdog has not ended within %s", within),
			Hint: "it settles a cutover, or is stopped: look for the process `fsmigrate watchdog`, and resume when it is gone",
		}
	}
	if a := c.armed; a != nil {
		close(a.disarmed)
		c.armed = nil
		_, err := io.WriteString(a.conn, sayDisarm+"\n")
		defer a.conn.Close()
		_ = err // it has ended, or is settling: waited for below
		select {
		case <-a.ended:
			<-a.told
		case <-limit.C:
			return stuck()
		}
	}
	// The kernel gives no event for "flock would succeed" with a limit.
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		lock, err := tryLock(c.Dir)
		if err == nil {
			return lock.Close()
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return fmt.Errorf("disarm watchdog: %w", err)
		}
		select {
		case <-tick.C:
		case <-limit.C:
			return stuck()
		}
	}
}

// pair is a socket pair as files that can have deadlines.
func pair() (ours, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("socket pair: %w", err)
	}
	if err := unix.SetNonblock(fds[0], true); err != nil {
		_ = unix.Close(fds[0])
		_ = unix.Close(fds[1])
		return nil, nil, fmt.Errorf("socket pair: %w", err)
	}
	return os.NewFile(uintptr(fds[0]), "watchdog"), os.NewFile(uintptr(fds[1]), "engine"), nil
}
