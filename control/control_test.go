package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fsmigrate/fsmigrate/migrate"
)

// handler is a Handler made of a func.
type handler func(ctx context.Context, do Verb, who string, emit func(any)) (any, error)

func (h handler) Do(ctx context.Context, do Verb, who string, emit func(any)) (any, error) {
	return h(ctx, do, who, emit)
}

type doc struct {
	Phase string `json:"phase"`
}

func serve(t *testing.T, dir string, h handler) *Server {
	t.Helper()
	s, err := Serve(dir, h)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return s
}

func TestAnswers(t *testing.T) {
	dir := t.TempDir()
	serve(t, dir, func(_ context.Context, do Verb, who string, emit func(any)) (any, error) {
		switch do {
		case Status:
			return doc{"hold"}, nil
		case "cutover":
			emit(doc{"cutover"})
			emit(doc{"reverse"})
			return nil, nil
		case "abort":
			return nil, &migrate.Problem{Kind: migrate.IsRefused, What: "abort is not possible", Why: errors.New(who), Hint: "use rollback"}
		}
		return nil, errors.New("odd")
	})
	var d doc
	if err := Do(t.Context(), dir, Status, "test", nil, &d); err != nil || d.Phase != "hold" {
		t.Errorf("status: %v, %v", d, err)
	}
	var events []string
	err := Do(t.Context(), dir, "cutover", "test", func(e json.RawMessage) { events = append(events, string(e)) }, nil)
	if err != nil || strings.Join(events, "") != `{"phase":"cutover"}{"phase":"reverse"}` {
		t.Errorf("cutover: %v, %v", events, err)
	}
	err = Do(t.Context(), dir, "abort", "fsmigrate abort", nil, nil)
	want := fmt.Sprintf("fsmigrate abort (uid %d, pid %d)", os.Getuid(), os.Getpid())
	if migrate.KindOf(err) != migrate.IsRefused || migrate.HintOf(err) != "use rollback" || !strings.Contains(err.Error(), want) {
		t.Errorf("abort: %v", err)
	}
	if err := Do(t.Context(), dir, "pause", "", nil, nil); migrate.KindOf(err) != migrate.Failed || err.Error() != "odd" {
		t.Errorf("pause: %v", err)
	}
}

