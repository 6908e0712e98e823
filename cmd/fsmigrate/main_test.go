package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"

	"github.com/fsmigrate/fsmigrate/statedir"
)

var update = flag.Bool("update", false, "rewrite documents and goldens that are generated")

func TestMain(m *testing.M) {
	run := func() {
		w := fakeWiring()
		if os.Getenv("FAKE") == "" {
			w = realWiring()
		}
		os.Exit(execute(os.Args, os.Stdin, os.Stdout, os.Stderr, w))
	}
	testscript.Main(m, map[string]func(){"fsmigrate": run, "mount.fsmigrate": run})
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:           "testdata",
		UpdateScripts: *update,
		Setup: func(e *testscript.Env) error {
			fakes := filepath.Join(e.WorkDir, "fake")
			state := filepath.Join(e.WorkDir, "state")
			e.Setenv("FAKE", fakes)
			for _, name := range []string{"FSMIGRATE_MUTANT", "FSMIGRATE_MUTANT_CAME"} { // scripts/mutants asks through them
				e.Setenv(name, os.Getenv(name))
			}
			e.Setenv("FSMIGRATE_STATE", state)
			e.Setenv("FSMIGRATE_FSTAB", filepath.Join(e.WorkDir, "fstab"))
			e.Defer(func() { endEngines(t, state) })
			return os.MkdirAll(fakes, 0o700)
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"exits":    exitsCmd,
			"killed":   killedCmd,
			"eventual": eventualCmd,
			"user":     userCmd,
		},
	})
}

// endEngines kills what a script detached and did not end.
func endEngines(t *testing.T, state string) {
	ids, err := statedir.List(state)
	if err != nil {
		t.Error(err)
	}
	for _, id := range ids {
		d, err := statedir.Open(state, id)
		if err != nil {
			continue // made unreadable by the script
		}
		if pid := d.LockedBy(); pid > 1 {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
	}
}

// exitsCmd runs a program that must exit with a code: "exits 3 fsmigrate …".
func exitsCmd(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	var exit *exec.ExitError
	got := 0
	if errors.As(err, &exit) {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

// killedCmd sends SIGKILL to the engine of a migration: "killed data".
func killedCmd(ts *testscript.TestScript, _ bool, args []string) {
	d, err := statedir.Open(ts.Getenv("FSMIGRATE_STATE"), args[0])
	ts.Check(err)
	pid := d.LockedBy()
	if pid <= 1 {
		ts.Fatalf("no engine of %s", args[0])
	}
	ts.Check(unix.Kill(pid, unix.SIGKILL))
}

// eventualCmd waits until a file contains a text: "eventual FILE TEXT".
func eventualCmd(ts *testscript.TestScript, _ bool, args []string) {
	end := time.Now().Add(20 * time.Second)
	for tick := time.NewTicker(10 * time.Millisecond); ; <-tick.C {
		b, err := os.ReadFile(ts.MkAbs(args[0]))
		if err == nil && strings.Contains(string(b), args[1]) {
			tick.Stop()
			return
		}
		if time.Now().After(end) {
			ts.Fatalf("%s does not contain %q: %q, %v", args[0], args[1], b, err)
		}
	}
}

// userCmd gives a file to another user: "user 65534 FILE".
func userCmd(ts *testscript.TestScript, _ bool, args []string) {
	uid, err := strconv.Atoi(args[0])
	ts.Check(err)
	ts.Check(os.Chown(ts.MkAbs(args[1]), uid, uid))
}

// Every help has a usage line, an example and its exit codes, and names no code that
// is not in the table.
func TestHelp(t *testing.T) {
	root := newRoot(&app{})
	for _, c := range root.Commands() {
		if c.Name() == "help" {
			continue
		}
		help := c.Annotations["exit"]
		if !strings.Contains(help, "EXIT STATUS\n  0  ") || c.Example == "" || c.Short == "" {
			t.Errorf("%s: help lacks its exit status, an example or a line", c.Name())
		}
		if !c.Hidden && !strings.Contains(c.Example, "fsmigrate "+c.Name()) {
			t.Errorf("%s: example %q does not show it", c.Name(), c.Example)
		}
	}
}

func TestSizes(t *testing.T) {
	for in, want := range map[string]Size{"0": 0, "512": 512, "4K": 4096, "1.5G": 3 << 29, "20GiB": 20 << 30, "2t": 2 << 40, "5MB": 5 << 20} {
		got, err := ParseSize(in)
		if err != nil || got != want {
			t.Errorf("%s: %d, %v", in, got, err)
		}
		again, err := ParseSize(got.String())
		if err != nil || again != got {
			t.Errorf("%s: prints as %s, which is %d", in, got, again)
		}
	}
	for _, in := range []string{"", "G", "-1", "1KK", "K1", "1e3", "9999999P", "1.2.3", "0x10", "Inf"} {
		if got, err := ParseSize(in); err == nil {
			t.Errorf("%q is %d", in, got)
		}
	}
}

func TestParseMount(t *testing.T) {
	for line, want := range map[string]string{
		"data /data -o rw,noatime":                         "{/s data /data [rw noatime] false false false}",
		"-sfnv data /data":                                 "{/s data /data [] true true true}",
		"data /data -t fsmigrate -vo ro,x-systemd.a=1,":    "{/s data /data [ro] false false true}",
		"fsmigrate:data /data -o state=/x,nofail,defaults": "{/x data /data [] false false false}",
		"data /data -o x-fsmigrate.state=/y -o nosuid":     "{/y data /data [nosuid] false false false}",
	} {
		got, err := parseMount(strings.Fields(line), "/s")
		if s := fmt.Sprintf("{%s %s %s %v %v %v %v}", got.State, got.ID, got.Dir, got.Options, got.Fake, got.Sloppy, got.Verbose); err != nil || s != want {
			t.Errorf("%s: %s, %v", line, s, err)
		}
	}
	if got, err := parseMount([]string{"data", "/data"}, "/s"); err != nil || got.Wait != deviceWait {
		t.Errorf("without being told it waits %v, %v", got.Wait, err)
	}
	if got, err := parseMount([]string{"data", "/data", "-o", "wait=0s,noatime"}, "/s"); err != nil || got.Wait != 0 || len(got.Options) != 1 {
		t.Errorf("told not to wait: %+v, %v", got, err)
	}
	for _, line := range []string{"", "data", "data /a /b", "data /data -o wait=-1s", "data /data -o wait=5", "-x data /data", "data /data -o", "-N 1 data /data", "../x /data"} {
		if got, err := parseMount(strings.Fields(line), "/s"); err == nil {
			t.Errorf("%q: %+v", line, got)
		}
	}
}
