package shadow

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// watchEvents is what is watched. FAN_RENAME would say the same as the two MOVED
// events; FAN_DELETE_SELF comes late and says what a stale handle says. FAN_FS_ERROR
// is an error that the file system found in itself (ext4 only); it marks nothing.
const watchEvents = unix.FAN_CREATE | unix.FAN_DELETE | unix.FAN_MOVED_FROM | unix.FAN_MOVED_TO |
	unix.FAN_ATTRIB | unix.FAN_MODIFY | unix.FAN_CLOSE_WRITE | unix.FAN_ONDIR | unix.FAN_FS_ERROR

// watchBuffer is what one read may bring: some 2,000 events.
const watchBuffer = 256 << 10

// watchPause lies between two rounds of reading. Meanwhile the kernel merges events
// about one object into one: of 200,000 writes to a file 30,000 events were read
// without it and 200 with it, and the writer is not preempted for each. Barrier does not wait for it.
const watchPause = 5 * time.Millisecond

// WatchOptions are the options of a Watch. The zero value has the defaults.
type WatchOptions struct {
	// Limited gives the kernel's queue its default length (16,384 events, or
	// fs.fanotify.max_queued_events) in place of none: for tests of overflow.
	Limited bool
}

// Watch hears of every change to one volume, from any mount of it and any mount
// namespace, but for those that FACTS.md names (stores through mmap, inode flags).
type Watch struct {
	f     *os.File
	fd    int // of f; File.Fd would make it blocking
	codec *HandleCodec
	sink  func(Event)
	done  chan struct{}

	closing chan struct{} // closed by Close

	mu     sync.Mutex // held around read and delivery: the sink is called by one goroutine at a time
	buf    []byte
	closed bool
	err    error

	events, batches, overflows atomic.Int64
	lost                       atomic.Bool
	started                    time.Time
}

// StartWatch watches the volume that mountFD lies on. When it returns, no later
// change is missed. On btrfs mountFD must be of the top-level tree. sink is called for every event, by one
// goroutine at a time, and must be quick; what it is given is its own.
func StartWatch(mountFD int, codec *HandleCodec, sink func(Event)) (*Watch, error) {
	return StartWatchOptions(mountFD, codec, sink, WatchOptions{})
}

// StartWatchOptions is StartWatch with options.
func StartWatchOptions(mountFD int, codec *HandleCodec, sink func(Event), o WatchOptions) (*Watch, error) {
	flags := uint(unix.FAN_CLASS_NOTIF | unix.FAN_REPORT_DFID_NAME_TARGET | unix.FAN_UNLIMITED_MARKS |
		unix.FAN_CLOEXEC | unix.FAN_NONBLOCK)
	if !o.Limited {
		flags |= unix.FAN_UNLIMITED_QUEUE
	}
	fd, err := unix.FanotifyInit(flags, unix.O_RDONLY|unix.O_LARGEFILE|unix.O_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("fanotify_init: %w", err)
	}
	w := &Watch{
		f: os.NewFile(uintptr(fd), "fanotify"), fd: fd, codec: codec, sink: sink,
		done: make(chan struct{}), closing: make(chan struct{}), buf: make([]byte, watchBuffer), started: time.Now(),
	}
	err = unix.FanotifyMark(fd, unix.FAN_MARK_ADD|unix.FAN_MARK_FILESYSTEM, watchEvents, mountFD, "")
	if err != nil {
		w.f.Close()
		return nil, fmt.Errorf("fanotify_mark file system: %w", err)
	}
	go w.run()
	return w, nil
}

