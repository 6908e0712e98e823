package service

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// Notify tells systemd a state ("READY=1", "STATUS=…", "WATCHDOG=1", "STOPPING=1";
// several separated by newlines), by sd_notify(3)'s protocol. Nothing happens where
// nobody listens (no NOTIFY_SOCKET).
func Notify(state string) error {
	addr := os.Getenv("NOTIFY_SOCKET")
	if addr == "" {
		return nil
	}
	if strings.HasPrefix(addr, "@") {
		addr = "\x00" + addr[1:]
	}
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: addr, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("notify systemd: %w", err)
	}
	defer c.Close()
	if err := c.SetWriteDeadline(time.Now().Add(time.Second)); err != nil {
		return fmt.Errorf("notify systemd: %w", err)
	}
	if _, err := c.Write([]byte(state)); err != nil {
		return fmt.Errorf("notify systemd: %w", err)
	}
	return nil
}

// KeepAlive is how often systemd wants WATCHDOG=1: half of its limit. 0: never.
func KeepAlive() time.Duration {
	if pid := os.Getenv("WATCHDOG_PID"); pid != "" && pid != strconv.Itoa(os.Getpid()) {
		return 0
	}
	usec, err := strconv.ParseInt(os.Getenv("WATCHDOG_USEC"), 10, 64)
	if err != nil || usec <= 0 {
		return 0
	}
	return time.Duration(usec) * time.Microsecond / 2
}

// Systemd reports whether systemd runs this machine.
func Systemd() bool {
	info, err := os.Stat("/run/systemd/system")
	return err == nil && info.IsDir()
}

// reloadLimit bounds a reload; systemd itself gives up on its generators after a minute and a half.
const reloadLimit = 2 * time.Minute

// Reload makes systemd read its units and fstab again. Until it does, a mount that fstab
// gave another device belongs to the one that it had when systemd last looked.
func Reload(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, reloadLimit)
	defer cancel()
	out, err := exec.CommandContext(ctx, "systemctl", "daemon-reload").CombinedOutput()
	if err != nil {
		return fmt.Errorf("systemctl daemon-reload: %w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}
