package shadow

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fsmigrate/fsmigrate/formats"
)

// volume is one side of a pair, opened: a private mount that only we hold,
// under which objects are found by handle, never by path.
type volume struct {
	fd     int    // the root directory of a private mount
	dev    uint64 // st_dev of what is on it
	device string
	format formats.Format
	limits formats.Limits
	codec  *HandleCodec
	root   Node

	// stamp is the granularity of the volume's ctime: one second for ext with
	// 128-byte inodes (FACTS: 199 of 200 same-second rewrites were invisible to ctime),
	// else the kernel's coarse clock tick, which multigrain stamps make better still.
	stamp time.Duration
}

// coarseTick bounds the granularity of the kernel's coarse clock (CONFIG_HZ ≥ 100).
const coarseTick = 10 * time.Millisecond

// openVolume describes the volume whose root directory is fd. The caller keeps
// the mount behind fd open for as long as the volume is used.
func openVolume(fd int, device string, f formats.Format, l formats.Limits) (*volume, error) {
	codec, err := NewHandleCodec(fd)
	if err != nil {
		return nil, fmt.Errorf("read handle of %s: %w", device, err)
	}
	root, err := codec.NodeAt(fd, "", unix.AT_EMPTY_PATH)
	if err != nil {
		return nil, fmt.Errorf("read handle of %s: %w", device, err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, fmt.Errorf("stat root of %s: %w", device, err)
	}
	v := &volume{fd: fd, dev: st.Dev, device: device, format: f, limits: l, codec: codec, root: root, stamp: coarseTick}
	if l.TimeGranularity >= time.Second {
		v.stamp = time.Second
	}
	return v, nil
}

// probe reads the superblock of a device.
func probe(device string, f formats.Format) (formats.Volume, error) {
	d, err := os.Open(device)
	if err != nil {
		return formats.Volume{}, err
	}
	defer d.Close()
	size, err := d.Seek(0, io.SeekEnd)
	if err != nil {
		return formats.Volume{}, err
	}
	return f.Probe(d, size)
}

// open opens n by its handle. ErrGone means that the object does not exist any more.
func (v *volume) open(n Node, flags int) (int, error) {
	return v.codec.Open(v.fd, n, flags|unix.O_CLOEXEC)
}

// nodePath says where n is, for messages only.
func (v *volume) nodePath(n Node) string {
	fd, err := v.open(n, unix.O_PATH|unix.O_NOFOLLOW)
	if err != nil {
		return fmt.Sprintf("inode %d", n.Ino)
	}
	defer unix.Close(fd)
	return fdPath(fd)
}

// fdPath is the path of fd below the root of its mount; an object opened by
// handle may have none, then its inode number stands for it.
func fdPath(fd int) string {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd), buf)
	if err == nil && n > 0 && !(n == 1 && buf[0] == '/') {
		return string(buf[:n])
	}
	var st unix.Stat_t
	if unix.Fstat(fd, &st) == nil {
		return fmt.Sprintf("inode %d", st.Ino)
	}
	return "?"
}

// vanished reports whether err says that an object or a name vanished under us,
// which on a volume in use is no error: an event says so too.
func vanished(err error) bool {
	return errors.Is(err, ErrGone) || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESTALE)
}
