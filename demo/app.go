package demo

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"
)

// Application is the demo's application, in a process of its own: the writer of the
// database and the churn of files on the volume at data, with their ledgers in
// ledger. It says one line when it works and returns when ctx ends, with everything
// that it began done and acknowledged.
func Application(ctx context.Context, data, ledger string, ready func()) error {
	db, err := openDatabase(ctx, data, ledger)
	if err != nil {
		return err
	}
	files, err := newChurn(data, ledger)
	if err != nil {
		return errors.Join(err, db.db.Close())
	}
	ready()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, 2)
	go func() { ended <- db.run(ctx) }()
	go func() { ended <- files.run(ctx) }()
	first := <-ended
	cancel() // one that failed ends the other
	return errors.Join(first, <-ended)
}

// Hook is what a migration of the demo calls to stop and start the application: it
// asks the demo that listens on socket and waits for its answer.
func Hook(socket, verb string) error {
	c, err := net.DialTimeout("unix", socket, 5*time.Second)
	if err != nil {
		return fmt.Errorf("reach the demo: %w", err)
	}
	defer c.Close()
	if _, err := fmt.Fprintln(c, verb); err != nil {
		return fmt.Errorf("ask the demo to %s: %w", verb, err)
	}
	var answer string
	if _, err := fmt.Fscanln(c, &answer); err != nil {
		return fmt.Errorf("ask the demo to %s: %w", verb, err)
	}
	if answer != "done" {
		return errors.New(answer)
	}
	return nil
}

// populate makes the files that only lie there, of a few KiB each, in directories of
// five hundred.
func populate(ctx context.Context, data string, n int) error {
	buf := make([]byte, 16<<10)
	for i := range n {
		dir := filepath.Join(data, "archive", fmt.Sprintf("%03d", i/500))
		if i%500 == 0 {
			if err := ctx.Err(); err != nil {
				return context.Cause(ctx)
			}
			if err := os.MkdirAll(dir, 0o755); err != nil {
				return err
			}
		}
		c := archived(i)
		c.fill(buf[:c.size])
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%05d", i)), buf[:c.size], 0o640); err != nil {
			return err
		}
	}
	return nil
}

// archived is what file i of the archive holds.
func archived(i int) content { return content{int64(i), -7, 200 + i*7919%(8<<10)} }
