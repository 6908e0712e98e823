package control

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fsmigrate/fsmigrate/migrate"
)

// Handler is the engine behind a server.
type Handler interface {
	// Do does what was asked and returns when it has an outcome: a document (or nil)
	// or an error, best a *migrate.Problem. emit sends an event to whoever asked; it may
	// be called from one goroutine at a time. ctx ends when the client leaves.
	Do(ctx context.Context, do Verb, who string, emit func(event any)) (any, error)
}

// Server answers on the sockets of one migration.
type Server struct {
	handler Handler
	ctx     context.Context
	cancel  context.CancelFunc
	slots   chan struct{}
	wg      sync.WaitGroup
	sockets []socket
}

type socket struct {
	listener *net.UnixListener
	dir      string
	name     string
}

// Serve listens in dir, the state directory of a migration, until Close. The caller
// holds that directory's lock, so a socket that is there already is a dead engine's.
func Serve(dir string, h Handler) (*Server, error) {
	s := &Server{handler: h, slots: make(chan struct{}, maxClients)}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	err := s.listen(dir, 0o600, -1, false)
	if gid, ok := statusGroup(); ok && err == nil {
		if err = openToGroup(filepath.Dir(dir), gid); err == nil {
			err = s.listen(dir, 0o660, gid, true)
		}
	}
	if err != nil {
		_ = s.Close()
		return nil, err
	}
	return s, nil
}

// listen makes the socket under a name of its own and renames it when its mode and
// owner are right: no instant at which somebody else could connect.
func (s *Server) listen(dir string, mode os.FileMode, gid int, readOnly bool) error {
	dir, name := place(dir, readOnly)
	fail := func(err error) error { return fmt.Errorf("listen on %s/%s: %w", dir, name, err) }
	fresh, release, err := short(dir, fmt.Sprintf(".%s.%d", name, os.Getpid()))
	if err != nil {
		return fail(err)
	}
	defer release()
	final, releaseFinal, err := short(dir, name)
	if err != nil {
		return fail(err)
	}
	defer releaseFinal()
	if err := os.Remove(fresh); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fail(err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: fresh, Net: "unix"})
	if err != nil {
		return fail(err)
	}
	l.SetUnlinkOnClose(false)
	if err = os.Chmod(fresh, mode); err == nil && gid >= 0 {
		err = os.Chown(fresh, -1, gid)
	}
	if err == nil {
		err = os.Rename(fresh, final)
	}
	if err != nil {
		_ = l.Close()
		_ = os.Remove(fresh)
		return fail(err)
	}
	s.sockets = append(s.sockets, socket{l, dir, name})
	s.wg.Add(1)
	go func() {
		defer s.wg.Done()
		s.accept(l, readOnly)
	}()
	return nil
}

// Close stops listening, ends every connection and waits for it. Idempotent.
func (s *Server) Close() error {
	err := s.unlisten()
	s.cancel()
	s.wg.Wait()
	return err
}

// Drain is Close that first lets those who have been served read their answers.
func (s *Server) Drain(within time.Duration) error {
	err := s.unlisten()
	served := make(chan struct{})
	go func() {
		s.wg.Wait()
		close(served)
	}()
	t := time.NewTimer(within)
	defer t.Stop()
	select {
	case <-served:
	case <-t.C:
	}
	s.cancel()
	<-served
	return err
}

func (s *Server) unlisten() error {
	var errs []error
	sockets := s.sockets
	s.sockets = nil
	for _, k := range sockets {
		if path, release, err := short(k.dir, k.name); err == nil {
			if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
				errs = append(errs, err)
			}
			release()
		}
		errs = append(errs, k.listener.Close())
	}
	return errors.Join(errs...)
}

func (s *Server) accept(l *net.UnixListener, readOnly bool) {
	for {
		c, err := l.AcceptUnix()
		if err != nil {
			if s.ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return
			}
			select { // out of descriptors: others will be closed
			case <-s.ctx.Done():
				return
			case <-time.After(100 * time.Millisecond):
			}
			continue
		}
		select {
		case s.slots <- struct{}{}:
		default:
			_ = c.Close() // the client reads the end of a line that never came: "busy"
			continue
		}
		s.wg.Add(1)
		go func() {
			defer s.wg.Done()
			defer func() { <-s.slots }()
			s.serve(c, readOnly)
		}()
	}
}

