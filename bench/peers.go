package bench

import (
	"context"
	"fmt"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// peers are the ways people copy a volume today, from one directory to another.
var peers = []struct {
	name string
	args func(from, to string) []string
}{
	{"rsync -aHAX", func(from, to string) []string {
		return []string{"rsync", "-aHAX", "--numeric-ids", from + "/", to + "/"}
	}},
	{"cp -a", func(from, to string) []string { return []string{"cp", "-a", from + "/.", to + "/"} }},
	{"tar|tar", func(from, to string) []string {
		return []string{"sh", "-c", `tar -C "$1" --acls --xattrs -cf - . | tar -C "$2" --acls --xattrs -xpf -`, "sh", from, to}
	}},
}

// copyOnce has a peer copy the source to a new target, cold, sync included.
func (b *bench) copyOnce(ctx context.Context, r *rig, args []string) (res run, err error) {
	if err := r.target(ctx); err != nil {
		return run{}, err
	}
	defer func() {
		if err2 := r.dropTarget(); err == nil {
			err = err2
		}
	}()
	if err := r.cold(); err != nil {
		return run{}, err
	}
	before, err := moved(r.source)
	if err != nil {
		return run{}, err
	}
	res, err = timed(ctx, args, r.peer())
	if err != nil {
		return run{}, err
	}
	now, err := moved(r.source)
	res.Read = now.since(before).Read
	return res, err
}

// timed runs a command and syncs the volume at dir.
func timed(ctx context.Context, args []string, dir string) (run, error) {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	began := time.Now()
	out, err := cmd.CombinedOutput()
	if err != nil {
		return run{}, fmt.Errorf("%s: %w: %s", args[0], err, out)
	}
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return run{}, err
	}
	err = unix.Syncfs(fd)
	took := time.Since(began)
	unix.Close(fd)
	res := run{Seconds: took.Seconds(), CPU: (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds()}
	if u, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		res.RSS = u.Maxrss << 10
	}
	return res, err
}
