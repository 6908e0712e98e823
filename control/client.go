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
	"time"

	"golang.org/x/sys/unix"
)

// ErrNotRunning says that no engine answers in a state directory.
var ErrNotRunning = errors.New("no engine is running")

// ErrEnded says that the engine ended, killed perhaps, before it answered: what was
// asked for may have happened or not. It is an ErrNotRunning.
var ErrEnded = fmt.Errorf("%w: it ended before it answered", ErrNotRunning)

// ErrSilent says that an engine has its socket but sends nothing.
var ErrSilent = fmt.Errorf("the engine has said nothing for %s: it is stopped or stuck in a system call", silence)

// Alive reports whether an engine listens in dir.
func Alive(dir string) bool {
	c, err := dial(dir, false)
	if err != nil {
		c, err = dial(dir, true)
	}
	if err != nil {
		return false
	}
	_ = c.Close()
	return true
}

// Do asks the engine in dir and waits for its outcome. onEvent, if not nil, gets
// each event. The document of the answer goes into doc, if not nil.
// ErrNotRunning (wrapped) says that there is no engine.
func Do(ctx context.Context, dir string, do Verb, who string, onEvent func(json.RawMessage), doc any) error {
	c, err := dial(dir, false)
	if err != nil && do.readOnly() {
		if other, err2 := dial(dir, true); err2 == nil {
			c, err = other, nil
		}
	}
	if err != nil {
		return err
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Now()) })
	defer stop()
	fail := func(err error) error {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return fmt.Errorf("%s through %s: %w", do, dir, err)
	}
	if len(who) > maxWho {
		who = who[:maxWho]
	}
	req, err := json.Marshal(Request{Version: Version, Do: do, Who: who})
	if err != nil {
		return fail(err)
	}
	if _, err := c.Write(append(req, '\n')); err != nil {
		return fail(gone(err))
	}
	in := bufio.NewReaderSize(c, 64<<10)
	for {
		if ctx.Err() == nil {
			_ = c.SetReadDeadline(time.Now().Add(silence))
		}
		if ctx.Err() != nil { // it may have ended between the two
			_ = c.SetReadDeadline(time.Now())
		}
		r, err := readReply(in)
		switch {
		case err != nil:
			return fail(gone(err))
		case r.Type == event:
			if onEvent != nil {
				onEvent(r.Data)
			}
		case r.Type == done && r.Error != nil:
			return r.Error.Err()
		case r.Type == done:
			if doc == nil || r.Data == nil {
				return nil
			}
			if err := json.Unmarshal(r.Data, doc); err != nil {
				return fail(fmt.Errorf("parse answer: %w", err))
			}
			return nil
		}
	}
}

// gone tells the ends of a conversation apart: silence, and an engine that died or
// closed under us.
func gone(err error) error {
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return ErrSilent
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, unix.ECONNRESET), errors.Is(err, unix.EPIPE):
		return ErrEnded
	}
	return err
}

func readReply(in *bufio.Reader) (Reply, error) {
	var line []byte
	for {
		part, err := in.ReadSlice('\n')
		line = append(line, part...)
		if len(line) > maxReply {
			return Reply{}, fmt.Errorf("reply of more than %d bytes", maxReply)
		}
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		if err != nil {
			return Reply{}, err
		}
		break
	}
	var r Reply
	if err := json.Unmarshal(line, &r); err != nil {
		return Reply{}, fmt.Errorf("parse reply: %w", err)
	}
	if r.Version != Version {
		return Reply{}, fmt.Errorf("the engine speaks protocol version %d, this command %d: use the binary that started it", r.Version, Version)
	}
	return r, nil
}

// dial connects to one of the sockets of the migration in dir.
func dial(dir string, statusOnly bool) (*net.UnixConn, error) {
	in, name := place(dir, statusOnly)
	path, release, err := short(in, name)
	if err != nil {
		return nil, err
	}
	defer release()
	d := net.Dialer{Timeout: patience}
	c, err := d.Dial("unix", path)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ECONNREFUSED) {
		err = ErrNotRunning
	}
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", dir, err)
	}
	return c.(*net.UnixConn), nil
}