// run delivers events until Close, or until the kernel fails to.
func (w *Watch) run() {
	defer close(w.done)
	pause := time.NewTimer(0)
	defer pause.Stop()
	raw, err := w.f.SyscallConn()
	for err == nil {
		select {
		case <-w.closing:
			return
		case <-pause.C:
		}
		var failed error
		err = raw.Read(func(uintptr) (ready bool) {
			ready, failed = w.drain()
			return ready || failed != nil
		})
		err = cmp.Or(failed, err)
		pause.Reset(watchPause)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.failLocked(err)
}

// drain delivers what is queued, and reports whether that was anything.
func (w *Watch) drain() (any bool, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for !w.closed {
		n, err := w.readLocked()
		if n == 0 || err != nil {
			return any, err
		}
		any = true
	}
	return true, nil
}

// readLocked reads and delivers once. It returns how many events that was, 0
// when the queue is empty.
func (w *Watch) readLocked() (int64, error) {
	for {
		n, err := unix.Read(w.fd, w.buf)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EAGAIN):
			return 0, nil
		case err != nil:
			return 0, fmt.Errorf("read fanotify events: %w", err)
		case n == 0:
			return 0, fmt.Errorf("read fanotify events: %w", ErrEvents)
		}
		before := w.events.Load()
		if err := ParseEvents(w.buf[:n], w.codec, w.deliverLocked); err != nil {
			return 0, err
		}
		w.batches.Add(1)
		return max(w.events.Load()-before, 1), nil
	}
}

func (w *Watch) deliverLocked(ev Event) {
	w.events.Add(1)
	if ev.Overflow {
		w.overflows.Add(1)
		w.lost.Store(true)
	}
	w.sink(ev)
}

// failLocked ends the watch and tells the sink that from here on nothing is heard.
func (w *Watch) failLocked(err error) {
	if w.closed || w.err != nil || err == nil {
		return
	}
	w.err = err
	w.deliverLocked(Event{Overflow: true})
}

// Barrier returns when every change that was made before the call has been
// delivered to the sink. The kernel queues an event before the call that caused it returns,
// so what happened before is in the queue now, or delivered: Barrier itself delivers as many
// events as the queue holds at this moment. It writes nothing to the volume (I7), and it ends also
// when new events come faster than they are delivered.
func (w *Watch) Barrier(ctx context.Context) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	queued, err := w.queuedLocked()
	if err != nil {
		return err
	}
	for queued > 0 {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("drain fanotify queue: %w", err)
		}
		n, err := w.readLocked()
		if err != nil {
			w.failLocked(err)
			return err
		}
		if n == 0 {
			break
		}
		queued -= n
	}
	return nil
}

// queuedLocked is the number of events in the kernel's queue. FIONREAD counts
// the metadata of each event and nothing else (fs/notify/fanotify/fanotify_user.c).
func (w *Watch) queuedLocked() (int64, error) {
	switch {
	case w.closed:
		return 0, fmt.Errorf("fanotify queue: %w", os.ErrClosed)
	case w.err != nil:
		return 0, w.err
	}
	n, err := unix.IoctlGetInt(w.fd, unix.TIOCINQ) // FIONREAD
	if err != nil {
		return 0, fmt.Errorf("fanotify queue FIONREAD: %w", err)
	}
	return int64(n) / metaBytes, nil
}

// Lost reports whether events were lost, or the watch ended by itself, since the
// start or the last Forgive. The sink was told by an Overflow event.
func (w *Watch) Lost() bool { return w.lost.Load() }

// Forgive forgets that events were lost: the caller begins a rescan. It is the
// watch's error when it ended by itself, and then a new watch is needed.
func (w *Watch) Forgive() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return w.err
	}
	w.lost.Store(false)
	return nil
}

// WatchStats are a watch's numbers.
type WatchStats struct {
	Events    int64 // delivered
	Reads     int64 // that brought them
	Overflows int64
	Queued    int64 // events in the kernel's queue now
	Since     time.Time
}

// Stats says what was delivered and what waits.
func (w *Watch) Stats() WatchStats {
	w.mu.Lock()
	defer w.mu.Unlock()
	queued, _ := w.queuedLocked()
	return WatchStats{Events: w.events.Load(), Reads: w.batches.Load(), Overflows: w.overflows.Load(),
		Queued: queued, Since: w.started}
}

// Close ends the watch. What is still queued is not delivered; the sink is not
// called after it returned. It may be called again.
func (w *Watch) Close() error {
	w.mu.Lock()
	if w.closed {
		w.mu.Unlock()
		<-w.done
		return nil
	}
	w.closed = true
	close(w.closing)
	w.mu.Unlock()
	err := w.f.Close()
	<-w.done
	if err != nil {
		return fmt.Errorf("close fanotify group: %w", err)
	}
	return nil
}