// serve answers one connection.
func (s *Server) serve(c *net.UnixConn, readOnly bool) {
	out := &writer{conn: c}
	defer c.Close()
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	stop := context.AfterFunc(s.ctx, func() { _ = c.SetReadDeadline(time.Now()) })
	defer stop()

	peer, err := peerOf(c)
	if err == nil && !readOnly && peer.Uid != 0 && int(peer.Uid) != os.Geteuid() {
		err = &migrate.Problem{Kind: migrate.IsRefused, What: fmt.Sprintf("user %d may not control migrations", peer.Uid), Hint: "run it as root"}
	}
	if err != nil {
		out.done(nil, err)
		return
	}
	_ = c.SetReadDeadline(time.Now().Add(patience))
	in := bufio.NewReaderSize(io.LimitReader(c, maxRequest+1), 1024)
	line, err := in.ReadBytes('\n')
	if err != nil {
		return // nothing understandable was asked, nobody to answer
	}
	r, err := ParseRequest(line)
	if err != nil {
		out.done(nil, &migrate.Problem{Kind: migrate.Usage, What: "control socket", Why: err})
		return
	}
	if readOnly && !r.Do.readOnly() {
		out.done(nil, &migrate.Problem{Kind: migrate.IsRefused, What: fmt.Sprintf("%s is not for the status socket", r.Do), Hint: "run it as root"})
		return
	}
	_ = c.SetReadDeadline(time.Time{})
	s.work(ctx, cancel, c, out, r, fmt.Sprintf("%s (uid %d, pid %d)", r.Who, peer.Uid, peer.Pid))
}

// work runs the handler, with a heartbeat, until it answers or the client leaves.
func (s *Server) work(ctx context.Context, cancel context.CancelFunc, c *net.UnixConn, out *writer, r Request, who string) {
	var wg sync.WaitGroup
	wg.Add(2)
	go func() { // a client says nothing more: a read ends when it leaves, or when we close
		defer wg.Done()
		defer cancel()
		var b [1]byte
		_, _ = c.Read(b[:])
	}()
	go func() {
		defer wg.Done()
		t := time.NewTicker(heartbeat)
		defer t.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-t.C:
				if out.line(Reply{Type: alive}) != nil {
					cancel()
				}
			}
		}
	}()
	doc, err := s.handler.Do(ctx, r.Do, who, func(e any) {
		if out.send(event, e) != nil {
			cancel()
		}
	})
	out.done(doc, err)
	cancel()
	_ = c.Close()
	wg.Wait()
}

// writer sends lines, one at a time.
type writer struct {
	mu   sync.Mutex
	conn net.Conn
	err  error
}

func (w *writer) send(kind string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode %s: %w", kind, err)
	}
	return w.line(Reply{Type: kind, Data: data})
}

func (w *writer) done(v any, err error) {
	if err == nil && v != nil {
		_ = w.send(done, v) // whom could one tell?
		return
	}
	_ = w.line(Reply{Type: done, Error: FailureOf(err)})
}

func (w *writer) line(r Reply) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return w.err
	}
	r.Version = Version
	data, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("encode reply: %w", err)
	}
	_ = w.conn.SetWriteDeadline(time.Now().Add(patience))
	_, w.err = w.conn.Write(append(data, '\n'))
	return w.err
}

// peerOf asks the kernel who connected.
func peerOf(c *net.UnixConn) (*unix.Ucred, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("peer of the control socket: %w", err)
	}
	var cred *unix.Ucred
	var inner error
	err = raw.Control(func(fd uintptr) {
		cred, inner = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err = errors.Join(err, inner); err != nil {
		return nil, fmt.Errorf("peer of the control socket: %w", err)
	}
	return cred, nil
}
