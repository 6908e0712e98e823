package disrupt

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fsmigrate/fsmigrate/bench/result"
	"github.com/fsmigrate/fsmigrate/bench/work"
	"github.com/fsmigrate/fsmigrate/status"
)

// describe says what the benchmark runs on. What cannot be read is left empty.
func describe(o Options) result.Machine {
	m := result.Machine{Cores: runtime.NumCPU(), Tools: versions(), LoadThen: load(), Disk: disk(o.Dir)}
	m.CPU = field("/proc/cpuinfo", "model name")
	if kib, err := strconv.ParseInt(strings.TrimSuffix(field("/proc/meminfo", "MemTotal"), " kB"), 10, 64); err == nil {
		m.MemoryB = kib << 10
	}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		m.Kernel = unix.ByteSliceToString(u.Sysname[:]) + " " + unix.ByteSliceToString(u.Release[:]) + " " + unix.ByteSliceToString(u.Machine[:])
	}
	b, _ := os.ReadFile("/etc/os-release")
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, "PRETTY_NAME="); ok {
			m.System = strings.Trim(strings.TrimSpace(v), `"`)
		}
	}
	m.Volumes = "images on loop devices with direct I/O, on that disk"
	if o.Source != "" {
		m.Volumes = "two devices: " + blockOf(o.Source) + " and " + blockOf(o.Spare)
	}
	return m
}

// field is the first value of a name in a file of "name: value" lines.
func field(path, name string) string {
	b, _ := os.ReadFile(path)
	for line := range strings.Lines(string(b)) {
		if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == name {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// disk is what the directory is on: the file system, the kind of device, its size.
func disk(dir string) string {
	out, err := exec.Command("findmnt", "-n", "-o", "FSTYPE", "-T", dir).Output()
	if err != nil {
		return ""
	}
	text := strings.TrimSpace(string(out))
	var st unix.Stat_t
	if unix.Stat(dir, &st) != nil {
		return text
	}
	link, err := filepath.EvalSymlinks(fmt.Sprintf("/sys/dev/block/%d:%d", unix.Major(st.Dev), unix.Minor(st.Dev)))
	if err != nil {
		return text
	}
	return text + " on " + sysBlock(link)
}

func blockOf(path string) string {
	var st unix.Stat_t
	if unix.Stat(path, &st) != nil {
		return path
	}
	link, err := filepath.EvalSymlinks(fmt.Sprintf("/sys/dev/block/%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev)))
	if err != nil {
		return path
	}
	return sysBlock(link)
}

// sysBlock describes a block device by its directory in sysfs.
func sysBlock(dir string) string {
	read := func(name string) string {
		for _, d := range []string{dir, filepath.Dir(dir)} { // a partition's disk is above it
			if b, err := os.ReadFile(filepath.Join(d, name)); err == nil {
				return strings.TrimSpace(string(b))
			}
		}
		return ""
	}
	parts := []string{}
	if model := strings.Join(strings.Fields(read("device/vendor")+" "+read("device/model")), " "); model != "" && !strings.HasPrefix(model, "0x") {
		parts = append(parts, model)
	} else if strings.Contains(dir, "virtio") {
		parts = append(parts, "a virtio disk")
	} else {
		parts = append(parts, "a disk")
	}
	if sectors, err := strconv.ParseInt(read("size"), 10, 64); err == nil {
		parts = append(parts, status.Bytes(sectors*512))
	}
	if read("queue/rotational") == "1" {
		parts = append(parts, "rotational, as it says")
	}
	_, scheduler, _ := strings.Cut(read("queue/scheduler"), "[")
	if scheduler, _, ok := strings.Cut(scheduler, "]"); ok {
		parts = append(parts, "scheduler "+scheduler)
	}
	return strings.Join(parts, ", ")
}

// versions are those of the programs that take part.
func versions() map[string]string {
	ask := map[string][]string{
		"rsync": {"--version"}, "fpsync": {"-h"}, "cp": {"--version"}, "mkfs.ext4": {"-V"},
		"mkfs.xfs": {"-V"}, "mkfs.btrfs": {"--version"}, "fio": {"--version"}, "pgbench": {"--version"},
	}
	list := map[string]string{}
	for name, args := range ask {
		path, err := work.Program(name)
		if err != nil {
			continue
		}
		out, _ := exec.Command(path, args...).CombinedOutput() // some say it with a status
		for line := range strings.Lines(string(out)) {
			if strings.ContainsAny(line, "0123456789") {
				list[name] = strings.Join(strings.Fields(line), " ")
				break
			}
		}
	}
	return list
}
