package e2e

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fsmigrate/fsmigrate/e2e/churn"
	"github.com/fsmigrate/fsmigrate/e2e/vol"
)

// bystander is a shell that sits on the volume and does, on request, what it is told.
type bystander struct {
	t   *testing.T
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Scanner
}

// sit starts one: prepare runs first, in a shell below wrap.
func (r *rig) sit(prepare string, wrap ...string) *bystander {
	r.t.Helper()
	// The lab's name in its environment makes it a process of the lab.
	script := prepare + `
echo ready
while read -r line; do eval "$line" </dev/null >/dev/null 2>&1 && echo done || echo failed; done`
	args := append(wrap, "bash", "-c", script)
	b := &bystander{t: r.t, cmd: exec.Command(args[0], args[1:]...)}
	b.cmd.Env = append(os.Environ(), "LAB="+r.Dir)
	b.cmd.Dir = "/"
	b.cmd.Stderr = os.Stderr
	var err error
	if b.in, err = b.cmd.StdinPipe(); err != nil {
		r.t.Fatal(err)
	}
	out, err := b.cmd.StdoutPipe()
	if err != nil {
		r.t.Fatal(err)
	}
	b.out = bufio.NewScanner(out)
	if err := b.cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(b.leave)
	if !b.out.Scan() || b.out.Text() != "ready" {
		r.t.Fatalf("the bystander is not ready: %q", b.out.Text())
	}
	return b
}

// ask answers whether a command succeeded.
func (b *bystander) ask(command string) bool {
	b.t.Helper()
	if _, err := fmt.Fprintln(b.in, command); err != nil || !b.out.Scan() {
		b.t.Fatalf("the bystander died: %v", err)
	}
	return b.out.Text() == "done"
}

func (b *bystander) leave() {
	_ = b.in.Close()
	_ = b.cmd.Wait()
}

// held starts a migration that reached Hold.
func held(t *testing.T, p pair) *rig {
	t.Helper()
	r := newRig(t, p, 512)
	// The test's own directory, which the application leaves alone.
	if err := errors.Join(os.Mkdir(r.own(), 0o755), os.WriteFile(filepath.Join(r.own(), "kept"), []byte("kept\n"), 0o644)); err != nil {
		t.Fatal(err)
	}
	r.populate(seeded(t).Uint64(), 300, 600)
	r.background(nil, r.runArgs("--pause-budget", "6s", "--deadline", "8s")...)
	r.waitPhase(toHold, "hold")
	return r
}

// own is a directory of the test on the volume.
func (r *rig) own() string { return filepath.Join(r.dir, churn.AppendDir) }

// back ends a migration in reverse and judges the old volume.
func (r *rig) back() {
	r.t.Helper()
	r.must([]string{"rollback", id}, 0, 6)
	r.engine.code(r.t, toEnd)
	r.hook("stop")
	r.judge("rolled back", r.dir, r.pair.back)
}

// A working directory and a reader on the old volume stay through the cutover.
// Neither may write to it afterwards.
func TestStaleDirectoryAndReader(t *testing.T) {
	r := held(t, pairs[0])
	cwd := r.sit("cd " + r.dir)
	reader := r.sit("exec 3<" + filepath.Join(r.own(), "kept"))
	r.must([]string{"cutover", id})
	r.waitPhase(toEnd, "reverse")
	if cwd.ask("touch ./by-a-stale-directory") {
		t.Error("a stale working directory still writes to the old volume")
	}
	if !cwd.ask("ls .") {
		t.Error("a stale working directory cannot be read any more")
	}
	if !reader.ask("cat <&3") {
		t.Error("a reader lost its file")
	}
	if reader.ask("echo x >>/proc/self/fd/3") || reader.ask("chmod 777 /proc/self/fd/3") {
		t.Error("a reader's descriptor was turned into a writer's of the old volume")
	}
	r.moreChurn(100)
	r.quiesced(func() { r.judge("with bystanders", r.dir, 0) })
	cwd.leave()
	reader.leave()
	r.back()
}

