package vol

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Leftovers lists what still lives below dir: processes that name it in their
// arguments or environment, mounts on it (in any namespace), loops over its files.
func Leftovers(dir string) []string {
	var out []string
	for _, p := range Processes(dir) {
		out = append(out, fmt.Sprintf("process %d: %s%s", p.PID, strings.Join(p.Args, " "), p.fanotify()))
	}
	for _, m := range mountsBelow("self", dir) {
		out = append(out, "mount "+m)
	}
	for _, l := range loopsBelow(dir) {
		out = append(out, "loop "+l.device+" over "+l.file)
	}
	return out
}

// close fails the test for what is left and then removes it.
func (l *Lab) close() {
	// A mount or a loop that the test made itself is not a leftover: it is ended
	// here. What counts is a process.
	procs := []Process{}
	if !Eventually(5*time.Second, func() bool { procs = Processes(l.Dir); return len(procs) == 0 }) {
		for _, p := range procs {
			l.T.Errorf("left behind: process %d: %s%s", p.PID, strings.Join(p.Args, " "), p.fanotify())
		}
	}
	if err := Clean(l.Dir); err != nil {
		l.T.Errorf("clean up: %v", err)
	}
}

// Clean kills, unmounts and detaches everything below dir.
func Clean(dir string) error {
	for _, p := range Processes(dir) {
		// By its id, and only a process that names the lab's own directory.
		_ = unix.Kill(p.PID, unix.SIGKILL)
	}
	ok := Eventually(20*time.Second, func() bool {
		mounts := mountsBelow("self", dir)
		for i := len(mounts) - 1; i >= 0; i-- {
			// What holds the file of a loop goes after the loop: without a path to its
			// file nobody would know whose the loop is.
			if unix.Unmount(mounts[i], 0) != nil && !holdsLoop(mounts[i], dir) {
				_ = unix.Unmount(mounts[i], unix.MNT_DETACH)
			}
		}
		for _, lp := range loopsBelow(dir) {
			_ = detach(lp)
		}
		return len(Leftovers(dir)) == 0
	})
	if !ok {
		return fmt.Errorf("left in %s: %s", dir, strings.Join(Leftovers(dir), "; "))
	}
	return nil
}

func holdsLoop(mount, dir string) bool {
	for _, lp := range loopsBelow(dir) {
		if strings.HasPrefix(lp.file, mount+"/") {
			return true
		}
	}
	return false
}

// detach frees a loop, if it still is over that file: while it is held open here,
// its number cannot pass to somebody else's file.
func detach(l loop) error {
	fd, err := unix.Open(l.device, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	b, err := os.ReadFile("/sys/block/" + filepath.Base(l.device) + "/loop/backing_file")
	if err != nil || strings.TrimSpace(string(b)) != l.file {
		return err
	}
	return unix.IoctlSetInt(fd, unix.LOOP_CLR_FD, 0)
}

// Detach frees a loop of the lab.
func (l *Lab) Detach(device string) {
	l.T.Helper()
	for _, lp := range loopsBelow(l.Dir) {
		if lp.device == device {
			if err := detach(lp); err != nil {
				l.T.Errorf("detach %s: %v", device, err)
			}
		}
	}
}

// Process is a running process that belongs to a lab.
type Process struct {
	PID  int
	Args []string
}

// fanotify says how many fanotify groups the process holds.
func (p Process) fanotify() string {
	fds, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", p.PID))
	n := 0
	for _, fd := range fds {
		if to, err := os.Readlink(fd); err == nil && strings.Contains(to, "[fanotify]") {
			n++
		}
	}
	if n == 0 {
		return ""
	}
	return fmt.Sprintf(" (holds %d fanotify groups)", n)
}

// Processes finds the processes other than this one that name dir in their
// arguments or environment, zombies excluded.
func Processes(dir string) []Process {
	var out []Process
	procs, _ := filepath.Glob("/proc/[0-9]*")
	for _, proc := range procs {
		pid, err := strconv.Atoi(filepath.Base(proc))
		if err != nil || pid == os.Getpid() || pid == os.Getppid() {
			continue
		}
		args, _ := os.ReadFile(proc + "/cmdline")
		if len(args) == 0 {
			continue // a kernel thread or a zombie
		}
		env, _ := os.ReadFile(proc + "/environ")
		if !strings.Contains(string(args), dir) && !strings.Contains(string(env), dir) {
			continue
		}
		out = append(out, Process{PID: pid, Args: strings.Split(strings.TrimRight(string(args), "\x00"), "\x00")})
	}
	return out
}

// mountsBelow lists the mount points at or below dir in mount order.
func mountsBelow(pid, dir string) []string {
	f, err := os.Open("/proc/" + pid + "/mountinfo")
	if err != nil {
		return nil
	}
	defer f.Close()
	var out []string
	for s := bufio.NewScanner(f); s.Scan(); {
		fields := strings.Fields(s.Text())
		if len(fields) < 5 {
			continue
		}
		point := unescape(fields[4])
		if point == dir || strings.HasPrefix(point, dir+"/") {
			out = append(out, point)
		}
	}
	return out
}

// Mounts lists the mounts at exactly dir, the lowest first.
func Mounts(dir string) []string {
	var out []string
	for _, m := range mountsBelow("self", dir) {
		if m == dir {
			out = append(out, m)
		}
	}
	return out
}

// unescape undoes the octal escapes of mountinfo.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if c, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(c))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

type loop struct{ device, file string }

func loopsBelow(dir string) []loop {
	files, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
	sort.Strings(files)
	var out []loop
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			continue
		}
		file := strings.TrimSpace(string(b))
		if strings.HasPrefix(file, dir+"/") {
			out = append(out, loop{"/dev/" + strings.Split(f, "/")[3], file})
		}
	}
	return out
}
