package vm

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/fsmigrate/fsmigrate/e2e/vm/agent"
)

// Disk is a raw image that a machine has as a virtio disk: the first is /dev/vda.
type Disk struct {
	File   string
	Serial string // what the guest reads of it, at most 20 characters
	// Cached: what is written is in the host's memory when the guest is told, and outlives
	// the machine. Otherwise the file is used without a cache, and flushed when the guest flushes.
	Cached bool
}

// Config says what a machine is made of.
type Config struct {
	Kernel, Initrd, Append string
	Disks                  []Disk
	MemoryMiB              int
	Console                string // a file that the console is appended to
}

// Machine is a running qemu.
type Machine struct {
	t     testing.TB
	cmd   *exec.Cmd
	dir   string // of its sockets
	ended chan struct{}
	conn  net.Conn

	mu   sync.Mutex
	n    int
	jobs map[int]*Job
}

// Accel is how the processor is emulated: tcg works everywhere.
func Accel() string {
	if a := os.Getenv("FSMIGRATE_VM_ACCEL"); a != "" {
		return a
	}
	return "tcg"
}

// Start turns a machine on. It is off when the test ends.
func Start(t testing.TB, c Config) *Machine {
	t.Helper()
	dir, err := os.MkdirTemp("", "vm") // short: a socket's path has 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	m := &Machine{t: t, dir: dir, ended: make(chan struct{}), jobs: map[int]*Job{}}
	socket := filepath.Join(dir, "agent")
	args := []string{
		"-accel", Accel(), "-cpu", "max", "-smp", "2", "-m", fmt.Sprint(c.MemoryMiB), "-M", "q35", "-nodefaults", "-no-user-config",
		"-display", "none", "-no-reboot", "-kernel", c.Kernel, "-initrd", c.Initrd, "-append", c.Append,
		"-chardev", "file,id=console,append=on,path=" + c.Console, "-serial", "chardev:console",
		"-device", "virtio-serial-pci",
		"-chardev", "socket,id=agent,server=on,wait=off,path=" + socket, "-device", "virtserialport,chardev=agent,name=agent",
	}
	for i, d := range c.Disks {
		cache := "none"
		if d.Cached {
			cache = "unsafe"
		}
		args = append(args,
			"-drive", fmt.Sprintf("if=none,id=d%d,format=raw,aio=threads,discard=unmap,cache=%s,file=%s", i, cache, d.File),
			"-device", fmt.Sprintf("virtio-blk-pci,drive=d%d,serial=%s", i, d.Serial))
	}
	m.cmd = exec.Command("qemu-system-x86_64", args...)
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	messages, err := os.OpenFile(c.Console, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer messages.Close()
	m.cmd.Stdout, m.cmd.Stderr = messages, messages
	if err := m.cmd.Start(); err != nil {
		t.Fatalf("start qemu: %v (scripts/deps-vm.sh installs it)", err)
	}
	go func() { _ = m.cmd.Wait(); close(m.ended) }()
	t.Cleanup(func() { m.Kill(); _ = os.RemoveAll(dir) })
	m.connect(socket)
	return m
}

// connect waits for qemu's socket, which appears without an event.
func (m *Machine) connect(socket string) {
	m.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; {
		conn, err := net.Dial("unix", socket)
		if err == nil {
			m.conn = conn
			go m.read()
			return
		}
		if m.Ended() || time.Now().After(deadline) {
			m.t.Fatalf("qemu's socket: %v (ended: %t)", err, m.Ended())
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// Kill takes the power away: what the guest's disks had not been told yet is lost with it.
func (m *Machine) Kill() {
	_ = m.cmd.Process.Kill()
	<-m.ended
	if m.conn != nil {
		_ = m.conn.Close()
	}
}

// Ended says whether the machine is off.
func (m *Machine) Ended() bool {
	select {
	case <-m.ended:
		return true
	default:
		return false
	}
}

// Off waits until the guest has turned itself off.
func (m *Machine) Off(limit time.Duration) error {
	select {
	case <-m.ended:
		return nil
	case <-time.After(limit):
		return fmt.Errorf("still on after %v", limit)
	}
}

// Job is a command that runs inside.
type Job struct {
	m     *Machine
	Argv  []string
	Lines chan string   // of its output; who wants them reads them all
	Done  chan struct{} // closed when it ended, or the machine did
	Code  int           // valid then; -1 for a signal, or a machine that is off

	mu   sync.Mutex
	out  strings.Builder
	line string
}

// maxLines is how many lines of output wait for a reader; more are only in Out.
const maxLines = 4096

// Go starts a command inside.
func (m *Machine) Go(argv ...string) *Job {
	m.mu.Lock()
	m.n++
	j := &Job{m: m, Argv: argv, Lines: make(chan string, maxLines), Done: make(chan struct{}), Code: -1}
	m.jobs[m.n] = j
	b, err := json.Marshal(agent.Request{N: m.n, Argv: argv})
	m.mu.Unlock()
	if err == nil {
		_, err = m.conn.Write(append(b, '\n'))
	}
	if err != nil && !m.Ended() {
		m.t.Errorf("ask for %v: %v", argv, err)
	}
	return j
}

// Out is what it has written so far.
func (j *Job) Out() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.out.String()
}

// Wait waits for the end of the command and answers its exit code.
func (j *Job) Wait(limit time.Duration) (int, error) {
	select {
	case <-j.Done:
		return j.Code, nil
	case <-j.m.ended:
		return -1, fmt.Errorf("%v: the machine went off", j.Argv)
	case <-time.After(limit):
		return -1, fmt.Errorf("%v: still runs after %v: %s", j.Argv, limit, j.Out())
	}
}

// Run runs a command inside to its end.
func (m *Machine) Run(limit time.Duration, argv ...string) (int, string, error) {
	j := m.Go(argv...)
	code, err := j.Wait(limit)
	return code, j.Out(), err
}

// Must runs a command that has to succeed, and answers its output.
func (m *Machine) Must(limit time.Duration, argv ...string) string {
	m.t.Helper()
	code, out, err := m.Run(limit, argv...)
	if err != nil || code != 0 {
		m.t.Fatalf("%v: exit %d, %v\n%s", argv, code, err, out)
	}
	return out
}

// Sh is Must of a shell command.
func (m *Machine) Sh(limit time.Duration, command string) string {
	m.t.Helper()
	return m.Must(limit, "sh", "-c", command)
}

// read gives what comes to the jobs, until the machine is off.
func (m *Machine) read() {
	r := bufio.NewReader(m.conn)
	for {
		line, err := r.ReadBytes('\n')
		if err != nil {
			return
		}
		var a agent.Reply
		if json.Unmarshal(line, &a) != nil {
			continue
		}
		m.mu.Lock()
		j := m.jobs[a.N]
		m.mu.Unlock()
		if j != nil {
			j.take(a)
		}
	}
}

func (j *Job) take(a agent.Reply) {
	j.mu.Lock()
	j.out.WriteString(a.Out)
	parts := strings.Split(j.line+a.Out, "\n")
	j.line = parts[len(parts)-1]
	j.mu.Unlock()
	for _, l := range parts[:len(parts)-1] {
		select {
		case j.Lines <- l:
		default:
		}
	}
	if a.Ended {
		j.Code = a.Code
		close(j.Done)
	}
}