func TestNobodyThere(t *testing.T) {
	dir := t.TempDir()
	if err := Do(t.Context(), dir, Status, "", nil, nil); !errors.Is(err, ErrNotRunning) {
		t.Errorf("no socket: %v", err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, Socket), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := Do(t.Context(), dir, Status, "", nil, nil); !errors.Is(err, ErrNotRunning) || Alive(dir) {
		t.Errorf("socket of a dead engine: %v", err)
	}
	serve(t, dir, func(context.Context, Verb, string, func(any)) (any, error) { return nil, nil })
	if err := Do(t.Context(), dir, Status, "", nil, nil); err != nil || !Alive(dir) {
		t.Errorf("taken over: %v", err)
	}
}

// A state directory deeper than a socket address.
func TestLongPath(t *testing.T) {
	dir := filepath.Join(t.TempDir(), strings.Repeat("d", 100), strings.Repeat("e", 100))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	serve(t, dir, func(context.Context, Verb, string, func(any)) (any, error) { return doc{"copy"}, nil })
	var d doc
	if err := Do(t.Context(), dir, Status, "", nil, &d); err != nil || d.Phase != "copy" {
		t.Errorf("%v, %v", d, err)
	}
}

func TestSocketModeAndEnd(t *testing.T) {
	dir := t.TempDir()
	s, err := Serve(dir, handler(func(context.Context, Verb, string, func(any)) (any, error) { return nil, nil }))
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(filepath.Join(dir, Socket))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info, err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// The client that leaves ends the handler's context; the server that closes ends
// everybody's, and waits.
func TestBothEndsMayLeave(t *testing.T) {
	dir := t.TempDir()
	began, ended := make(chan struct{}, 2), make(chan struct{}, 2)
	s := serve(t, dir, func(ctx context.Context, _ Verb, _ string, _ func(any)) (any, error) {
		began <- struct{}{}
		<-ctx.Done()
		ended <- struct{}{}
		return nil, context.Cause(ctx)
	})
	ctx, cancel := context.WithCancel(t.Context())
	answer := make(chan error, 1)
	go func() { answer <- Do(ctx, dir, "cutover", "", nil, nil) }()
	<-began
	cancel()
	if err := <-answer; !errors.Is(err, context.Canceled) {
		t.Errorf("client: %v", err)
	}
	<-ended
	go func() { answer <- Do(t.Context(), dir, "cutover", "", nil, nil) }()
	<-began
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	<-ended
	if err := <-answer; err == nil {
		t.Error("a request that nobody finished succeeded")
	}
}

func raw(t *testing.T, dir, line string) string {
	t.Helper()
	c, err := net.Dial("unix", filepath.Join(dir, Socket))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, line); err != nil {
		return err.Error()
	}
	if err := c.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(c)
	if err != nil && !errors.Is(err, unix.ECONNRESET) {
		t.Fatal(err)
	}
	return string(b)
}

func TestNonsenseIsAnsweredOrDropped(t *testing.T) {
	dir := t.TempDir()
	serve(t, dir, func(context.Context, Verb, string, func(any)) (any, error) {
		t.Error("the handler was asked")
		return nil, nil
	})
	for line, want := range map[string]string{
		"{\"v\":1,\"do\":\"finalise\"}\n":              "unknown request",
		"{\"v\":2,\"do\":\"status\"}\n":                "protocol version 2",
		"{\"v\":1,\"do\":\"status\",\"force\":true}\n": "unknown field",
		"{\"v\":1,\"do\":\"status\"} {}\n":             "more than one",
		"\n":                                           "parse request",
		strings.Repeat("x", maxRequest+2000) + "\n":    "",
	} {
		if got := raw(t, dir, line); !strings.Contains(got, want) || want == "" && got != "" {
			t.Errorf("%.40q: got %q, want %q", line, got, want)
		}
	}
}

func TestClientsAreBounded(t *testing.T) {
	dir := t.TempDir()
	began := make(chan struct{}, maxClients)
	serve(t, dir, func(ctx context.Context, _ Verb, _ string, _ func(any)) (any, error) {
		began <- struct{}{}
		<-ctx.Done()
		return nil, nil
	})
	ctx, cancel := context.WithCancel(t.Context())
	answers := make(chan error, maxClients)
	for range maxClients {
		go func() { answers <- Do(ctx, dir, Watch, "", nil, nil) }()
	}
	for range maxClients {
		<-began
	}
	if err := Do(t.Context(), dir, Status, "", nil, nil); err == nil {
		t.Error("one more than allowed was answered")
	}
	cancel()
	for range maxClients {
		<-answers
	}
}

// The heartbeat keeps a client waiting that would call the engine stuck otherwise.
func TestSilentEngineIsNoticed(t *testing.T) {
	dir := t.TempDir()
	l, err := net.Listen("unix", filepath.Join(dir, Socket))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := gone(os.ErrDeadlineExceeded); !errors.Is(err, ErrSilent) {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := Do(ctx, dir, Status, "", nil, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

func FuzzParseRequest(f *testing.F) {
	f.Add([]byte(`{"v":1,"do":"status","who":"x"}`))
	f.Add([]byte(`{"v":1,"do":"cutover"}{}`))
	f.Add([]byte(`{"v":1e0,"DO":"abort"}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		r, err := ParseRequest(line)
		if err != nil {
			return
		}
		if r.Version != Version || !r.Do.known() || len(r.Who) > maxWho {
			t.Errorf("accepted %+v", r)
		}
		again, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ParseRequest(again); err != nil && len(again) <= maxRequest {
			t.Errorf("%s: %v", again, err)
		}
	})
}

// The status socket is for the group, and for nothing that changes anything.
func TestStatusSocket(t *testing.T) {
	root := t.TempDir()
	if err := os.Chmod(root, 0o700); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(root, "data")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	old := statusGroup
	statusGroup = func() (int, bool) { return 12345, true }
	t.Cleanup(func() { statusGroup = old })
	serve(t, dir, func(_ context.Context, do Verb, _ string, _ func(any)) (any, error) {
		if !do.readOnly() {
			t.Errorf("%s came through", do)
		}
		return doc{"hold"}, nil
	})
	var st unix.Stat_t
	path := filepath.Join(root, "data"+StatusSuffix)
	if err := unix.Stat(path, &st); err != nil || st.Mode&0o777 != 0o660 || st.Gid != 12345 {
		t.Errorf("mode %o, group %d, %v", st.Mode, st.Gid, err)
	}
	if err := unix.Stat(root, &st); err != nil || st.Mode&0o777 != 0o750 || st.Gid != 12345 {
		t.Errorf("root: mode %o, group %d, %v", st.Mode, st.Gid, err)
	}
	if err := unix.Stat(dir, &st); err != nil || st.Mode&0o777 != 0o700 {
		t.Errorf("directory: mode %o, %v", st.Mode, err)
	}
	if err := os.Rename(filepath.Join(dir, Socket), filepath.Join(dir, "hidden")); err != nil {
		t.Fatal(err)
	}
	var d doc
	if err := Do(t.Context(), dir, Status, "", nil, &d); err != nil || d.Phase != "hold" {
		t.Errorf("status: %v, %v", d, err)
	}
	if err := os.Rename(path, filepath.Join(dir, Socket)); err != nil {
		t.Fatal(err)
	}
	if err := Do(t.Context(), dir, "abort", "", nil, nil); migrate.KindOf(err) != migrate.IsRefused {
		t.Errorf("abort through the status socket: %v", err)
	}
	if err := os.Rename(filepath.Join(dir, Socket), path); err != nil {
		t.Fatal(err)
	}
}
