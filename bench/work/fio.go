package work

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/fsmigrate/fsmigrate/bench/oplog"
)

// runFio runs fio until ctx ends, and then tells what it logged.
func runFio(ctx context.Context, o Options, out *log) error {
	f, err := openOne(o.Dir, "app-fio")
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	prefix := filepath.Join(o.Scratch, fmt.Sprintf("fio-from-%d", o.From))
	// O_DSYNC, and not fdatasync: what fio logs is the write alone.
	cmd := exec.Command("fio", "--name=bench", "--filename="+f.Name(), "--size="+strconv.Itoa(oneSize), "--rw=randwrite", "--bs=4k", "--sync=dsync",
		"--ioengine=psync", "--randseed=1", fmt.Sprintf("--rate_iops=%.0f", max(1, o.Rate)), "--time_based", "--runtime=86400",
		"--write_lat_log="+prefix, "--log_unix_epoch=1", "--disable_slat=1", "--disable_clat=1", "--eta=never", "--output="+prefix+".txt")
	cmd.Dir = o.Scratch
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		return err
	}
	out.ready()
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case err := <-ended:
		report, _ := os.ReadFile(prefix + ".txt")
		return fmt.Errorf("fio ended: %w: %s%s", errOr(err, "by itself"), tail(said.Bytes()), tail(report))
	case <-ctx.Done():
	}
	_ = cmd.Process.Signal(syscall.SIGINT) // it ends its jobs and writes its logs
	kill := time.AfterFunc(endLimit, func() { _ = cmd.Process.Kill() })
	defer kill.Stop()
	stopped := <-ended // its status after a signal says nothing; its log does
	logs, err := filepath.Glob(prefix + "_lat.*.log")
	if err != nil || len(logs) == 0 {
		return fmt.Errorf("fio left no log: %w: %s", errOr(stopped, "none there"), tail(said.Bytes()))
	}
	return told(logs, func(line string) (oplog.Op, error) { return oplog.Fio(line, time.Unix(0, 0)) }, out)
}
