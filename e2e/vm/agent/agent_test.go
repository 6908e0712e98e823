package agent_test

import (
	"bufio"
	"encoding/json"
	"io"
	"path/filepath"
	"testing"

	"github.com/fsmigrate/fsmigrate/e2e/vm/agent"
)

// Commands run at the same time; each answer carries its number, its output and its exit
// code, and what is no request is passed over.
func TestServe(t *testing.T) {
	requests, ask := io.Pipe()
	answers, reply := io.Pipe()
	ended := make(chan error, 1)
	second := filepath.Join(t.TempDir(), "second") // the first request waits for it
	go func() { ended <- agent.Serve(requests, reply) }()
	go func() {
		for _, line := range []string{
			`{"n":1,"argv":["sh","-c","until [ -e ` + second + ` ]; do sleep 0.01; done; echo one; exit 3"]}`,
			`half a li`, `{"n":5,"argv":[]}`,
			`{"n":2,"argv":["sh","-c","echo two >&2; touch ` + second + `"]}`,
			`{"n":3,"argv":["/no/such/program"]}`,
			`{"n":4,"argv":["sh","-c","kill -KILL $$"]}`,
		} {
			_, _ = io.WriteString(ask, line+"\n")
		}
	}()
	type end struct {
		out  string
		code int
	}
	got := map[int]*end{}
	r := bufio.NewReader(answers)
	for left := 4; left > 0; {
		line, err := r.ReadBytes('\n')
		if err != nil {
			t.Fatal(err)
		}
		var a agent.Reply
		if err := json.Unmarshal(line, &a); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if got[a.N] == nil {
			got[a.N] = &end{}
		}
		got[a.N].out += a.Out
		if a.Ended {
			got[a.N].code = a.Code
			left--
		}
	}
	for n, want := range map[int]end{1: {"one\n", 3}, 2: {"two\n", 0}, 4: {"", -1}} {
		if *got[n] != want {
			t.Errorf("request %d: %+v, want %+v", n, *got[n], want)
		}
	}
	if got[3].code != -1 || got[3].out == "" {
		t.Errorf("a program that is not there: %+v", *got[3])
	}
	ask.Close()
	if err := <-ended; err != io.EOF {
		t.Errorf("it ended with %v", err)
	}
}
