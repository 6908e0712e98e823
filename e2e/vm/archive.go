package vm

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
)

// Archive is an initramfs in the making: a cpio archive of the "newc" kind
// (Documentation/driver-api/early-userspace/buffer-format.rst of Linux).
type Archive struct {
	b     bytes.Buffer
	seen  map[string]bool
	inode int
}

const (
	typeDir  = 0o040000
	typeFile = 0o100000
	typeLink = 0o120000
)

// add appends one entry and, before it, the directories above it. What is there
// already stays.
func (a *Archive) add(name string, mode int, data []byte) {
	name = strings.Trim(path.Clean("/"+name), "/")
	if a.seen == nil {
		a.seen = map[string]bool{"": true}
	}
	if a.seen[name] {
		return
	}
	if dir := path.Dir(name); dir != "." {
		a.add(dir, typeDir|0o755, nil)
	}
	a.seen[name] = true
	a.entry(name, mode, data)
}

func (a *Archive) entry(name string, mode int, data []byte) {
	a.inode++
	links, size, owner, device := 1, len(data), 0, 0
	fmt.Fprintf(&a.b, "070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X",
		a.inode, mode, owner, owner, links, 0, size, device, device, device, device, len(name)+1, 0)
	a.b.WriteString(name + "\x00")
	a.pad()
	a.b.Write(data)
	a.pad()
}

func (a *Archive) pad() {
	for a.b.Len()%4 != 0 {
		a.b.WriteByte(0)
	}
}

// Dir, File and Link add what they are called.
func (a *Archive) Dir(name string)                         { a.add(name, typeDir|0o755, nil) }
func (a *Archive) File(name string, perm int, data []byte) { a.add(name, typeFile|perm, data) }
func (a *Archive) Link(name, to string)                    { a.add(name, typeLink|0o777, []byte(to)) }

// Program adds a program of this machine at its own path, or at another one, and the
// shared libraries that it needs.
func (a *Archive) Program(from, to string) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	a.File(to, 0o755, b)
	out, err := exec.Command("ldd", from).CombinedOutput()
	if err != nil {
		if bytes.Contains(out, []byte("not a dynamic executable")) {
			return nil
		}
		return fmt.Errorf("ldd %s: %w: %s", from, err, out)
	}
	for _, line := range strings.Split(string(out), "\n") {
		for _, f := range strings.Fields(line) {
			if !filepath.IsAbs(f) {
				continue
			}
			b, err := os.ReadFile(f)
			if err != nil {
				return err
			}
			a.File(f, 0o755, b)
		}
	}
	return nil
}

// Write writes the archive to a file.
func (a *Archive) Write(file string) error {
	a.entry("TRAILER!!!", 0, nil)
	return os.WriteFile(file, a.b.Bytes(), 0o600)
}
