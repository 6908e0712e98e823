package statedir

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// Who is what the audit log says of whoever acts.
type Who struct {
	UID      int    `json:"uid"`
	SudoUser string `json:"sudo_user,omitempty"`
	PID      int    `json:"pid"`
}

// Me is this process.
func Me() Who {
	return Who{UID: os.Getuid(), SudoUser: os.Getenv("SUDO_USER"), PID: os.Getpid()}
}

// Event is one line of audit.jsonl.
type Event struct {
	At     time.Time      `json:"at"`
	Event  string         `json:"event"`
	Who    Who            `json:"who"`
	Argv   []string       `json:"argv"`
	Plan   string         `json:"plan"` // digest
	Fields map[string]any `json:"fields,omitempty"`
}

// Audit appends one event, durably. A line that a crash tore is ended first, so that
// it damages nothing but itself.
func (d *Dir) Audit(ctx context.Context, event string, fields map[string]any) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	line, err := json.Marshal(Event{At: d.now(), Event: event, Who: d.who, Argv: os.Args, Plan: d.digest, Fields: fields})
	if err != nil {
		return fmt.Errorf("audit %s: %w", event, err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	path := filepath.Join(d.Path(), auditFile)
	var before []byte
	if !d.audited { // this process has not ended a line here yet
		before, err = d.fs.read(path)
	}
	isNew := err != nil
	d.audited = false
	f, err := d.fs.appendTo(path)
	if err != nil {
		return fmt.Errorf("audit %s: %w", event, err)
	}
	if n := len(before); n > 0 && before[n-1] != '\n' {
		line = append([]byte{'\n'}, line...)
	}
	_, err = f.Write(append(line, '\n'))
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil && isNew {
		err = d.fs.syncDir(d.Path())
	}
	if err != nil {
		return fmt.Errorf("audit %s: %w", event, err)
	}
	d.audited = true
	return nil
}

// ReadAudit reads the audit log; torn lines are left out.
func (d *Dir) ReadAudit() ([]Event, error) {
	data, err := d.fs.read(filepath.Join(d.Path(), auditFile))
	if err != nil {
		return nil, fmt.Errorf("read audit log of %s: %w", d.id, err)
	}
	var events []Event
	for line := range bytes.Lines(data) {
		var e Event
		if json.Unmarshal(line, &e) == nil {
			events = append(events, e)
		}
	}
	return events, nil
}
