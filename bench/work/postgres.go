package work

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fsmigrate/fsmigrate/bench/oplog"
)

// server is PostgreSQL with its data on the volume.
type server struct {
	data, socket string
	who          *syscall.SysProcAttr // not root: the server refuses to be

	cmd   *exec.Cmd
	ended chan struct{}
	err   error        // after ended
	said  bytes.Buffer // by it, after ended
}

// startLimit bounds how long a server may take to accept connections.
const startLimit = 60 * time.Second

func runPostgres(ctx context.Context, o Options, out *log) (err error) {
	s := &server{data: filepath.Join(o.Dir, "app-postgres"), socket: filepath.Join(o.Scratch, "socket")}
	if s.who, err = unprivileged(); err != nil {
		return err
	}
	fresh, err := s.create(ctx, o.Scratch)
	if err != nil {
		return err
	}
	if err := s.start(ctx); err != nil {
		return err
	}
	defer func() {
		// SIGINT is its fast shutdown: what is open is rolled back, a checkpoint made.
		if stopped := s.stop(syscall.SIGINT); stopped != nil {
			err = errors.Join(err, fmt.Errorf("stop postgres: %w: %s", stopped, tail(s.said.Bytes())))
		}
	}()
	if fresh {
		if err := s.tool(ctx, "pgbench", "-i", "-q", "-s", "3", "-h", s.socket, "postgres"); err != nil {
			return err
		}
	}
	out.ready()
	return s.work(ctx, o, out)
}

// unprivileged is the account that the server runs under. It may pass directories that
// only root may: the lab of a benchmark is nobody else's.
func unprivileged() (*syscall.SysProcAttr, error) {
	u, err := user.Lookup("postgres")
	if err != nil {
		return nil, fmt.Errorf("the account that PostgreSQL runs under: %w", err)
	}
	uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
	gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
	return &syscall.SysProcAttr{
		Credential:  &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)},
		AmbientCaps: []uintptr{unix.CAP_DAC_READ_SEARCH},
	}, errors.Join(err1, err2)
}

// create makes the directories and a cluster, where there is none.
func (s *server) create(ctx context.Context, scratch string) (fresh bool, err error) {
	for _, dir := range []string{s.data, s.socket, filepath.Join(scratch, "pgbench")} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return false, err
		}
		if err := os.Chown(dir, int(s.who.Credential.Uid), int(s.who.Credential.Gid)); err != nil {
			return false, err
		}
	}
	if _, err := os.Stat(filepath.Join(s.data, "PG_VERSION")); err == nil {
		return false, nil
	}
	return true, s.tool(ctx, "initdb", "--no-sync", "--auth=trust", "--no-locale", "--encoding=UTF8", "-D", s.data)
}

func (s *server) command(ctx context.Context, name string, args ...string) (*exec.Cmd, error) {
	path, err := Program(name)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Dir, cmd.SysProcAttr = "/", s.who
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	return cmd, nil
}

func (s *server) tool(ctx context.Context, name string, args ...string) error {
	cmd, err := s.command(ctx, name, args...)
	if err != nil {
		return err
	}
	if said, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, tail(said))
	}
	return nil
}

// start starts the server and returns when it takes connections.
func (s *server) start(ctx context.Context) error {
	cmd, err := s.command(context.WithoutCancel(ctx), "postgres", "-D", s.data, "-k", s.socket, "-c", "listen_addresses=", "-c", "shared_buffers=64MB")
	if err != nil {
		return err
	}
	cmd.Stdout, cmd.Stderr = &s.said, &s.said
	if err := cmd.Start(); err != nil {
		return err
	}
	s.cmd, s.ended = cmd, make(chan struct{})
	go func() {
		s.err = cmd.Wait()
		close(s.ended)
	}()
	limit := time.NewTimer(startLimit)
	defer limit.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if ping, err := s.command(ctx, "pg_isready", "-q", "-h", s.socket); err == nil && ping.Run() == nil {
			return nil
		}
		select {
		case <-tick.C:
			continue
		case <-s.ended:
		case <-ctx.Done():
		case <-limit.C:
		}
		stopped := s.stop(syscall.SIGQUIT)
		return fmt.Errorf("postgres takes no connections: %w: %s", errOr(stopped, "it ended"), tail(s.said.Bytes()))
	}
}

// stop ends the server with one of the signals that it takes for that, or by force.
func (s *server) stop(sig syscall.Signal) error {
	_ = s.cmd.Process.Signal(sig) // it may have ended
	kill := time.AfterFunc(endLimit, func() { _ = s.cmd.Process.Kill() })
	defer kill.Stop()
	<-s.ended
	return s.err
}

// work runs pgbench until ctx ends, and then tells what it did.
func (s *server) work(ctx context.Context, o Options, out *log) error {
	prefix := filepath.Join(o.Scratch, "pgbench", fmt.Sprintf("from-%d", o.From))
	cmd, err := s.command(context.WithoutCancel(ctx), "pgbench", "-n", "-c", "2", "-j", "1", "-T", "86400", "-R", fmt.Sprintf("%g", o.Rate),
		"--log", "--log-prefix", prefix, "-h", s.socket, "postgres")
	if err != nil {
		return err
	}
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case err := <-ended:
		return fmt.Errorf("pgbench ended: %w: %s", errOr(err, "by itself"), tail(said.Bytes()))
	case <-ctx.Done():
	}
	// Its own timer's signal: transactions are finished and the log is complete.
	_ = cmd.Process.Signal(syscall.SIGALRM)
	if err := <-ended; err != nil {
		return fmt.Errorf("pgbench: %w: %s", err, tail(said.Bytes()))
	}
	logs, err := filepath.Glob(prefix + ".*")
	if err != nil || len(logs) == 0 {
		return fmt.Errorf("pgbench left no log: %w", errOr(err, "none there"))
	}
	return told(logs, oplog.PGBench, out)
}

// told writes the operations of another program's logs.
func told(logs []string, read func(string) (oplog.Op, error), out *log) error {
	for _, path := range logs {
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(b)) {
			if strings.TrimSpace(line) == "" {
				continue
			}
			op, err := read(line)
			if err != nil {
				return err
			}
			out.op(op, nil)
		}
	}
	return nil
}

// endLimit bounds how long another program may take to end in order.
const endLimit = 30 * time.Second

func errOr(err error, otherwise string) error {
	if err == nil {
		return errors.New(otherwise)
	}
	return err
}

// tail is the end of what a program said.
func tail(b []byte) string {
	b = bytes.TrimSpace(b)
	if len(b) > 2000 {
		b = append([]byte("… "), b[len(b)-2000:]...)
	}
	return string(b)
}
