package control

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/fsmigrate/fsmigrate/migrate"
)

// Version is the version of the protocol. A server answers only requests of its own.
const Version = 1

// Bounds of what the other side may send.
const (
	maxRequest = 4 << 10
	maxReply   = 4 << 20
	maxWho     = 256
	maxClients = 32

	patience  = 10 * time.Second // for a request line to arrive, for a reply line to be taken
	heartbeat = 2 * time.Second
	// silence is after how long without a line the client calls the engine stuck: an
	// engine process that is stopped, or in an uninterruptible system call with its
	// whole runtime, sends no heartbeat.
	silence = 20 * time.Second
)

// The names of the sockets: one in the migration's directory, one beside it that is
// named after it.
const (
	Socket       = "control.sock"
	StatusSuffix = ".status.sock"
)

// Verb is what is asked for.
type Verb string

// The verbs. Status answers with one document, Watch sends documents and events
// until the client leaves or the migration ends; the others are requests to the engine.
const (
	Status Verb = "status"
	Watch  Verb = "watch"
)

// readOnly reports whether v changes nothing, so that the status socket takes it.
func (v Verb) readOnly() bool { return v == Status || v == Watch }

func (v Verb) known() bool {
	switch migrate.RequestKind(v) {
	case migrate.AskPause, migrate.AskResume, migrate.AskCutover,
		migrate.AskAbort, migrate.AskRollback, migrate.AskFinalize:
		return true
	}
	return v.readOnly()
}

// Request is the one line that a client sends.
type Request struct {
	Version int    `json:"v"`
	Do      Verb   `json:"do"`
	Who     string `json:"who,omitempty"` // what the client calls itself; its uid and pid come from the kernel
}

// Reply is a line that the server sends.
type Reply struct {
	Version int             `json:"v"`
	Type    string          `json:"type"` // alive, event, done
	Data    json.RawMessage `json:"data,omitempty"`
	Error   *Failure        `json:"error,omitempty"` // done only
}

// The types of a reply.
const (
	alive = "alive"
	event = "event"
	done  = "done"
)

// Failure is an error on its way between two processes.
type Failure struct {
	Kind migrate.Kind `json:"kind"`
	What string       `json:"what"`
	Why  string       `json:"why,omitempty"`
	Hint string       `json:"hint,omitempty"`
}

// FailureOf keeps of err what a Problem holds.
func FailureOf(err error) *Failure {
	if err == nil {
		return nil
	}
	f := &Failure{Kind: migrate.KindOf(err), What: err.Error(), Hint: migrate.HintOf(err)}
	var p *migrate.Problem
	if errors.As(err, &p) {
		f.What = p.What
		if p.Why != nil {
			f.Why = p.Why.Error()
		}
	}
	return f
}

// Err is the Problem that f came from.
func (f *Failure) Err() error {
	if f == nil {
		return nil
	}
	p := &migrate.Problem{Kind: f.Kind, What: f.What, Hint: f.Hint}
	if f.Why != "" {
		p.Why = errors.New(f.Why)
	}
	return p
}

// ParseRequest reads a request line. What it does not know, it refuses.
func ParseRequest(line []byte) (Request, error) {
	if len(line) > maxRequest {
		return Request{}, fmt.Errorf("request of more than %d bytes", maxRequest)
	}
	d := json.NewDecoder(bytes.NewReader(line))
	d.DisallowUnknownFields()
	var r Request
	if err := d.Decode(&r); err != nil {
		return Request{}, fmt.Errorf("parse request: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return Request{}, errors.New("parse request: more than one value in a line")
	}
	if r.Version != Version {
		return Request{}, fmt.Errorf("request of protocol version %d, this engine speaks %d", r.Version, Version)
	}
	if !r.Do.known() {
		return Request{}, fmt.Errorf("unknown request %q", r.Do)
	}
	if len(r.Who) > maxWho {
		r.Who = r.Who[:maxWho]
	}
	return r, nil
}
