package churn

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// handleLimit bounds what is kept open, so that most files are at rest.
const handleLimit = 48

// keep opens a file and keeps the descriptor, or closes what is kept. A file may
// be unlinked while it is kept: its last bytes go nowhere, and nothing may notice.
func (w *worker) keep() error {
	f, release, err := w.pickFile()
	if f.n == nil || err != nil {
		return err
	}
	defer release()
	if f.n.held != nil {
		w.release(f.n)
		return nil
	}
	if w.heldCount() >= handleLimit {
		return w.dropOne()
	}
	fd, err := reopen(f.fd, unix.O_RDWR)
	if err != nil {
		return w.verdict(err)
	}
	w.hold(f.n, &handle{fd: fd})
	return nil
}

// dropOne closes a kept handle, after a last write through it when the file is
// unlinked by now.
func (w *worker) dropOne() error {
	w.mu.Lock()
	var n *Node
	for n = range w.handles {
		break
	}
	w.mu.Unlock()
	if n == nil || !n.mu.TryLock() {
		return nil
	}
	defer n.mu.Unlock()
	if n.held == nil {
		return nil
	}
	if n.held.fd >= 0 && w.unlinked(n) {
		_, err := unix.Pwrite(n.held.fd, []byte("nobody will read this"), 0)
		if err := w.verdict(err); err != nil {
			return err
		}
	}
	w.release(n)
	return nil
}

// unlinked asks without waiting: an exclusive holder of the tree may wait for n.
func (w *worker) unlinked(n *Node) bool {
	if !w.Model.tree.TryRLock() {
		return false
	}
	defer w.Model.tree.RUnlock()
	return len(n.Places) == 0
}

// store changes a few bytes through a shared mapping, several times, so that
// all but the first go into a page that is dirty already. Sometimes msync follows,
// sometimes the mapping stays when the descriptor is closed.
func (w *worker) store() error {
	f, release, err := w.pickFile()
	if f.n == nil || err != nil {
		return err
	}
	defer release()
	size := f.n.Content.Size
	if size == 0 {
		return nil
	}
	mem := []byte(nil)
	if f.n.held != nil {
		mem = f.n.held.mem
	}
	if mem == nil {
		fd, err := reopen(f.fd, unix.O_RDWR)
		if err != nil {
			return w.verdict(err)
		}
		defer unix.Close(fd)
		mem, err = unix.Mmap(fd, 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		if err != nil {
			return w.verdict(err)
		}
		if f.n.held == nil && w.rng.IntN(3) == 0 && w.heldCount() < handleLimit {
			w.hold(f.n, &handle{fd: -1, mem: mem})
		} else {
			defer func() { _ = unix.Munmap(mem) }()
		}
	}
	reach := min(size, int64(len(mem)))
	page := w.rng.Int64N((reach-1)/block+1) * block
	for range 1 + w.rng.IntN(4) {
		end := min(page+block, reach)
		off := page + w.rng.Int64N(end-page)
		op := &Op{Kind: Store, Node: f.n.ID, Worker: w.id, Off: off, Len: 1 + w.rng.Int64N(end-off), Seed: w.rng.Uint64()}
		if err := w.perform(action{op: op, node: f.n, fd: f.fd, do: func() (int64, error) { return put(mem, op) }}); err != nil {
			return err
		}
	}
	if w.rng.IntN(3) == 0 {
		return w.verdict(unix.Msync(mem, unix.MS_SYNC))
	}
	return nil
}

// put stores op's bytes. They lie within one page, so a fault at the first of
// them means that none was stored.
func put(mem []byte, op *Op) (n int64, err error) {
	buf := make([]byte, op.Len)
	Fill(op.Seed, op.Off, buf)
	touched := false
	defer func() {
		if p := recover(); p != nil {
			fault, ok := p.(runtime.Error)
			if _, addr := fault.(interface{ Addr() uintptr }); !ok || !addr {
				panic(p)
			}
			if err = errFault; !touched {
				err = unix.ENOSPC
			}
		}
	}()
	mem[op.Off] = buf[0]
	touched = true
	copy(mem[op.Off:op.Off+op.Len], buf)
	return op.Len, nil
}
