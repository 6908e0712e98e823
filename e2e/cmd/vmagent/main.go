// Command vmagent runs inside the virtual machines of the tests (e2e/vm).
//
//	vmagent                 answer the requests that come over the virtio port "agent"
//	vmagent exclusive DEV   fail unless nobody uses the block device
package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/fsmigrate/fsmigrate/e2e/vm/agent"
	"golang.org/x/sys/unix"
)

func main() {
	var err error
	switch {
	case len(os.Args) == 1:
		err = serve()
	case len(os.Args) == 3 && os.Args[1] == "exclusive":
		err = exclusive(os.Args[2])
	default:
		err = errors.New("usage: vmagent [exclusive DEV]")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "vmagent:", err)
		os.Exit(1)
	}
}

// serve waits for the port, and answers for as long as the machine runs: while nobody
// listens outside, a read ends at once.
func serve() error {
	var port *os.File
	for port == nil {
		path, err := find("agent")
		if err == nil {
			port, err = os.OpenFile(path, os.O_RDWR, 0)
		}
		if err != nil {
			time.Sleep(50 * time.Millisecond) // until the driver has found its device
		}
	}
	for {
		_ = agent.Serve(port, port)
		time.Sleep(20 * time.Millisecond)
	}
}

func find(name string) (string, error) {
	ports, err := filepath.Glob("/sys/class/virtio-ports/*/name")
	if err != nil {
		return "", err
	}
	for _, p := range ports {
		if b, err := os.ReadFile(p); err == nil && strings.TrimSpace(string(b)) == name {
			return "/dev/" + filepath.Base(filepath.Dir(p)), nil
		}
	}
	return "", fmt.Errorf("no virtio port %q", name)
}

func exclusive(device string) error {
	fd, err := unix.Open(device, unix.O_RDONLY|unix.O_EXCL|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open exclusively", Path: device, Err: err}
	}
	return unix.Close(fd)
}