// A container started during Hold has the source in a mount namespace of its own:
// either the cutover is refused and names it, or it cannot write afterwards.
func TestPrivateNamespaceDuringHold(t *testing.T) {
	r := held(t, pairs[3])
	box := r.sit("true", "unshare", "--mount", "--propagation", "private")
	code, out := r.cmd("cutover", id)
	if code != 0 {
		if code != 3 || !strings.Contains(out, fmt.Sprint(box.cmd.Process.Pid)) && !strings.Contains(out, "namespace") {
			t.Fatalf("cutover: exit %d, want 0, or 3 and the container named\n%s", code, out)
		}
		if !box.ask("ls " + r.dir) {
			t.Error("the container lost the volume")
		}
		r.moreChurn(50) // refused means: nothing happened to the application
		box.leave()
		r.must([]string{"cutover", id})
		r.waitPhase(toEnd, "reverse")
	} else {
		r.waitPhase(toEnd, "reverse")
		if box.ask("touch " + filepath.Join(r.dir, "by-a-container")) {
			t.Error("a private namespace still writes to the old volume")
		}
		if box.ask("mount -o remount,rw " + r.dir) {
			if box.ask("touch " + filepath.Join(r.dir, "by-a-container-again")) {
				t.Error("after a remount a private namespace writes to the old volume")
			}
		}
	}
	r.moreChurn(100)
	r.quiesced(func() { r.judge("with a container", r.dir, 0) })
	box.leave()
	r.back()
}

// A writer that never closes: postponed, and named; nothing is lost for it.
func TestWriterThatNeverCloses(t *testing.T) {
	r := held(t, pairs[0])
	held := filepath.Join(r.own(), "held")
	writer := r.sit("exec 3>>" + held)
	code, out := r.cmd("cutover", id)
	if code == 0 {
		t.Fatalf("cut over with a writer on the source\n%s", out)
	}
	pid := fmt.Sprint(writer.cmd.Process.Pid)
	s, err := r.status()
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out, pid) && !strings.Contains(fmt.Sprint(s["blockers"]), pid) {
		t.Errorf("the writer (process %s) is named neither by cutover nor by status:\n%s\n%v", pid, out, s["blockers"])
	}
	if !writer.ask("echo still >&3") {
		t.Error("the writer cannot write after a postponed cutover")
	}
	r.moreChurn(100) // the service was started again
	writer.leave()
	if !vol.Eventually(60*time.Second, func() bool { code, out = r.cmd("cutover", id); return code == 0 }) {
		t.Fatalf("cutover after the writer left: exit %d\n%s", code, out)
	}
	r.waitPhase(toEnd, "reverse")
	if b, err := os.ReadFile(held); err != nil || string(b) != "still\n" {
		t.Errorf("the writer's line: %q, %v", b, err)
	}
	r.moreChurn(100)
	r.back()
}

// An application that survives write errors needs no hooks.
func TestAcceptEROFS(t *testing.T) {
	p := pairs[4]
	r := newRig(t, p, 512)
	log := r.Path("acks")
	vol.Run(t, "mkdir", r.own())
	app := exec.Command(programs.churn, "append", "--dir", r.dir, "--log", log, "--rate", "200", "--tolerate-erofs")
	if err := app.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = app.Process.Kill(); _ = app.Wait() })
	args := []string{"run", r.dir, "--to", p.to, "--spare", r.spare, "--id", id, "--yes", "--no-supervisor", "--policy", "asap",
		"--pause-budget", "20s", "--report", r.report, "--accept-erofs", "--cutover", "auto"}
	r.background(nil, args...)
	// It keeps its file open for writing: only when it is gone the fence stands.
	acked := func() uint64 { n, _ := lastAck(log); return n }
	start := acked()
	if !vol.Eventually(30*time.Second, func() bool { return acked() > start+20 }) {
		t.Fatal("the application does not get on")
	}
	r.waitPhase(toHold, "hold", "cutover", "reverse")
	_ = app.Process.Signal(os.Interrupt)
	_ = app.Wait()
	r.waitPhase(toHold, "reverse")
	requireAcks(t, r.dir, log)
	r.must([]string{"rollback", id}, 0, 6)
	r.engine.code(t, toEnd)
	requireAcks(t, r.dir, log)
}
